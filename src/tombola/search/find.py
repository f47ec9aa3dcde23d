"""A whole search: families, levels, verdict, and the ticket to keep."""

import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, final

import numpy
import torch
from torch import nn

import tombola
from tombola import models
from tombola.prune.masks import apply, fingerprint, kept, total
from tombola.search.finding import Chosen, Finding, LevelSummary, results, run_of
from tombola.search.ledger import SCORING, Cost, RunCost
from tombola.search.levels import TICKET, Dropped, Level, Searching, search
from tombola.search.named import prepare
from tombola.search.noticed import Noticed, check_budgets, no_speed, notes_on, notice
from tombola.search.settings import Settings
from tombola.search.setup import Setup, name_of
from tombola.stats import Judgement, LevelVerdict, Run, Verdict, judge
from tombola.ticket import Ticket
from tombola.train.cost import flops_of_run, flops_per_example
from tombola.train.plain import load
from tombola.train.watch import Watcher
from tombola.types import Curve, Masks, Snapshot, TrainFn, TrainJob, TrainOutcome


class Observer(Watcher, Protocol):
    """Who watches a search; a :class:`~tombola.train.watch.Watcher` of its runs besides."""

    def planned(self, setup: Setup) -> None:
        """Everything is decided and training begins."""

    def training(self, jobs: Sequence[TrainJob]) -> None:
        """A level's jobs go to the trainer; ``evaluated`` counts them from 0."""

    def level_done(self, summary: LevelSummary, dropped: Sequence[Dropped]) -> None:
        """A level is finished."""


@final
class Silent:
    """An observer that shows nothing."""

    def planned(self, setup: Setup) -> None:
        """Do nothing."""

    def training(self, jobs: Sequence[TrainJob]) -> None:
        """Do nothing."""

    def level_done(self, summary: LevelSummary, dropped: Sequence[Dropped]) -> None:
        """Do nothing."""

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:
        """Do nothing."""

    def stop(self) -> bool:
        """Go on."""
        return False


def find(settings: Settings, observer: Observer | None = None) -> Finding:
    """Search for a ticket and judge it.

    Args:
        settings: what to do.
        observer: is told of progress.

    Returns:
        The levels, the verdict, and the subnetwork worth keeping; nothing is written.

    Raises:
        TombolaError: see :func:`tombola.search.named.prepare` and :func:`tombola.search.levels.search`.
    """
    return run(prepare(settings), observer)


