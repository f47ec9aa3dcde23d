"""Overlap: what two masks share beyond what their inputs explain.

The plain hypergeometric chance (:class:`tombola.prune.masks.Overlap`) is wrong where inputs differ: pixels that are
always black are pruned in every mask, so masks of unrelated networks overlap beyond it. Here chance is taken within
each input, whose counts in both masks are held.
"""

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from tombola.prune.masks import Overlap
from tombola.prune.masks import overlap as plain_overlap
from tombola.types import Masks


@final
@dataclass(frozen=True)
class Agreement:
    """What two masks of one tensor share, against chance within each input.

    Attributes:
        plain: the counts, and chance over the whole tensor.
        expected: weights that two masks share on average that are independent but for the number each keeps of every
            input, ``sum_i k1_i k2_i / n``.
        deviation: the standard deviation of that number.
    """

    plain: Overlap
    expected: float
    deviation: float

    @property
    def observed(self) -> int:
        """Weights that both keep."""
        return self.plain.shared

    @property
    def ratio(self) -> float | None:
        """Observed over expected, 1 is chance; ``None`` where nothing can be shared."""
        return self.observed / self.expected if self.expected else None

    @property
    def log_ratio(self) -> float:
        """The natural log of the ratio with half added above and below, so it is finite; 0 is chance."""
        return math.log((self.observed + 0.5) / (self.expected + 0.5))

    @property
    def z(self) -> float | None:
        """Observed minus expected, in standard deviations; ``None`` where chance has no spread."""
        return (self.observed - self.expected) / self.deviation if self.deviation else None

    @property
    def jaccard(self) -> float:
        """Shared over kept by either."""
        return self.plain.jaccard

    @property
    def chance_jaccard(self) -> float:
        """The Jaccard index at the expected overlap; 1 for two empty masks."""
        either = self.plain.first + self.plain.second - self.expected
        return self.expected / either if either else 1.0


def agreement(first: Masks, second: Masks) -> dict[str, Agreement]:
    """Compare two masks tensor by tensor, against chance within each input.

    An input is what stands behind the first axis: a column of ``[out, in]``, an input channel at one position of the
    kernel of ``[out, in, ...]``. A tensor of one axis is one input. The variances of the inputs' hypergeometric laws
    are summed (theory sheet, D.3 with correction 5).

    Args:
        first: name -> bool tensor, ``[out, in, ...]``.
        second: the same names and shapes.

    Returns:
        name -> their agreement.

    Raises:
        ShapeMismatch: they do not cover the same tensors of the same shapes.
        InvalidValue: one of them is not bool.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([[1, 0], [1, 0]]).bool(), torch.tensor([[1, 0], [0, 1]]).bool()
        >>> found = agreement({"w": a}, {"w": b})["w"]
        >>> found.observed, found.expected, found.plain.expected
        (1, 1.0, 1.0)
    """
    return {
        name: Agreement(counted, *_chance(first[name].cpu(), second[name].cpu()))
        for name, counted in plain_overlap(first, second).items()
    }


def _chance(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Give the mean and the standard deviation of the overlap, given what each mask keeps of every input."""
    n = first.shape[0] if first.dim() else 1
    if not first.numel():
        return 0.0, 0.0
    one, other = (mask.reshape(n, -1).sum(0).double() for mask in (first, second))
    mean = one * other / n
    spread = mean * (1 - one / n) * (1 - other / n) * n / (n - 1) if n > 1 else mean * 0
    return float(mean.sum()), math.sqrt(float(spread.sum()))
