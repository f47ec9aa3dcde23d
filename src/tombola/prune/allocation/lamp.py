"""LAMP: a global ranking that never lets a layer collapse."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tombola.errors import InvalidScores
from tombola.prune.allocation.by_score import plan_total, pooled_counts
from tombola.prune.counting import Counts, Cut, Shapes
from tombola.types import Masks, Scores


@final
@dataclass(frozen=True)
class LAMP:
    r"""Rank weights globally by layer-adaptive magnitude.

    Lee et al. (2021), equation 6: with the weights of a layer sorted by magnitude,
    :math:`s_u = w_u^2 / \sum_{v \ge u} w_v^2`. The largest weight of every layer scores 1, so each keeps at least one.
    The criterion's scores stand for :math:`|w|`, so they may not be negative; magnitude is the paper's. The sums are
    made on the CPU in float64, so the ranking is the same on every device.
    """

    name: str = "lamp"

    def plan(self, shapes: Shapes, alive: Counts, cut: Cut) -> dict[str, int]:
        """Fix the total; see :class:`~tombola.prune.allocation.base.Allocation`."""
        return plan_total(shapes, alive, cut)

    def place(self, scores: Scores, masks: Masks, planned: Counts, generator: torch.Generator | None) -> dict[str, int]:
        """Count what the pooled LAMP ranking keeps in each tensor.

        Raises:
            InvalidScores: a score is negative or infinite.
        """
        for name, mask in masks.items():
            alive = scores[name][mask]
            if bool(((alive < 0) | alive.isinf()).any()):
                raise InvalidScores(
                    f"lamp squares the scores, and some of {name!r} are negative or infinite. Use it with magnitude or "
                    "another criterion whose scores are sizes; global takes any."
                )
        adapted = {name: lamp_scores(scores[name].cpu(), masks[name].cpu()) for name in masks}
        return pooled_counts(adapted, masks, sum(planned.values()), generator)


def lamp_scores(scores: Tensor, mask: Tensor) -> Tensor:
    """Give the LAMP score of every weight left; ``-inf`` for pruned ones.

    Args:
        scores: magnitudes, any shape.
        mask: bool, same shape.

    Returns:
        float64, same shape.

    Example:
        >>> lamp_scores(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.ones(4, dtype=torch.bool))
        tensor([0.0333, 0.1379, 0.3600, 1.0000], dtype=torch.float64)
    """
    alive = scores[mask].double().square()
    order = alive.argsort(stable=True)
    ascending = alive[order]
    tail = ascending.flip(0).cumsum(0).flip(0)
    # A layer of zeros would divide 0 by 0; its weights rank last, its last one first as everywhere.
    ratio = torch.where(tail > 0, ascending / tail, torch.zeros_like(tail))
    if ratio.numel():
        ratio[-1] = 1.0
    result = torch.full(scores.shape, -torch.inf, dtype=torch.float64, device=scores.device)
    values = torch.empty_like(ratio)
    values[order] = ratio
    result[mask] = values
    return result