def run(setup: Setup, observer: Observer | None = None, searching: Searching = search) -> Finding:
    """Run a search that has been prepared, driven level by level or otherwise; see :func:`find`."""
    began = time.perf_counter()
    observer = observer or Silent()
    observer.planned(setup)
    book = _Book(setup)
    with setup.trainer(observer) as trainer:

        def train(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
            observer.training(jobs)
            return trainer(jobs)

        for level in _levels(setup, train, searching):
            observer.level_done(book.enter(level), level.dropped)
            check_budgets(book.noticed)
    judgement = _judge(setup, book)
    return Finding(
        title=setup.title,
        about=_about(setup),
        levels=tuple(book.levels),
        dense=book.dense,
        judgement=judgement,
        cost=book.cost(time.perf_counter() - began),
        chosen=_choose(setup, book, judgement),
        dropped=tuple(book.dropped),
        notes=(*setup.notes, *notes_on(book.noticed)),
    )


def _levels(setup: Setup, train: TrainFn, searching: Searching) -> Iterator[Level]:
    return searching(
        setup.families,
        train,
        setup.plan.pruner,
        setup.plan.scope.prunable,
        iterations=setup.iterations,
        levels=setup.plan.cuts,
        dense_runs=setup.method.dense_runs,
        controls=setup.plan.controls,
        control_levels=setup.plan.gates,
    )


@final
@dataclass(frozen=True)
class _Candidate:
    """A ticket that may be chosen, with what is saved of its run and no more.

    Attributes:
        start: what it started from, survivors only: a masked tensor as the vector of its kept values.
        end: what it trained into, likewise.
        validation: what validation says of it, smaller is better; ``None`` where the loop reported nothing.
    """

    masks: Masks
    parent: Masks
    start: Snapshot
    end: Snapshot
    validation: float | None
    run: Run


@final
class _Book:
    """What is kept of the levels: numbers of all, tensors of the gates."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.levels: list[LevelSummary] = []
        self.dense: dict[int, tuple[Run, ...]] = {}
        self.dropped: list[Dropped] = []
        self.candidates: dict[int, dict[int, _Candidate]] = {}
        self.lineage: dict[int, list[dict[str, Any]]] = {}
        self.noticed: list[Noticed] = []
        self._parents: Mapping[int, Masks] = {}
        self._paid: list[RunCost] = []

    def enter(self, level: Level) -> LevelSummary:
        """Write a level down."""
        setup, plan = self._setup, self._setup.plan
        for job, outcome in level.runs:
            self._pay(level.level, job, outcome)
        if plan.pruner.looks:
            self._paid.extend(self._scoring(level))
        if level.level == 0:
            self.dense = {r: tuple(run_of(one) for one in runs) for r, runs in level.dense.items()}
        self.dropped.extend(level.dropped)
        self.noticed.extend(notice(level))
        alive, size = sum(plan.levels[level.level].values()), plan.prunable
        for r, masks in level.masks.items():
            entry = {"level": level.level, "kept": alive, "total": size, "masks": fingerprint(masks)}
            self.lineage.setdefault(r, []).append(entry)
        if level.level in plan.gates:
            self.candidates[level.level] = {
                r: _Candidate(
                    masks=level.masks[r],
                    parent=self._parents[r],
                    start=_survivors(level.starts[r], level.masks[r]),
                    end=_survivors(outcome.end, level.masks[r]),
                    validation=_validation(outcome.curve),
                    run=run_of(outcome),
                )
                for r, outcome in level.arms[TICKET].items()
            }
        self._parents = level.masks
        summary = LevelSummary(
            level=level.level,
            kept=alive,
            total=size,
            density_all_parameters=(setup.parameters - size + alive) / setup.parameters,
            gate=level.level in plan.gates,
            arms={name: {r: run_of(one) for r, one in runs.items()} for name, runs in level.arms.items()},
            dense=self.dense if level.level == 0 else {},
            after_cut=level.after_cut,
        )
        assert all(kept(masks) == alive and total(masks) == size for masks in level.masks.values())
        self.levels.append(summary)
        return summary

    def _pay(self, level: int, job: TrainJob, outcome: TrainOutcome) -> None:
        """Write down what a run cost, whether or not it finished."""
        work = self._setup.work
        samples = dense = effective = None
        if work is not None:
            samples = outcome.iterations * work.examples
            dense = samples * flops_per_example(work.macs)
            effective = work.examples * flops_of_run(work.macs, job, outcome)
        self._paid.append(
            RunCost(
                level=level,
                density=self._setup.plan.densities[level],
                arm=job.name,
                replicate=job.seed.replicate,
                order=job.seed.order,
                engine=self._setup.about["engine"],
                iterations=outcome.iterations,
                samples=samples,
                flops_dense=dense,
                flops_effective=effective,
                seconds=outcome.seconds,
            )
        )

    def _scoring(self, level: Level) -> Iterator[RunCost]:
        """Write down what looking at the network cost, in each family."""
        for replicate, one in level.scoring.items():
            yield RunCost(
                level=level.level,
                density=self._setup.plan.densities[level.level],
                arm=SCORING,
                replicate=replicate,
                order=0,
                engine="plain",
                iterations=0,
                samples=0,
                flops_dense=one.flops,
                flops_effective=one.flops,
                seconds=one.seconds,
            )

    def cost(self, seconds: float) -> Cost:
        """Add up."""
        work, training = self._setup.work, self._setup.iterations
        flops = None if work is None else training * work.examples * flops_per_example(work.macs)
        return Cost(tuple(self._paid), training, flops, seconds)


def _validation(curve: Curve) -> float | None:
    losses = [loss for loss in curve.loss if math.isfinite(loss)]
    accuracies = [accuracy for accuracy in curve.accuracy if math.isfinite(accuracy)]
    return min(losses) if losses else -max(accuracies) if accuracies else None


def _judge(setup: Setup, book: _Book) -> Judgement:
    pruner = setup.plan.pruner
    restarts = pruner.keeps_start_values
    speed, early = setup.speed or no_speed(book.noticed), None
    if pruner.during:
        speed = "masks change while the network trains, and its early stop is sought after the last change"
    elif not restarts:
        speed = "the survivors keep trained weights, so their iterations do not count from initialisation"
    if all(one.steps == () for one in book.noticed):
        early = "the training loop reported no validation loss, so there is no early stop"
    table = results(tuple(book.levels), book.dense)
    return judge(
        table,
        margin=setup.margin,
        gates=[book.levels[level].density for level in setup.plan.gates],
        alpha=setup.method.alpha,
        lottery=restarts,
        longer=pruner.during is None,
        speed=speed,
        early=early,
        score=setup.score,
        seed=setup.method.seed,
    )


def _choose(setup: Setup, book: _Book, judgement: Judgement) -> Chosen:
    """Take the certified level, or the next best; of its families the one that validation likes best."""
    by_density = {verdict.density: verdict for verdict in judgement.levels}
    levels = {level: by_density[book.levels[level].density] for level in book.candidates}
    level, why = _best_level(levels)
    among = {r: book.candidates[level][r] for r in judgement.replicates}
    ranks = {r: one.validation for r, one in among.items() if one.validation is not None}
    if len(ranks) == len(among):
        replicate = min(ranks, key=lambda r: (ranks[r], r))
        why = f"{why}; of its families number {replicate} has the best validation"
    else:
        replicate = min(among)
        why = f"{why}; of its families the first, for the loop reported no validation to choose by"
    best = among[replicate]
    start, end = _whole(best.start, best.masks), _whole(best.end, best.masks)
    lineage = book.lineage[replicate][: level + 1]
    if setup.plan.pruner.each_from_dense:
        lineage = [lineage[0], lineage[-1]]
    provenance = {
        **_about(setup),
        "level": level,
        "replicate": replicate,
        "density": book.levels[level].density,
        "verdict": levels[level].verdict.value,
        "verdict_sentence": levels[level].sentence,
        "certified": dict(judgement.certified),
        "chosen": why,
        "reported": vars(best.run),
        "start_step": start.step,
        "end_step": end.step,
        "lineage": lineage,
    }
    init = next(family.init for family in setup.families if family.replicate == replicate)
    late = setup.plan.pruner.keeps_start_values and start.step > 0
    ticket = Ticket(
        start=start.params,
        masks=best.masks,
        buffers=start.buffers,
        provenance=provenance,
        theta_0=apply(init.params, best.masks) if late else None,
        parent=best.parent if len(lineage) > 2 else None,
    )
    return Chosen(
        ticket=ticket,
        trained=end.params,
        masks=best.masks,
        buffers=end.buffers,
        tied=setup.tied,
        network=_network(setup, end),
        why=why,
    )


def _survivors(snapshot: Snapshot, masks: Masks) -> Snapshot:
    params = {name: value[masks[name]] if name in masks else value for name, value in snapshot.params.items()}
    return replace(snapshot, params=params, optimizer=None)


def _whole(snapshot: Snapshot, masks: Masks) -> Snapshot:
    params = dict(snapshot.params)
    for name, mask in masks.items():
        params[name] = torch.zeros(mask.shape, dtype=params[name].dtype).masked_scatter_(mask, params[name])
    return replace(snapshot, params=params)


def _network(setup: Setup, end: Snapshot) -> nn.Module:
    """Build the trained sparse network, in evaluation mode."""
    with models.DRAWING, torch.random.fork_rng(devices=()):
        network = setup.build()
    load(network, end)
    return network.eval()


def _best_level(levels: Mapping[int, LevelVerdict]) -> tuple[int, str]:
    good = (Verdict.WINS, Verdict.MATCHES, Verdict.MATCHES_NO_EFFECT)
    for wanted, why in (
        ([n for n, v in levels.items() if v.certified], "the sparsest certified level"),
        ([n for n, v in levels.items() if v.verdict in good], "nothing is certified; the sparsest level that matches"),
        (
            [n for n, v in levels.items() if v.verdict is not Verdict.LOSES],
            "nothing is certified and nothing matches; the sparsest level that does not lose",
        ),
    ):
        if wanted:
            return max(wanted), why
    return min(levels), "every level loses; the densest of them"


def _about(setup: Setup) -> dict[str, Any]:
    method, plan = setup.method, setup.plan
    criterion = method.criterion
    return {
        **setup.about,
        "strategy": method.strategy,
        "criterion": criterion if isinstance(criterion, str) or criterion is None else name_of(criterion),
        "allocation": plan.pruner.allocation.name,
        "structure": method.structure,
        "recalibrated": method.recalibrate,
        "rewind": plan.pruner.rewind.describe(),
        "controls": list(plan.controls),
        "seed": method.seed,
        "replicates": len(setup.families),
        "dense_runs_per_replicate": method.dense_runs,
        "score": setup.score.name,
        "margin": setup.margin,
        "alpha": method.alpha,
        "skipped": dict(plan.scope.skipped),
        "tied": dict(setup.tied),
        "macs_not_counted": list(setup.work.uncounted) if setup.work else None,
        "versions": {
            "tombola": tombola.__version__,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
    }
