"""What the theorems predict, measured: errors of subset sums by their candidates, and learned masks by width."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final, final

import numpy as np
import torch
from torch import nn

from tombola.data import Dataset
from tombola.errors import InvalidValue
from tombola.prune.learned import Popup
from tombola.seeds import generator
from tombola.strong.bounds import median_error
from tombola.strong.edge_popup import learn
from tombola.strong.subset_sum import MOST, nearest
from tombola.types import Seed, TrainFn

COUNTS: Final = (10, 12, 14, 16, 18, 20, 22, 24)
WEIGHTS: Final = (0.05, 0.15, 0.25, 0.35, 0.45)
"""Targets: the law is about one target, and its off-centre factor about how far that is from 0."""


@final
@dataclass(frozen=True)
class Typical:
    """The nearest subset sums of many lists of candidates to one target.

    Attributes:
        count: n, candidates in a list.
        weight: the target.
        median: error of the nearest subset, the median over lists.
        law: what :func:`~tombola.strong.bounds.median_error` says.
        worst: the 99.9th percentile.
        lists: how many.
    """

    count: int
    weight: float
    median: float
    law: float
    worst: float
    lists: int


@final
@dataclass(frozen=True)
class Law:
    """Candidates needed against the error, measured and by the law.

    Attributes:
        rows: for every number of candidates and every target.
        slope: of n against log2(1/error), by least squares over the median errors.
        law_slope: the same of the law's errors.
    """

    rows: tuple[Typical, ...]
    slope: float
    law_slope: float

    @property
    def furthest(self) -> float:
        """The largest ratio of a measured median to the law's, or of the law's to it."""
        return max(max(one.median / one.law, one.law / one.median) for one in self.rows)


def measured_law(
    counts: Sequence[int] = COUNTS,
    weights: Sequence[float] = WEIGHTS,
    lists: int = 2000,
    *,
    seed: int = 0,
    threads: int = 1,
    told: Callable[[str], object] = lambda text: None,  # noqa: ARG005
) -> Law:
    """Measure the error of the nearest subset sum of n random products, for several n and targets.

    Args:
        counts: the n, at least two of them, up to 30.
        weights: targets, from -1 to 1.
        lists: of candidates, for each n; all targets see the same.
        seed: of the lists.
        threads: that share the work.
        told: is given a sentence for each n.

    Raises:
        InvalidValue: counts, weights or lists out of range.
    """
    good = len(set(counts)) > 1 and all(2 <= count <= MOST for count in counts) and lists >= 10
    if not good or not weights or not all(-1 <= weight <= 1 for weight in weights):
        raise InvalidValue(
            f"a law is measured at two numbers of candidates and more, from 2 to {MOST}, at weights from -1 to 1 and "
            f"over 10 lists and more; these are {list(counts)}, {list(weights)} and {lists}."
        )
    rows = []
    for count in sorted(set(counts)):
        rng = generator(Seed(seed), "init", "law", count)
        u, v = torch.rand(lists, count, generator=rng), torch.rand(lists, count, generator=rng) * 2 - 1
        products = u.double() * v.double()
        for weight in weights:
            errors = nearest(products, torch.full((lists,), float(weight)).double(), threads=threads).errors
            median, worst = (float(errors.quantile(at)) for at in (0.5, 0.999))
            rows.append(Typical(count, weight, median, median_error(count, weight), worst, lists))
        told(f"n = {count}: median error {rows[-1].median:.2e}, by the law {rows[-1].law:.2e}, at {weights[-1]:g}")
    return Law(tuple(rows), _slope(rows, lambda one: one.median), _slope(rows, lambda one: one.law))


def _slope(rows: Sequence[Typical], error: Callable[[Typical], float]) -> float:
    return float(np.polyfit([math.log2(1 / error(one)) for one in rows], [one.count for one in rows], 1)[0])


@final
@dataclass(frozen=True)
class Width:
    """Learned masks of random networks of one width.

    Attributes:
        factor: of the hidden layers of LeNet-300-100.
        hidden: their neurons.
        weights: random weights.
        accuracy: on the test split, for each network.
    """

    factor: float
    hidden: tuple[int, int]
    weights: int
    accuracy: tuple[float, ...]


def measured_widths(
    factors: Sequence[float],
    dataset: Dataset,
    trainer: Callable[[Callable[[], nn.Module]], AbstractContextManager[TrainFn]],
    iterations: int,
    *,
    density: float = 0.5,
    replicates: int = 1,
    seed: int = 0,
    told: Callable[[str], object] = lambda text: None,  # noqa: ARG005
) -> list[Width]:
    """Learn masks of LeNet-300-100 at several widths; Ramanujan et al. (2020), figure 4.

    Args:
        factors: of the hidden layers' widths, above 0.
        dataset: whose shape and classes the networks have.
        trainer: builder -> the training routine of the plain engine.
        iterations: of each training.
        density: of edge-popup, the paper's k.
        replicates: random networks at each width.
        seed: of everything random.
        told: is given a sentence for each width.

    Raises:
        InvalidValue: a factor that is not above 0.
    """
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise InvalidValue(f"the widths are multiplied by {list(factors)}; give numbers above 0.")
    found = []
    for factor in factors:
        hidden = (max(1, round(300 * factor)), max(1, round(100 * factor)))
        build = partial(wide, dataset.input_shape, dataset.classes, hidden)
        seeds = [Seed(seed, replicate) for replicate in range(replicates)]
        learned = learn(build, trainer(build), seeds, Popup(density), iterations, share=density)
        weights = sum(mask.numel() for mask in learned[0].masks.values())
        found.append(Width(factor, hidden, weights, tuple(one.accuracy for one in learned)))
        told(f"{hidden[0]}-{hidden[1]}: {100 * sum(found[-1].accuracy) / replicates:.2f} %")
    return found


def wide(input_shape: tuple[int, ...], classes: int, hidden: tuple[int, int]) -> nn.Module:
    """Build a fully connected ReLU network of two hidden layers."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(input_shape), hidden[0]), nn.ReLU(), nn.Linear(*hidden), nn.ReLU(),
        nn.Linear(hidden[1], classes),
    )  # fmt: skip
