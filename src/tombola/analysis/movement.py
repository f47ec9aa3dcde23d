"""Movement: how far training carried the weights of each layer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from tombola.analysis.family import pairs
from tombola.errors import InvalidValue
from tombola.types import Params

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


@final
@dataclass(frozen=True)
class Movement:
    """How far the weights of one tensor moved.

    Attributes:
        quantiles: pairs of a probability and the quantile of ``|w_T - w_0|`` there, in the weights' own unit.
        relative: ``||w_T - w_0|| / ||w_0||``; ``None`` where all of ``w_0`` is zero.
        correlation: of ``|w_0|`` with ``|w_T|`` (Pearson); ``None`` where one of them has no spread.
    """

    quantiles: tuple[tuple[float, float], ...]
    relative: float | None
    correlation: float | None


def movement(
    theta_0: Params, theta_T: Params, names: Iterable[str], quantiles: Sequence[float] = QUANTILES
) -> dict[str, Movement]:
    """Measure how far weights moved, tensor by tensor.

    Args:
        theta_0: name -> initial weights.
        theta_T: name -> trained weights, same shape.
        names: the tensors wanted, none of them empty.
        quantiles: probabilities in [0, 1].

    Returns:
        name -> its movement.

    Raises:
        ShapeMismatch: a tensor is missing, or has another shape at the other end.
        InvalidValue: a probability outside [0, 1].

    Example:
        >>> found = movement({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([3.0, 9.0])}, ["w"], [0.5])["w"]
        >>> found.quantiles, found.relative
        (((0.5, 2.5),), 1.0)
    """
    outside = [q for q in quantiles if not 0 <= q <= 1]
    if outside:
        raise InvalidValue(f"{outside[0]} is no probability. Ask for quantiles between 0 and 1.")
    found = {}
    for name, before, after in pairs(theta_0, theta_T, names):
        gap, start = (after - before).abs(), float(before.norm())
        values = np.quantile(gap.numpy(), quantiles)
        found[name] = Movement(
            quantiles=tuple((float(q), float(value)) for q, value in zip(quantiles, values, strict=True)),
            relative=float(gap.norm()) / start if start else None,
            correlation=_correlation(before.abs(), after.abs()),
        )
    return found


def _correlation(first: Tensor, second: Tensor) -> float | None:
    a, b = first - first.mean(), second - second.mean()
    spread = float(a.norm() * b.norm())
    return float(torch.sum(a * b)) / spread if spread else None
