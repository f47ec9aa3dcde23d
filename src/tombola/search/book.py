"""What is kept of a search while it runs: numbers of all levels, tensors of the gates."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from tombola.analysis.family import Observed
from tombola.prune.masks import fingerprint, kept, total
from tombola.search.course import Cut
from tombola.search.finding import LevelSummary, run_of
from tombola.search.ledger import SCORING, Cost, Origin, RunCost
from tombola.search.levels import TICKET, Dropped, Level
from tombola.search.noticed import Noticed, notice
from tombola.search.observed import RUNS
from tombola.search.setup import Setup
from tombola.stats import Run
from tombola.train.cost import flops_of_run, flops_per_example
from tombola.types import Curve, Masks, Params, Snapshot, Step, TrainJob, TrainOutcome


@final
@dataclass(frozen=True)
class Candidate:
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
class Book:
    """What is kept of the levels: numbers of all, tensors of the gates."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.at: dict[int, LevelSummary] = {}
        self.dense: dict[int, tuple[Run, ...]] = {}
        self.dropped: list[Dropped] = []
        self.candidates: dict[int, dict[int, Candidate]] = {}
        self.lineage: dict[int, dict[int, dict[str, Any]]] = {}
        self.noticed: list[Noticed] = []
        self._ends: dict[int, tuple[Params, ...]] = {}
        self._masks: dict[int, Mapping[int, Masks]] = {}
        self._paid: list[RunCost] = []
        self._needed: dict[int, dict[int, Step]] = {}

    def enter(self, level: Level) -> LevelSummary:
        """Write a level down, beside what earlier looks have of it."""
        setup, plan = self._setup, self._setup.plan
        for job, outcome in level.runs:
            self._pay(level.level, level.level, job, outcome)
        for one in level.making:
            self._pay(one.level, level.level, one.job, one.outcome)
        self._paid.extend(self._scoring(level))
        if level.level == 0:
            self.dense |= {r: tuple(run_of(one) for one in runs) for r, runs in level.dense.items()}
        if level.level == 0 and setup.about["engine"] == "own":
            self._ends |= {r: tuple(run.end.params for run in runs[:RUNS]) for r, runs in level.dense.items()}
        self.dropped.extend(level.dropped)
        self.noticed.extend(notice(level))
        alive, size = sum(plan.levels[level.level].values()), plan.prunable
        for r, masks in level.masks.items():
            entry = {"level": level.level, "kept": alive, "total": size, "masks": fingerprint(masks)}
            self.lineage.setdefault(r, {})[level.level] = entry
        if level.level in plan.gates:
            parents = self._masks[level.cut_from or 0]
            self.candidates.setdefault(level.level, {}).update(
                {
                    r: Candidate(
                        masks=level.masks[r],
                        parent=parents[r],
                        start=survivors(level.starts[r], level.masks[r]),
                        end=survivors(outcome.end, level.masks[r]),
                        validation=_validation(outcome.curve),
                        run=run_of(outcome),
                    )
                    for r, outcome in level.arms[TICKET].items()
                }
            )
        # Those that a later level may be cut from.
        self._masks = {n: of for n, of in self._masks.items() if n in (0, level.cut_from)} | {level.level: level.masks}
        summary = LevelSummary(
            level=level.level,
            kept=alive,
            total=size,
            density_all_parameters=(setup.parameters - size + alive) / setup.parameters,
            gate=level.level in plan.gates,
            arms={name: {r: run_of(one) for r, one in runs.items()} for name, runs in level.arms.items()},
            dense=self.dense if level.level == 0 else {},
            after_cut=level.after_cut,
            cut_from=level.cut_from,
        )
        assert all(kept(masks) == alive and total(masks) == size for masks in level.masks.values())
        before = self.at.get(level.level)
        self.at[level.level] = summary if before is None else _together(before, summary)
        self._needed.setdefault(level.level, {}).update(level.dense_needed)
        return self.at[level.level]

    @property
    def levels(self) -> tuple[LevelSummary, ...]:
        """Give the levels, dense to sparse."""
        return tuple(self.at[level] for level in sorted(self.at))

    def _pay(self, level: int, toward: int, job: TrainJob, outcome: TrainOutcome) -> None:
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
                toward=toward,
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
            if one.flops == 0 and not self._setup.plan.pruner.looks:
                continue
            yield RunCost(
                level=level.level,
                toward=level.level,
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

    @property
    def observed(self) -> dict[int, Observed]:
        """Give what an analysis looks at, where no store has it: the families that are in every level."""
        inits = {family.replicate: family.init.params for family in self._setup.families}
        return {
            r: Observed(
                replicate=r,
                theta_0=inits[r],
                ends=ends,
                prunable=tuple(self._setup.plan.scope.prunable),
                masks={level: of[r].masks for level, of in self.candidates.items()},
            )
            for r, ends in self._ends.items()
            if all(r in of for of in self.candidates.values())
        }

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Give the cuts that led to the levels."""
        return tuple(Cut(one.cut_from or 0, one.level) for one in self.levels if one.level)

    def path(self, level: int) -> list[int]:
        """Give the levels that a level was cut through, the dense one first."""
        found = [level]
        while found[0]:
            found.insert(0, self.at[found[0]].cut_from or 0)
        return found

    def cost(self, seconds: float) -> Cost:
        """Add up."""
        work, training = self._setup.work, self._setup.iterations
        flops = None if work is None else training * work.examples * flops_per_example(work.macs)
        origins = tuple(Origin(one.level, one.cut_from, self._needed[one.level]) for one in self.levels)
        rounds = self._setup.plan.rounds
        beside = rounds is not None and not rounds.between
        return Cost(tuple(self._paid), training, flops, seconds, origins, tickets_make_masks=not beside)


def _together(first: LevelSummary, second: LevelSummary) -> LevelSummary:
    """Put the families of two looks at one level together."""
    arms = {name: {**first.arms.get(name, {}), **second.arms.get(name, {})} for name in {**first.arms, **second.arms}}
    return replace(second, arms=arms, after_cut={**first.after_cut, **second.after_cut})


def _validation(curve: Curve) -> float | None:
    losses = [loss for loss in curve.loss if math.isfinite(loss)]
    accuracies = [accuracy for accuracy in curve.accuracy if math.isfinite(accuracy)]
    return min(losses) if losses else -max(accuracies) if accuracies else None


def survivors(snapshot: Snapshot, masks: Masks) -> Snapshot:
    """Give a masked network with the vector of its kept values for each masked tensor, and no optimiser."""
    params = {name: value[masks[name]] if name in masks else value for name, value in snapshot.params.items()}
    return replace(snapshot, params=params, optimizer=None)
