"""Verdicts in looks: families are added until every gate is settled, and the error rate holds over all looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

from tombola.errors import InvalidValue
from tombola.stats.paired import MIN_REPLICATES
from tombola.stats.wording import counted

LARGEST: Final = 12
_EXPONENT: Final = 2.0


def spend(alpha: float, sizes: Sequence[int]) -> tuple[float, ...]:
    """Divide an error rate among looks: by look k the share ``(R_k / R_K)^2`` of it is spent.

    The power family of Kim & DeMets (1987); exponent 3 is near O'Brien & Fleming's shape, 1 near Pocock's. Simulated
    over looks at 3, 5, 8 and 12 families, exponents 1, 2 and 3 have power 0.85, 0.90 and 0.92 at a distance of 1 sd
    from the margin (R = 12 without looks 0.94), and take 5.4, 6.1 and 6.8 families at 2 sd: 2 keeps most of both.

    Args:
        alpha: one-sided, in (0, 0.5).
        sizes: families at each look, strictly increasing.

    Returns:
        One error rate for each look, shares but the last rounded down to two digits; they add up to alpha.

    Example:
        >>> spend(0.05, (3, 5, 8, 12))
        (0.0031, 0.0055, 0.0135, 0.0279)
    """
    _check_sizes(sizes)
    if not 0 < alpha < 0.5:
        raise InvalidValue(f"alpha is {alpha:g}. It is a one-sided error rate between 0 and 0.5, such as 0.05.")
    spent = [(size / sizes[-1]) ** _EXPONENT for size in sizes]
    shares = [_two_digits(later - before) for before, later in pairwise([0.0, *spent])][:-1]
    early = [round(alpha * share, 12) for share in shares]
    return (*early, round(alpha - math.fsum(early), 12))


def _two_digits(share: float) -> float:
    """Round down to two significant digits, so that limits are named by levels one can read."""
    unit = 10.0 ** (math.floor(math.log10(share)) - 1)
    return math.floor(share / unit + 1e-9) * unit


@final
@dataclass(frozen=True)
class Looks:
    """When the verdict is taken, and at which error rate; fixed before the first family is trained.

    At look k the whole of :func:`~tombola.stats.verdict.judge` runs on the first ``sizes[k]`` families at
    ``alphas[k]``. A wrong claim of the procedure is a wrong claim at some look, so by the union bound every error rate
    that ``judge`` keeps at one look is kept at ``alpha``, the sum, by all of them together: whatever the correlation
    between looks, whatever the rule that ends them, and with no normal approximation.

    Attributes:
        sizes: families at each look, strictly increasing, at least 3.
        alphas: one-sided error rate of each look, positive; their sum is below 0.5.

    Raises:
        InvalidValue: sizes or error rates that are none.
    """

    sizes: tuple[int, ...]
    alphas: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_sizes(self.sizes)
        if len(self.alphas) != len(self.sizes):
            raise InvalidValue(
                f"there are {counted(len(self.sizes), 'look')} and {counted(len(self.alphas), 'error rate')}. "
                "Give one for each look, or divide one with spend(alpha, sizes)."
            )
        if not (all(alpha > 0 for alpha in self.alphas) and self.alpha < 0.5):
            raise InvalidValue(
                f"the looks' error rates are {list(self.alphas)}. Each is positive and their sum is below 0.5; "
                "divide one error rate with spend(alpha, sizes)."
            )

    @classmethod
    def default(cls, largest: int = LARGEST, alpha: float = 0.05) -> Looks:
        """Look at 3, 5, 8, 12, ... families, half as many again each time, and last at ``largest``.

        Example:
            >>> Looks.default(10).sizes
            (3, 5, 8, 10)
        """
        sizes, size = [], MIN_REPLICATES
        while 5 * size <= 4 * largest:
            sizes.append(size)
            size = math.ceil(1.5 * size)
        return cls((*sizes, largest), spend(alpha, (*sizes, largest)))

    @property
    def alpha(self) -> float:
        """The error rate of the whole procedure."""
        return round(math.fsum(self.alphas), 12)

    @property
    def largest(self) -> int:
        """The families of the last look."""
        return self.sizes[-1]


def _check_sizes(sizes: Sequence[int]) -> None:
    rising = all(later > before for before, later in pairwise(sizes))
    if not (sizes and sizes[0] >= MIN_REPLICATES and rising):
        raise InvalidValue(
            f"the looks are at {list(sizes)} families. Give at least one look, the first at {MIN_REPLICATES} families "
            "or more, each later one at more than the one before."
        )
