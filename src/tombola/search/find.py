"""A whole search: families, levels, verdict, and the ticket to keep."""

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy
import torch

import tombola
from tombola.prune.masks import kept, total
from tombola.search.finding import Chosen, Cost, Finding, LevelSummary, results, run_of
from tombola.search.levels import TICKET, Dropped, Level, search
from tombola.search.settings import Settings
from tombola.search.setup import Setup, prepare
from tombola.stats import Judgement, LevelVerdict, Run, Verdict, judge
from tombola.ticket import Ticket
from tombola.train.cost import flops_per_example
from tombola.train.plain import PlainTrainer, Watcher
from tombola.train.pool import Pool
from tombola.types import Masks, Params, Snapshot, Step, TrainFn, TrainJob, TrainOutcome


class Observer(Watcher, Protocol):
    """Who watches a search; a :class:`~tombola.train.plain.Watcher` of its runs besides."""

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
        TombolaError: see :func:`tombola.search.setup.prepare` and :func:`tombola.search.levels.search`.
    """
    return run(prepare(settings), observer)


def run(setup: Setup, observer: Observer | None = None) -> Finding:
    """Run a search that has been prepared; see :func:`find`."""
    began = time.perf_counter()
    observer = observer or Silent()
    observer.planned(setup)
    trainer = PlainTrainer(setup.build, setup.splits, setup.recipe, setup.settings.device, watcher=observer)
    book = _Book(setup)
    with Pool(trainer, setup.workers) as pool:

        def train(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
            observer.training(jobs)
            outcomes = pool(jobs)
            for job, outcome in zip(jobs, outcomes, strict=True):
                book.pay(job, outcome)
            return outcomes

        for level in _levels(setup, train):
            observer.level_done(book.enter(level), level.dropped)
    judgement = _judge(setup, book)
    return Finding(
        about=_about(setup),
        levels=tuple(book.levels),
        dense=book.dense,
        judgement=judgement,
        cost=book.cost(time.perf_counter() - began),
        chosen=_choose(setup, book, judgement),
        dropped=tuple(book.dropped),
    )


def _levels(setup: Setup, train: TrainFn) -> Iterator[Level]:
    return search(
        setup.families(),
        train,
        setup.pruner,
        setup.scope.prunable,
        iterations=setup.recipe.iterations,
        levels=len(setup.planned) - 1,
        dense_runs=setup.settings.dense_runs,
        controls=setup.controls,
        control_levels=setup.gates,
    )


@final
@dataclass(frozen=True)
class _Candidate:
    """A ticket that may be chosen, with what is saved of its run and no more."""

    masks: Masks
    start: Snapshot
    end_step: Step
    trained: Params
    buffers: Params
    lowest_loss: float
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
        self._iterations = 0
        self._flops_dense = 0.0
        self._flops_effective = 0.0

    def enter(self, level: Level) -> LevelSummary:
        """Write a level down."""
        setup = self._setup
        if level.level == 0:
            self.dense = {r: tuple(run_of(one) for one in runs) for r, runs in level.dense.items()}
        self.dropped.extend(level.dropped)
        alive = sum(setup.planned[level.level].values())
        size = sum(setup.planned[0].values())
        if level.level in setup.gates:
            self.candidates[level.level] = {
                r: _Candidate(
                    masks=level.masks[r],
                    start=level.starts[r],
                    end_step=outcome.end.step,
                    trained=outcome.end.params,
                    buffers=outcome.end.buffers,
                    lowest_loss=min(outcome.curve.loss),
                    run=run_of(outcome),
                )
                for r, outcome in level.arms[TICKET].items()
            }
        summary = LevelSummary(
            level=level.level,
            kept=alive,
            total=size,
            density_all_parameters=(setup.parameters - size + alive) / setup.parameters,
            gate=level.level in setup.gates,
            arms={name: {r: run_of(one) for r, one in runs.items()} for name, runs in level.arms.items()},
        )
        assert all(kept(masks) == alive and total(masks) == size for masks in level.masks.values())
        self.levels.append(summary)
        return summary

    def pay(self, job: TrainJob, outcome: TrainOutcome) -> None:
        """Add what a run cost, whether or not it finished."""
        examples = outcome.iterations * self._setup.recipe.batch_size
        self._iterations += outcome.iterations
        self._flops_dense += examples * flops_per_example(self._setup.macs)
        self._flops_effective += examples * flops_per_example(self._setup.macs, job.masks)

    def cost(self, seconds: float) -> Cost:
        """Add up."""
        return Cost(
            iterations=self._iterations,
            dense_trainings=self._iterations / self._setup.recipe.iterations,
            flops_dense=self._flops_dense,
            flops_effective=self._flops_effective,
            seconds=seconds,
        )


def _judge(setup: Setup, book: _Book) -> Judgement:
    speed = None
    if not setup.recipe.argmin_is_informative:
        speed = (
            f"under the {setup.recipe.schedule} schedule the minimum of validation loss lies where the learning rate "
            "falls, so its iteration measures no speed"
        )
    elif not setup.pruner.rewind.keeps_start_values:
        speed = "the survivors keep trained weights, so their iterations do not count from initialisation"
    table = results(tuple(book.levels), book.dense)
    return judge(
        table,
        margin=setup.margin,
        gates=[book.levels[level].density for level in setup.gates],
        alpha=setup.settings.alpha,
        lottery=setup.pruner.rewind.keeps_start_values,
        speed=speed,
        seed=setup.settings.seed,
    )


def _choose(setup: Setup, book: _Book, judgement: Judgement) -> Chosen:
    """Take the certified level, or the next best; of its families the one with the lowest validation loss."""
    by_density = {verdict.density: verdict for verdict in judgement.levels}
    levels = {level: by_density[book.levels[level].density] for level in book.candidates}
    level, why = _best_level(levels)
    replicate = min(judgement.replicates, key=lambda r: (book.candidates[level][r].lowest_loss, r))
    best = book.candidates[level][replicate]
    why = f"{why}; of its families number {replicate} has the lowest validation loss"
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
        "start_step": best.start.step,
        "end_step": best.end_step,
    }
    return Chosen(
        ticket=Ticket(start=best.start.params, masks=best.masks, buffers=best.start.buffers, provenance=provenance),
        trained=best.trained,
        masks=best.masks,
        buffers=best.buffers,
        tied=setup.tied,
        why=why,
    )


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
    settings, dataset = setup.settings, setup.dataset
    return {
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "model": setup.model,
        "input_shape": list(dataset.input_shape),
        "classes": dataset.classes,
        "engine": "plain",
        "device": settings.device,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "strategy": settings.strategy,
        "criterion": settings.criterion,
        "allocation": setup.pruner.allocation.name,
        "rewind": setup.pruner.rewind.describe(),
        "controls": list(setup.controls),
        "seed": settings.seed,
        "replicates": settings.replicates,
        "dense_runs_per_replicate": settings.dense_runs,
        "margin": setup.margin,
        "alpha": settings.alpha,
        "recipe": dict(setup.recipe.as_json()),
        "recipe_digest": setup.recipe.digest,
        "skipped": dict(setup.scope.skipped),
        "tied": dict(setup.tied),
        "macs_not_counted": list(setup.uncounted),
        "versions": {
            "tombola": tombola.__version__,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
    }
