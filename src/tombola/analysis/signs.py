"""Sign flips: whether the weights that are kept hold on to the sign they began with."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tombola.analysis.family import masked_pairs
from tombola.types import Masks, Params


@final
@dataclass(frozen=True)
class Flips:
    """Signs of one tensor's weights that training changed; weights that never moved are not counted among any.

    Attributes:
        kept: weights that are kept and moved.
        kept_flipped: those of them whose sign changed.
        pruned: weights that are pruned and moved.
        pruned_flipped: those of them whose sign changed.
        unmoved: weights with ``w_T = w_0``, kept or pruned, such as those of pixels that are always black.
    """

    kept: int
    kept_flipped: int
    pruned: int
    pruned_flipped: int
    unmoved: int

    @property
    def rate(self) -> float | None:
        """The fraction flipped of all that moved; ``None`` without any."""
        return _rate(self.kept_flipped + self.pruned_flipped, self.kept + self.pruned)

    @property
    def rate_kept(self) -> float | None:
        """The fraction flipped of the kept; ``None`` without any."""
        return _rate(self.kept_flipped, self.kept)

    @property
    def rate_pruned(self) -> float | None:
        """The fraction flipped of the pruned; ``None`` without any."""
        return _rate(self.pruned_flipped, self.pruned)

    @property
    def log_odds_ratio(self) -> float | None:
        """The natural log of the odds of a flip among the kept over those among the pruned; below 0 the kept flip less.

        With half added to each cell (Haldane 1956, Anscombe 1956), so it is finite. ``None`` where nothing that moved
        is kept, or nothing that moved is pruned.
        """
        if not self.kept or not self.pruned:
            return None
        flipped = math.log(self.kept_flipped + 0.5) - math.log(self.pruned_flipped + 0.5)
        stayed = math.log(self.kept - self.kept_flipped + 0.5) - math.log(self.pruned - self.pruned_flipped + 0.5)
        return flipped - stayed


def flips(theta_0: Params, theta_T: Params, masks: Masks) -> dict[str, Flips]:
    """Count the signs that training changed, among kept and among pruned weights, tensor by tensor.

    A flip is ``sign w_T != sign w_0``; zero has a sign of its own. Zhou et al. (2019), section 4.1, on signs.

    Args:
        theta_0: name -> initial weights.
        theta_T: name -> weights at the end of the dense run, same shape.
        masks: name -> bool tensor, same shape; the tensors wanted.

    Returns:
        name -> counts.

    Raises:
        ShapeMismatch: a tensor is missing, or shapes differ.
        InvalidValue: a mask is not bool.

    Example:
        >>> w_0, w_T = {"w": torch.tensor([1.0, 1.0, -1.0, 0.5])}, {"w": torch.tensor([2.0, -0.1, -3.0, 0.5])}
        >>> flips(w_0, w_T, {"w": torch.tensor([True, False, True, False])})["w"]
        Flips(kept=2, kept_flipped=0, pruned=1, pruned_flipped=1, unmoved=1)
    """
    return {name: count(before, after, mask) for name, before, after, mask in masked_pairs(theta_0, theta_T, masks)}


def count(before: Tensor, after: Tensor, mask: Tensor) -> Flips:
    """Count the flips of one tensor.

    Args:
        before: initial weights, float, any shape.
        after: trained weights, same shape.
        mask: bool, same shape.
    """
    moved = before != after
    flipped = moved & (before.sign() != after.sign())
    n = torch.count_nonzero
    kept, kept_flipped = int(n(moved & mask)), int(n(flipped & mask))
    return Flips(
        kept=kept,
        kept_flipped=kept_flipped,
        pruned=int(n(moved)) - kept,
        pruned_flipped=int(n(flipped)) - kept_flipped,
        unmoved=moved.numel() - int(n(moved)),
    )


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
