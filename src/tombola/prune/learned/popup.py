"""Edge-popup: the weights with the largest learned scores are in, all others out, and no weight is ever trained."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

from tombola.errors import InvalidValue
from tombola.prune.counting import exact, half_up
from tombola.prune.dynamic.base import identity
from tombola.prune.learned.straight import through
from tombola.types import Params

SCOPES: Final = ("layer", "global")


@final
@dataclass(frozen=True)
class Popup:
    r"""The scores of edge-popup.

    Ramanujan et al. (2020), equations 3 to 5: the network computes with :math:`w \odot h(s)`, where h is 1 for the
    share k of a layer with the largest :math:`|s|` and 0 elsewhere; its gradient passes h straight through, so that a
    score goes by :math:`\partial L / \partial w_\mathrm{eff} \cdot w`, with the sign of the score.

    Attributes:
        density: k, the share that is in, in (0, 1]; exact in every tensor to the nearest whole weight.
        scope: ``layer``, the paper's; or ``global``, the largest scores of all tensors together.
        lr, momentum, weight_decay: of the scores, by SGD on the cosine schedule; the paper's for CIFAR-10.

    Raises:
        InvalidValue: out of range.
    """

    density: float = 0.5
    scope: str = "layer"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise InvalidValue(f"the density is {self.density}; it is the share kept, above 0, up to 1.")
        if self.scope not in SCOPES:
            raise InvalidValue(f"the scope is {self.scope!r}; it is layer or global.")
        if not self.lr > 0 or not 0 <= self.momentum < 1 or not self.weight_decay >= 0:
            raise InvalidValue(
                f"scores are trained with an lr above 0, a momentum in [0, 1) and a weight decay of at least 0; these "
                f"are {self.lr}, {self.momentum} and {self.weight_decay}."
            )

    @property
    def recipe(self) -> Mapping[str, Any]:
        """SGD on the cosine schedule."""
        rates = {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        return {"optimizer": "sgd", **rates, "nesterov": False, "schedule": "cosine", "milestones": (), "warmup": 0}

    def first(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from U[-b, b], b = 1/sqrt(fan-in): what the authors' code has, Kaiming's with a = sqrt(5)."""
        bound = 1 / math.sqrt(weight[0].numel())
        return (torch.rand(weight.shape, generator=generator, dtype=weight.dtype) * 2 - 1) * bound

    def factors(
        self,
        scores: Params,
        alive: Params,
        generator: torch.Generator | None,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """Give 1 where a score is among the largest, with the gradient of its magnitude."""
        sizes = {name: score.abs() for name, score in scores.items()}
        with torch.no_grad():
            if self.scope == "layer":
                kept = {name: largest(size, self.count(size.numel())) for name, size in sizes.items()}
            else:
                flat = torch.cat([size.flatten() for size in sizes.values()])
                parts = largest(flat, self.count(len(flat))).split([size.numel() for size in sizes.values()])
                kept = {name: part.view_as(sizes[name]) for name, part in zip(sizes, parts, strict=True)}
        return {name: through(kept[name].to(size.dtype), size) * alive[name] for name, size in sizes.items()}

    def count(self, size: int) -> int:
        """Give how many of so many weights are in.

        Example:
            >>> Popup(0.3).count(235_200)
            70560
        """
        return max(1, half_up(exact(self.density) * size))

    def settle(self, scores: Params) -> None:
        """Leave them: any score is one."""

    def describe(self) -> Mapping[str, Any]:
        """Identify it by all of its fields."""
        return {"scores": "edge-popup", **{name: identity(value) for name, value in vars(self).items()}}


def largest(values: Tensor, count: int) -> Tensor:
    """Mark exactly so many of the largest values; of equal ones the first.

    Args:
        values: any shape, finite.
        count: from 1 to their number.

    Returns:
        bool, the same shape.

    Example:
        >>> largest(torch.tensor([1.0, 3.0, 1.0, 1.0]), 2).tolist()
        [True, True, False, False]
    """
    flat = values.flatten()
    least = flat.kthvalue(len(flat) - count + 1).values
    found = flat > least
    equal = (flat == least).nonzero().flatten()
    found[equal[: count - int(found.sum())]] = True
    return found.view_as(values)
