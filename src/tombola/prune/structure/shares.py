"""Kept numbers of several kinds of unit, all the same fraction of theirs: one step after the other."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import final

from tombola.prune.counting import size_of


@final
@dataclass(frozen=True)
class Shares:
    """The vectors ``max(least, floor(f n_k + 1/2))`` for every fraction ``f`` from 0 to 1.

    They are totally ordered, so that a total finds one of them, and what a smaller total keeps is never more in any
    kind. The fraction is ``step / steps``; with the least common multiple of the ``2 n_k`` for ``steps``, every place
    where a vector changes is a whole step, and nothing is rounded.

    Attributes:
        sizes: how many there are of each kind, at least 1.
        least: how many are kept of each kind, whatever the fraction.
    """

    sizes: tuple[int, ...]
    least: int = 0

    @property
    def steps(self) -> int:
        """Give the number of the last step, which keeps everything."""
        return 2 * math.lcm(*self.sizes)

    def at(self, step: int) -> tuple[int, ...]:
        """Give the vector of a step, from 0 to ``steps``.

        Example:
            >>> [Shares((4, 2)).at(step) for step in range(0, 9, 2)]
            [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)]
        """
        steps = self.steps
        return tuple(max(self.least, (2 * step * size + steps) // (2 * steps)) for size in self.sizes)

    def last(self, weigh: Callable[[Sequence[int]], int | Fraction], most: int | Fraction) -> int:
        """Find the last step whose vector weighs at most ``most``, by bisection; -1 if none does.

        Args:
            weigh: vector -> weight, which does not fall where the vector grows; integers or exact fractions.
            most: the weight allowed.
        """
        low, high = -1, self.steps
        if weigh(self.at(high)) <= most:
            return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if weigh(self.at(middle)) <= most else (low, middle)
        return low

    def with_total(self, weigh: Callable[[Sequence[int]], int], total: int) -> tuple[int, ...] | None:
        """Find the vector that weighs exactly ``total``; ``None`` if there is none."""
        found = self.last(weigh, total)
        vector = self.at(found) if found >= 0 else None
        return vector if vector is not None and weigh(vector) == total else None


def rows_and_columns(shape: tuple[int, ...]) -> tuple[int, int]:
    """Give the shape of a tensor as a matrix: its first axis, and all the others together.

    Example:
        >>> rows_and_columns((8, 3, 5, 5)), rows_and_columns((8,))
        ((8, 75), (8, 1))
    """
    return (shape[0], size_of(shape[1:])) if shape else (1, 1)
