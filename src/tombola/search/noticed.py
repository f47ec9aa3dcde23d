"""What a search notices about its own runs: whether they were trained alike, and what that forbids to claim."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch

from tombola.errors import InvalidValue
from tombola.search.levels import DENSE, Level
from tombola.types import Step, TrainOutcome

_ALLOWANCE: Final = 1.05


@final
@dataclass(frozen=True)
class Noticed:
    """What is known of one run besides its score.

    Attributes:
        replicate: its family.
        level: 0 is the dense network.
        arm: ``ticket``, a control, or ``dense run K``.
        iterations: how many it was asked to train.
        start: the position of the first.
        optimizer_steps: how many steps were seen; ``None`` where nobody counted.
        steps: positions with a validation loss.
        rate_fell: the learning rate ended below its highest value.
        elsewhere: what trained it, where it was kept from before and that was something else than this.
        repeats: this dense run ended with the weights of the family's first one.
    """

    replicate: int
    level: int
    arm: str
    iterations: int
    start: Step
    optimizer_steps: int | None
    steps: tuple[Step, ...]
    rate_fell: bool
    elsewhere: str
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
        if set(run.steps) != {step for step in grids[run.replicate] if step > run.start}:
            return (
                f"validation was reported at other steps for the {run.arm} of family {run.replicate} at level "
                f"{run.level} than for its dense run, and an early stop is one only on one grid"
            )
    return None


def check_budgets(runs: Sequence[Noticed]) -> None:
    """Refuse a loop that trains an arm for more optimiser steps an iteration than its dense network.

    The hypothesis compares networks after the same number of iterations (Frankle & Carbin 2019, section 1). A loss
    scaler may skip steps, in the dense network too; hence the allowance.

    Raises:
        InvalidValue: it took more than ``_ALLOWANCE`` times as many.
    """
    dense = {run.replicate: _rate(run) for run in runs if run.arm == f"{DENSE} run 0"}
    for run in runs:
        if _rate(run) > _ALLOWANCE * dense.get(run.replicate, math.nan):
            raise InvalidValue(
                f"the loop took {run.optimizer_steps} optimiser steps for {run.iterations} iterations of the {run.arm} "
                f"of family {run.replicate} at level {run.level}, and for as many of its dense network "
                f"{dense[run.replicate] * run.iterations:.0f}. Arms are compared after the same number of iterations: "
                "train exactly as many as the loop is asked for, from record.start to record.stop. Early stops are "
                "found from what it records."
            )


def notes_on(runs: Sequence[Noticed]) -> Iterator[str]:
    """Say what a reader should know about how the runs were trained."""
    further = [run for run in runs if run.level == 0 and run.arm != f"{DENSE} run 0"]
    if further and all(run.repeats for run in further):
        yield (
            "The dense runs of a family came out identical, so they say nothing about the noise of training. Let the "
            "loop take its data order from the seed that it is given."
        )
    elsewhere = [run.elsewhere for run in runs if run.elsewhere]
    if elsewhere:
        what = " and ".join(sorted(set(elsewhere)))
        yield (
            f"{len(elsewhere)} of {len(runs)} runs were kept from before and trained by {what}. The last bits may "
            "differ between versions and processors; with another --store all runs are trained anew."
        )


def _rate(run: Noticed) -> float:
    return math.nan if run.optimizer_steps is None else run.optimizer_steps / run.iterations


def _noticed(replicate: int, level: int, arm: str, run: TrainOutcome, *, repeats: bool = False) -> Noticed:
    steps = tuple(s for s, loss in zip(run.curve.steps, run.curve.loss, strict=True) if math.isfinite(loss))
    start = run.end.step - run.iterations
    return Noticed(
        replicate=replicate,
        level=level,
        arm=arm,
        iterations=run.iterations,
        start=start,
        optimizer_steps=run.optimizer_steps,
        steps=steps,
        rate_fell=run.rate_fell,
        elsewhere=run.elsewhere,
        repeats=repeats,
    )
