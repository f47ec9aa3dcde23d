"""Supermasks: each weight is in with a learned probability, and no weight is ever trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from tombola.errors import InvalidValue
from tombola.prune.dynamic.base import identity
from tombola.prune.learned.straight import through
from tombola.types import Params


@final
@dataclass(frozen=True)
class Supermask:
    r"""The scores of Zhou et al.'s trained supermask.

    Zhou et al. (2019), section 5: :math:`m \sim \mathrm{Bernoulli}(\sigma(s))` is drawn anew in each iteration, and the
    gradient passes the draw straight through to :math:`\sigma(s)`. With dynamic weight rescaling, section 5.1, a
    tensor's weights are multiplied by its size over the number that is in, at each draw.

    Departures: scores are trained by Adam on the cosine schedule, where the paper's code has SGD with a learning rate
    of 100; to evaluate, what is in with a probability of one half or more is in, where the paper averages draws.

    Attributes:
        rescale: dynamic weight rescaling.
        lr: of the scores.

    Raises:
        InvalidValue: an lr that is not above 0.
    """

    rescale: bool = True
    lr: float = 0.1

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise InvalidValue(f"the scores' lr is {self.lr}; it is above 0.")

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Adam on the cosine schedule."""
        plain = {"momentum": 0.0, "weight_decay": 0.0, "nesterov": False, "milestones": (), "warmup": 0}
        return {"optimizer": "adam", "lr": self.lr, "schedule": "cosine", **plain}

    def first(self, weight: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Begin at 0: every weight is in with one half."""
        return torch.zeros_like(weight)

    def factors(self, scores: Params, alive: Params, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Give a draw, or what is in with one half or more; rescaled, with the gradient of the probability."""
        found = {}
        for name, score in scores.items():
            chance = score.sigmoid()
            if generator is None:
                inside = (chance >= 0.5).to(score.dtype)
            else:
                drawn = torch.rand(score.shape, generator=generator, dtype=score.dtype, device=score.device)
                inside = (drawn < chance).to(score.dtype)
            inside = inside * alive[name]
            size = inside.numel() / inside.sum().clamp(min=1) if self.rescale else 1.0
            found[name] = through(inside, chance) * alive[name] * size
        return found

    def settle(self, scores: Params) -> None:
        """Leave them: any score is one."""

    def describe(self) -> Mapping[str, Any]:
        """Identify it by all of its fields."""
        return {"scores": "supermask", **{name: identity(value) for name, value in vars(self).items()}}
