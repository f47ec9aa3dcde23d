"""Early masks: when the mask that a dense run would be cut to has settled."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, final

from tombola.errors import InvalidValue
from tombola.prune.masks import Overlap, overlap
from tombola.types import Masks

WINDOW: Final = 5
THRESHOLD: Final = 0.1


@final
@dataclass(frozen=True)
class Distance:
    """How far apart two masks are.

    Attributes:
        hamming: the fraction of weights that one keeps and the other does not.
        chance: that fraction on average, for independent masks of these densities: ``2d(1-d)`` where both keep the
            fraction ``d``; over several tensors, with the counts of each held.
        jaccard: weights that both keep over those that either keeps.
    """

    hamming: float
    chance: float
    jaccard: float

    @property
    def corrected(self) -> float:
        """The Hamming distance over chance: 0 for equal masks, 1 for independent ones; 0 where chance leaves none."""
        return self.hamming / self.chance if self.chance else 0.0


@final
@dataclass(frozen=True)
class Distances:
    """How far apart two masks are, by tensor and over all of them together."""

    layers: dict[str, Distance]
    pooled: Distance


def distances(first: Masks, second: Masks) -> Distances:
    """Measure how far apart two masks are; the second may be the final one.

    Args:
        first: name -> bool tensor.
        second: the same names and shapes.

    Raises:
        ShapeMismatch: they do not cover the same tensors of the same shapes.
        InvalidValue: one of them is not bool.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
        >>> found = distances({"w": a}, {"w": b}).pooled
        >>> found.hamming, found.corrected
        (0.5, 1.0)
    """
    found = overlap(first, second)
    return Distances({name: _distance([one]) for name, one in found.items()}, _distance(list(found.values())))


def settled(history: Sequence[Masks], window: int = WINDOW, threshold: float = THRESHOLD) -> bool:
    """Say whether masks have stopped changing, by Early-Bird's criterion on the distance corrected for chance.

    You et al. (2020), section 3.2, draw the mask when the largest Hamming distance among the last five epochs' masks is
    below .1. Here every pair among the last ``window`` is compared, over all tensors together. It departs from them
    because of two traps in that rule.

    First, chance: independent masks that keep a fraction d are 2d(1-d) apart, which at d = .05 is .095, so *random*
    masks pass the published threshold. The distance corrected for chance is 1 for them at every density. Second, time:
    masks of close snapshots are alike long before they are like the final one (LeNet-300-100 at 21 %: .033 apart
    between iterations 50 and 100, when the Jaccard index to the final mask is .29). So take one mask an epoch, and
    where the final mask is known report the Jaccard index to it (:func:`distances`) beside this.

    Args:
        history: masks in the order of training, one an epoch.
        window: how many of the last are compared, at least 2.
        threshold: of the largest corrected distance among them, in (0, 1).

    Returns:
        ``False`` while there are fewer than ``window``.

    Raises:
        InvalidValue: a window below 2, or a threshold outside (0, 1).
        ShapeMismatch: the masks are not of one network.
    """
    if window < 2:
        raise InvalidValue(f"a window of {window} masks has no pair to compare. Use at least 2.")
    if not 0 < threshold < 1:
        raise InvalidValue(
            f"the threshold is {threshold}, and corrected distances run from 0 (equal) to 1 (chance). Use one between."
        )
    last = history[-window:]
    if len(last) < window:
        return False
    return all(distances(a, b).pooled.corrected < threshold for a, b in combinations(last, 2))


def _distance(found: Sequence[Overlap]) -> Distance:
    """Measure over several tensors together."""
    size = sum(one.size for one in found)
    shared, kept = sum(one.shared for one in found), sum(one.first + one.second for one in found)
    expected = sum(one.expected for one in found)
    either = kept - shared
    return Distance(
        hamming=(kept - 2 * shared) / size if size else 0.0,
        chance=(kept - 2 * expected) / size if size else 0.0,
        jaccard=shared / either if either else 1.0,
    )
