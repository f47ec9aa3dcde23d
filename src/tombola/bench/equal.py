"""Whether two ways of training compute the same: their losses over the first iterations."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from tombola.bench.loop import Masks, Way
from tombola.bench.workload import Workload
from tombola.data import Split
from tombola.train.order import BatchOrder
from tombola.train.plain import PlainTrainer
from tombola.types import Seed

ITERATIONS: Final = 5
TOLERANCE: Final = 1e-4
"""In nats. Rounding moves a loss of 2.3 by about 1e-6 in so few iterations."""


def reference(work: Workload, masks: Masks, seed: Seed = Seed(0)) -> list[float]:  # noqa: B008
    """Give the plain trainer's loss on :func:`examples` after each of its first iterations."""
    trainer = PlainTrainer(work.build, watched(work), work.recipe(ITERATIONS, 1))
    return list(trainer.train_one(work.job(masks, ITERATIONS, seed)).curve.loss)


def watched(work: Workload) -> Callable[[Seed], Split]:
    """Give data whose validation part is :func:`examples`, for trainers that tell their validation loss."""
    x, y = examples(work)
    split = replace(work.split, val_x=x, val_y=y)
    return lambda _: split


def losses(way: Way, work: Workload) -> list[float]:
    """Train a way on the plain trainer's batches, and give the same losses."""
    x, y = examples(work)
    found = []
    for order in batches(work, ITERATIONS):
        way.train(order[None])
        found.append(way.evaluate(x, y)[0])
    return found


def examples(work: Workload) -> tuple[Tensor, Tensor]:
    """Give the examples of the first batches: on what it trains on, a loss moves most."""
    which = torch.cat(list(batches(work, ITERATIONS)))
    return work.split.train_x[which], work.split.train_y[which]


def batches(work: Workload, iterations: int, seed: Seed = Seed(0)) -> Iterator[Tensor]:  # noqa: B008
    """Give the trainers' batches."""
    order = BatchOrder(len(work.split.train_y), work.batch, seed)
    return (order.at(step) for step in range(iterations))


def orders(work: Workload, iterations: int, seed: Seed = Seed(0)) -> Tensor:  # noqa: B008
    """Give the trainers' batches as one tensor, int64 ``[iterations, batch]``."""
    return torch.stack(list(batches(work, iterations, seed)))


def why_unlike(found: Sequence[float], expected: Sequence[float]) -> str | None:
    """Say in one sentence where losses part; ``None`` where they do not.

    Example:
        >>> why_unlike([2.0, 1.5], [2.0, 1.6])
        'its loss is 1.500000 after iteration 2 and the plain loop has 1.600000, so it does not train the same network.'
    """
    for step, (one, other) in enumerate(zip(found, expected, strict=True), start=1):
        if not math.isclose(one, other, rel_tol=0, abs_tol=TOLERANCE):
            return (
                f"its loss is {one:.6f} after iteration {step} and the plain loop has {other:.6f}, so it does not "
                "train the same network."
            )
    return None


def distance(found: Sequence[float], expected: Sequence[float]) -> float:
    """Give the largest difference of two lists of losses, in nats."""
    return max(abs(one - other) for one, other in zip(found, expected, strict=True))
