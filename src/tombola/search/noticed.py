"""What a search notices about its own runs: whether they were trained alike, and what that forbids to claim."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch

from tombola.search.levels import DENSE, Level
from tombola.types import Step, TrainOutcome


@final
@dataclass(frozen=True)
class Noticed:
    """What is known of one run besides its score.

    Attributes:
        replicate: its family.
        level: 0 is the dense network.
        arm: ``ticket``, a control, or ``dense run K``.
        iterations: how many it was asked to train.
        optimizer_steps: how many steps were seen; ``None`` where nobody counted.
        steps: positions with a validation loss.
        rate_fell: the learning rate ended below its highest value.
        repeats: this dense run ended with the weights of the family's first one.
    """

    replicate: int
    level: int
    arm: str
    iterations: int
    optimizer_steps: int | None
    steps: tuple[Step, ...]
    rate_fell: bool
    repeats: bool = False


def notice(level: Level) -> Iterator[Noticed]:
    """Look at the runs of a level."""
    for replicate, runs in level.dense.items():
        for number, run in enumerate(runs):
            same = number > 0 and all(
                torch.equal(value, runs[0].end.params[name]) for name, value in run.end.params.items()
            )
            yield _noticed(replicate, 0, f"{DENSE} run {number}", run, repeats=same)
    if level.level > 0:
        for arm, of_arm in level.arms.items():
            for replicate, run in of_arm.items():
                yield _noticed(replicate, level.level, arm, run)


def no_speed(runs: Sequence[Noticed]) -> str | None:
    """Say why early-stop iterations cannot be compared, or ``None`` where they can."""
    if any(run.steps == () for run in runs):
        return "the training loop reported no validation loss"
    if any(run.rate_fell for run in runs):
        return (
            "the learning rate falls during training, and the minimum of validation loss lies where it falls, so its "
            "iteration measures no speed"
        )
    grids = {run.replicate: set(run.steps) for run in runs if run.arm == f"{DENSE} run 0"}
    for run in runs:
        grid = {step for step in grids[run.replicate] if run.steps[0] <= step <= run.steps[-1]}
        if set(run.steps) != grid:
            return (
                f"validation was reported at other steps for the {run.arm} of family {run.replicate} at level "
                f"{run.level} than for its dense run, and an early stop is one only on one grid"
            )
    return None


def notes_on(runs: Sequence[Noticed]) -> tuple[str, ...]:
    """Say what a reader should know about how the runs were trained."""
    return (*_on_repeats(runs), *_on_budgets(runs))


def _on_repeats(runs: Iterable[Noticed]) -> Iterator[str]:
    further = [run for run in runs if run.level == 0 and run.arm != f"{DENSE} run 0"]
    if further and all(run.repeats for run in further):
        yield (
            "The dense runs of a family came out identical, so they say nothing about the noise of training. Let the "
            "loop take its data order from the seed that it is given."
        )


def _on_budgets(runs: Sequence[Noticed]) -> Iterator[str]:
    """Warn where an arm was trained for more than its share of optimiser steps: the budget is then not the same."""
    dense = {run.replicate: _rate(run) for run in runs if run.arm == f"{DENSE} run 0"}
    more = [run for run in runs if run.level > 0 and _rate(run) > 1.001 * dense[run.replicate]]
    if more:
        worst = max(more, key=_rate)
        yield (
            f"Budget: the loop took {worst.optimizer_steps} optimiser steps for {worst.iterations} iterations of the "
            f"{worst.arm} of family {worst.replicate} at level {worst.level}, and "
            f"{dense[worst.replicate] * worst.iterations:.0f} for as many of its dense run"
            + (f"; so in {len(more)} runs" if len(more) > 1 else "")
            + ". The comparison is not one after the same number of iterations."
        )


def _rate(run: Noticed) -> float:
    return math.nan if run.optimizer_steps is None else run.optimizer_steps / run.iterations


def _noticed(replicate: int, level: int, arm: str, run: TrainOutcome, *, repeats: bool = False) -> Noticed:
    steps = tuple(s for s, loss in zip(run.curve.steps, run.curve.loss, strict=True) if math.isfinite(loss))
    return Noticed(replicate, level, arm, run.iterations, run.optimizer_steps, steps, run.rate_fell, repeats)
