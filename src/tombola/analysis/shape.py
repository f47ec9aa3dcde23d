"""Shape: how survivors are spread over the outputs and the inputs of a layer, against the uniform null."""

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from torch import Tensor

from tombola.errors import InvalidValue
from tombola.types import Masks

_QUANTILES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


@final
@dataclass(frozen=True)
class Spread:
    """How survivors are spread over the units on one side of a tensor.

    Attributes:
        units: outputs, or inputs.
        quantiles: of the survivors per unit: least, quarter, median, three quarters, most.
        empty: the fraction of units without a survivor.
        chance_empty: the same on average, if the same number of survivors lay anywhere (hypergeometric).
        variance_ratio: the variance of survivors per unit over that of the hypergeometric law; 1 is chance, above it
            survivors crowd on some units. ``None`` where the law has no spread.
    """

    units: int
    quantiles: tuple[float, float, float, float, float]
    empty: float
    chance_empty: float
    variance_ratio: float | None


@final
@dataclass(frozen=True)
class Shape:
    """How the survivors of one tensor are spread; an input channel of a convolution is one input."""

    outputs: Spread
    inputs: Spread


def shape(masks: Masks) -> dict[str, Shape]:
    """Say how survivors are spread over outputs and inputs, tensor by tensor.

    Args:
        masks: name -> bool tensor, ``[out, in, ...]``, not empty.

    Returns:
        name -> its shape.

    Raises:
        InvalidValue: a tensor has a single axis, or no entries.

    Example:
        >>> import torch
        >>> found = shape({"w": torch.tensor([[True, True], [False, False]])})["w"]
        >>> found.outputs.empty, found.inputs.empty, round(found.outputs.chance_empty, 3)
        (0.5, 0.0, 0.167)
    """
    for name, mask in masks.items():
        if mask.dim() < 2 or not mask.numel():
            raise InvalidValue(
                f"mask {name!r} has shape {tuple(mask.shape)}; outputs and inputs are the two first axes of a tensor "
                "that is not empty. Leave it out."
            )
    return {name: Shape(_spread(mask.cpu(), 0), _spread(mask.cpu(), 1)) for name, mask in masks.items()}


def _spread(mask: Tensor, axis: int) -> Spread:
    counts = mask.movedim(axis, 0).flatten(1).sum(1).double().numpy()
    units, size, alive = counts.size, mask.numel(), int(counts.sum())
    each, density = size // units, alive / size
    low, quarter, median, three, high = (float(value) for value in np.quantile(counts, _QUANTILES))
    # The mean survivors per unit is known, so the mean square around it is the variance, without a correction.
    law = each * density * (1 - density) * (size - each) / (size - 1) if size > 1 else 0.0
    return Spread(
        units=units,
        quantiles=(low, quarter, median, three, high),
        empty=float(np.mean(counts == 0)),
        chance_empty=_none_of(size, each, alive),
        variance_ratio=float(np.mean((counts - alive / units) ** 2)) / law if law else None,
    )


def _none_of(size: int, each: int, alive: int) -> float:
    """Give the probability that ``each`` of ``size`` entries hold none of ``alive``, by logarithms of binomials."""
    if alive > size - each:
        return 0.0
    gamma = math.lgamma
    return math.exp(gamma(size - each + 1) - gamma(size - each - alive + 1) - gamma(size + 1) + gamma(size - alive + 1))
