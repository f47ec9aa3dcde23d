"""What the verdict reads: one number per trained network, arranged by family, level and arm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from tombola.errors import InvalidResults
from tombola.stats.scale import ACCURACY, Scale
from tombola.stats.wording import listed, percent


@dataclass(frozen=True)
class Run:
    """One trained network.

    The two accuracies keep their names where networks are scored by something else: they then hold that score, larger
    is better, and the :class:`~tombola.stats.scale.Scale` given with the results names it.

    Attributes:
        test_accuracy: after the last iteration, a fraction; NaN for a dense run that diverged.
        test_accuracy_at_early_stop: at the minimum of validation loss, a fraction, where it was kept.
        early_stop_iteration: argmin of validation loss, in iterations, where it was kept.
        censored: that minimum lies at the last evaluation, so the true one may lie beyond.
        validation_accuracy: at the last evaluation, as the training loop reported it, where it did: what a recipe may
            be chosen by, and no part of the verdict.
    """

    test_accuracy: float
    test_accuracy_at_early_stop: float | None = None
    early_stop_iteration: int | None = None
    censored: bool = False
    validation_accuracy: float | None = None


@dataclass(frozen=True)
class LevelResults:
    """Everything trained at one density.

    Attributes:
        density: fraction of the prunable weights kept, in (0, 1).
        arms: ``"ticket"`` and, where they were run, its controls by name -> one run per replicate, in the order of
            ``Results.replicates``; ``None`` for a run that diverged or is missing.
    """

    density: float
    arms: Mapping[str, tuple[Run | None, ...]]

    @property
    def controls(self) -> tuple[str, ...]:
        """The arms other than the ticket."""
        return tuple(name for name in self.arms if name != "ticket")


@dataclass(frozen=True)
class Results:
    """A whole study.

    A replicate is a family: its dense runs, tickets and controls share the initialisation, and the first dense run
    shares the tickets' data order. Families are the independent unit; runs inside one are not.

    Attributes:
        replicates: the families' numbers, all different.
        dense: per replicate its dense runs, one or more.
        levels: dense to sparse.
    """

    replicates: tuple[int, ...]
    dense: tuple[tuple[Run, ...], ...]
    levels: tuple[LevelResults, ...]

    @property
    def densities(self) -> tuple[float, ...]:
        """The levels' densities, dense to sparse."""
        return tuple(level.density for level in self.levels)


def drop_incomplete(results: Results, *, score: Scale = ACCURACY) -> tuple[Results, tuple[str, ...]]:
    """Keep the replicates that have a result in every cell, so that all levels speak about the same families.

    A replicate without a dense run, or with a run missing in any arm that was run at a level, leaves every level.

    Args:
        results: a study, possibly with ``None`` or NaN cells.
        score: what its networks are scored by.

    Returns:
        The study on the complete replicates (perhaps none), and a sentence for each replicate left out.

    Raises:
        InvalidResults: the parts do not fit together; see :func:`check`.
    """
    check(results, score)
    kept: list[int] = []
    dropped: list[str] = []
    for index, replicate in enumerate(results.replicates):
        missing = _missing(results, index)
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            where = listed(missing[:3]) if not more else ", ".join(missing[:3]) + more
            dropped.append(
                f"Replicate {replicate} is left out at every level: no result (diverged or missing) for {where}."
            )
        else:
            kept.append(index)
    levels = tuple(
        LevelResults(level.density, {name: tuple(runs[i] for i in kept) for name, runs in level.arms.items()})
        for level in results.levels
    )
    replicates = tuple(results.replicates[i] for i in kept)
    return Results(replicates, tuple(results.dense[i] for i in kept), levels), tuple(dropped)


def _missing(results: Results, index: int) -> list[str]:
    """Name the cells of one replicate that have no result."""
    dense = results.dense[index]
    missing = ["dense"] if not dense or any(_absent(run) for run in dense) else []
    missing += [
        f"{name} at {percent(level.density)}"
        for level in results.levels
        for name, runs in level.arms.items()
        if _absent(runs[index])
    ]
    return missing


def _absent(run: Run | None) -> bool:
    return run is None or math.isnan(run.test_accuracy)


def check(results: Results, score: Scale = ACCURACY) -> None:
    """Refuse results whose parts do not fit together.

    Raises:
        InvalidResults: no level, levels not dense to sparse or outside (0, 1), a level without tickets, an arm or the
            dense runs not aligned with the replicates, a replicate named twice, an accuracy outside [0, 1], or another
            score that is infinite.
    """
    count = len(results.replicates)
    if len(set(results.replicates)) != count:
        raise InvalidResults(f"the replicates {results.replicates} name one twice. Each family has its own number.")
    if len(results.dense) != count:
        raise InvalidResults(
            f"there are {count} replicates and dense runs for {len(results.dense)}. Give one tuple each."
        )
    if not results.levels:
        raise InvalidResults("there is no level below density 1, so nothing to judge. Give at least one ticket.")
    edges = (1.0, *results.densities, 0.0)
    if not all(above > below for above, below in pairwise(edges)):
        raise InvalidResults(f"the densities {results.densities} do not fall strictly within (0, 1). Sort the levels.")
    for level in results.levels:
        if "ticket" not in level.arms:
            raise InvalidResults(
                f"there is no ticket at density {level.density:g}. Every level compares one with dense."
            )
        for name, runs in level.arms.items():
            if len(runs) != count:
                raise InvalidResults(
                    f"{name} at density {level.density:g} has {len(runs)} runs for {count} replicates. "
                    "Put None where a run is missing."
                )
    everything = [run for runs in results.dense for run in runs]
    everything += [run for level in results.levels for runs in level.arms.values() for run in runs if run is not None]
    for run in everything:
        score.check_value(run.test_accuracy)
        if run.test_accuracy_at_early_stop is not None:
            score.check_value(run.test_accuracy_at_early_stop)
