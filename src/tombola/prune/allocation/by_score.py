"""Global: one pooled ranking decides how many weights each tensor keeps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tombola.prune.counting import Counts, Cut, Shapes, apportion, size_of
from tombola.prune.select import count_top
from tombola.types import Masks, Scores


@final
@dataclass(frozen=True)
class Global:
    """Keep the best of all tensors' weights together.

    Frankle & Carbin (2019), section 4 (deeper networks are pruned globally); the plan divides the total in proportion
    to sizes, and the placement replaces that division by the pooled ranking.
    """

    name: str = "global"

    def plan(self, shapes: Shapes, alive: Counts, cut: Cut) -> dict[str, int]:
        """Fix the total; see :class:`~tombola.prune.allocation.base.Allocation`."""
        return plan_total(shapes, alive, cut)

    def place(self, scores: Scores, masks: Masks, planned: Counts, generator: torch.Generator | None) -> dict[str, int]:
        """Count what the pooled ranking keeps in each tensor."""
        return pooled_counts(scores, masks, sum(planned.values()), generator)


def plan_total(shapes: Shapes, alive: Counts, cut: Cut) -> dict[str, int]:
    """Fix the exact total; its division in proportion to the weights left is provisional.

    A tensor is emptied on paper only where the total leaves no other way: what the scores will say is not known.
    """
    total = cut.total(sum(map(size_of, shapes.values())), sum(alive.values()))
    return apportion(alive, total, alive, least=1 if total >= len(shapes) else 0)


def pooled_counts(
    scores: Mapping[str, Tensor], masks: Masks, total: int, generator: torch.Generator | None
) -> dict[str, int]:
    """Keep the ``total`` largest scores of all tensors and count them in each."""
    found = count_top([scores[name].reshape(-1) for name in masks], total, generator)
    return dict(zip(masks, found, strict=True))
