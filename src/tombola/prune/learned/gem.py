"""Gem-Miner: scores between 0 and 1, rounded; from time to time the lowest are gone for good."""

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
class GemMiner:
    r"""The scores of Gem-Miner.

    Sreenivasan et al. (2022), Algorithm 1: scores :math:`p \in [0, 1]`, uniform at first; the network computes with
    :math:`w \odot \mathrm{round}(p) \odot q`, where q is 0 where a score was frozen at 0; the gradient passes the
    rounding straight through, and after each step p is brought back into [0, 1]. The freezing is that of
    :class:`~tombola.prune.dynamic.gradual.Gradual` along a geometric sequence.

    Departures: the mask that is found is q, whose counts are exact; a score below one half in it is a weight that
    trains. The paper's is :math:`\mathrm{round}(p) \odot q`, and where the last freezing keeps none below one half the
    two are the same. Scores are trained by Adam: their gradient is that of the weight times the weight, so small that
    SGD's step either does not move most scores or is overrun by the penalty. The penalty, a multiple of p, is what
    takes away weights that no datum reaches, such as those of pixels that are always 0: their gradient is 0.

    Attributes:
        lr: of the scores, by Adam on the cosine schedule.
        weight_decay: the penalty on the scores, at least 0; coupled with Adam's moments.

    Raises:
        InvalidValue: out of range.
    """

    lr: float = 0.01
    weight_decay: float = 1e-5

    def __post_init__(self) -> None:
        if not self.lr > 0 or not self.weight_decay >= 0:
            raise InvalidValue(
                f"scores are trained with an lr above 0 and a weight decay of at least 0, and these are {self.lr} and "
                f"{self.weight_decay}."
            )

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Adam on the cosine schedule."""
        return {
            "optimizer": "adam",
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "momentum": 0.0,
            "nesterov": False,
            "schedule": "cosine",
            "milestones": (),
            "warmup": 0,
        }

    def first(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from U[0, 1]."""
        return torch.rand(weight.shape, generator=generator, dtype=weight.dtype)

    def factors(
        self,
        scores: Params,
        alive: Params,
        generator: torch.Generator | None,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """Give 1 where a score is above one half and not frozen, with the gradient of the score itself."""
        return {name: through((score > 0.5).to(score.dtype), score) * alive[name] for name, score in scores.items()}

    def settle(self, scores: Params) -> None:
        """Project to [0, 1]."""
        torch._foreach_clamp_min_(list(scores.values()), 0.0)
        torch._foreach_clamp_max_(list(scores.values()), 1.0)

    def describe(self) -> Mapping[str, Any]:
        """Identify it by all of its fields."""
        return {"scores": "gem-miner", **{name: identity(value) for name, value in vars(self).items()}}
