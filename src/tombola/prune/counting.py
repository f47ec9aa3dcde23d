"""Exact integer arithmetic: how many weights a rate or a density keeps.

Everything is in rationals. ``0.07 * 100`` is ``7.000000000000001`` in floating point, and a rule that rounds it up
prunes 8 weights of 100 where 7 were asked for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import final

from tombola.errors import ImpossibleDensity, InvalidValue

Counts = Mapping[str, int]
Shapes = Mapping[str, tuple[int, ...]]


def exact(value: float | int | str | Fraction) -> Fraction:
    """Read a number as the decimal a person wrote.

    Example:
        >>> exact(0.07) * 100
        Fraction(7, 1)
    """
    try:
        return value if isinstance(value, Fraction) else Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise InvalidValue(
            f"{value!r} is not a number. Write a decimal such as 0.2 or a fraction such as 1/5."
        ) from None


def half_up(value: Fraction) -> int:
    """Round to the nearest integer, halves upwards: ``floor(value + 1/2)``.

    Example:
        >>> [half_up(Fraction(n, 2)) for n in (1, 3, 5)]
        [1, 2, 3]
    """
    return math.floor(value + Fraction(1, 2))


_ROOT_BITS = 200


def root_power(base: Fraction, level: int, rounds: int) -> Fraction:
    """Give ``base ** (level / rounds)``: exactly where it is rational, else to 200 binary digits, rounded down.

    Args:
        base: in [0, 1].
        level: at least 0.
        rounds: at least 1.

    Example:
        >>> root_power(Fraction(1, 9), 1, 2)
        Fraction(1, 3)
        >>> float(root_power(Fraction(1, 10), 1, 10))
        0.7943282347242815
    """
    power = base**level
    top, bottom = _integer_root(power.numerator, rounds), _integer_root(power.denominator, rounds)
    if top**rounds == power.numerator and bottom**rounds == power.denominator:
        return Fraction(top, bottom)
    scaled = (power.numerator << (_ROOT_BITS * rounds)) // power.denominator
    return Fraction(_integer_root(scaled, rounds), 1 << _ROOT_BITS)


def _integer_root(value: int, degree: int) -> int:
    """Give ``floor(value ** (1 / degree))`` by Newton's method from above."""
    if value < 2 or degree == 1:
        return value
    guess = 1 << -(-value.bit_length() // degree)
    while True:
        better = ((degree - 1) * guess + value // guess ** (degree - 1)) // degree
        if better >= guess:
            return guess
        guess = better


@final
@dataclass(frozen=True)
class Cut:
    """What a schedule asks of one level; exactly one field is set.

    Attributes:
        rate: the fraction of the *surviving* weights to remove in this round.
        density: the fraction of the *original* prunable weights to keep.
        keep: the number of weights to keep.

    Raises:
        InvalidValue: none of the fields is set, or several are.
    """

    rate: Fraction | None = None
    density: Fraction | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) != 1:
            raise InvalidValue(
                f"a cut is one of rate, density and keep, and this one has {' and '.join(given) or 'none of them'}."
            )

    def total(self, size: int, alive: int) -> int:
        """Say how many weights are kept of ``size`` with ``alive`` left.

        Raises:
            ImpossibleDensity: more than are left, or none.
        """
        if self.rate is not None:
            wanted = alive - half_up(self.rate * alive)
        elif self.density is not None:
            wanted = half_up(self.density * size)
        else:
            wanted = self.keep or 0
        if wanted > alive:
            raise ImpossibleDensity(
                f"the schedule asks to keep {wanted} weights and only {alive} of {size} are left. "
                "A mask never grows: densities fall from level to level."
            )
        if wanted < 1:
            raise ImpossibleDensity(
                f"the schedule keeps none of {size} weights ({alive} were left). The least density here is 1/{size}."
            )
        return wanted


def apportion(ideal: Mapping[str, float | Fraction], total: int, most: Counts, *, least: int = 0) -> dict[str, int]:
    """Turn ideal shares into whole numbers with a given sum, by largest remainder.

    Shares are first scaled by one common factor to sum to ``total``; those that would exceed their cap stay at it and
    the others are scaled again. What has no share is given something only when all else is full.

    Args:
        ideal: name -> share, at least 0, of any sum.
        total: the sum wanted.
        most: name -> the largest count allowed.
        least: give every name this much (or all it may have) before the rest is shared out; shares count from there.

    Returns:
        name -> count; sums to ``total`` and is within one of the scaled share. Equal remainders go to the first names.

    Raises:
        ImpossibleDensity: no such counts have the sum ``total``.

    Example:
        >>> apportion({"a": 1.5, "b": 1.5, "c": 2}, 5, {"a": 9, "b": 9, "c": 9})
        {'a': 2, 'b': 1, 'c': 2}
        >>> apportion({"a": 8, "b": 1, "c": 1}, 10, {"a": 2, "b": 9, "c": 9})
        {'a': 2, 'b': 4, 'c': 4}
    """
    base = {name: min(least, most[name]) for name in ideal}
    room = {name: most[name] - base[name] for name in ideal}
    rest = total - sum(base.values())
    if not 0 <= rest <= sum(room.values()):
        raise ImpossibleDensity(
            f"cannot keep {total} weights of {sum(most[name] for name in ideal)}"
            + (f" with at least {least} in each of {len(ideal)} tensors." if least else ".")
        )
    above = {name: max(Fraction(0), Fraction(share) - base[name]) for name, share in ideal.items()}
    share = _scaled(above, rest, room)
    counts = {name: math.floor(value) for name, value in share.items()}
    order = sorted(ideal, key=lambda name: counts[name] - share[name])
    for name in order[: rest - sum(counts.values())]:
        counts[name] += 1
    return {name: base[name] + counts[name] for name in ideal}


def _scaled(ideal: Mapping[str, Fraction], total: int, most: Counts) -> dict[str, Fraction]:
    """Give ``min(most, c ideal)`` with the ``c`` that makes the sum ``total``, exactly."""
    full: set[str] = set()
    while True:
        free = [name for name in ideal if name not in full]
        left = total - sum(most[name] for name in full)
        weight: Mapping[str, Fraction | int] = ideal
        if not sum(ideal[name] for name in free):
            weight = {name: most[name] for name in free}
        whole = sum(weight[name] for name in free)
        share = {
            name: Fraction(most[name]) if name in full else Fraction(weight[name] * left) / (whole or 1)
            for name in ideal
        }
        over = {name for name in free if share[name] > most[name]}
        if not over:
            return share
        full |= over


def at_least(counts: Counts, least: int, most: Counts) -> dict[str, int]:
    """Raise every count to a minimum and take the difference from the largest counts, so that the sum stays.

    Args:
        counts: name -> count.
        least: the minimum; a name whose ``most`` is below it gets that.
        most: name -> the largest count allowed.

    Raises:
        ImpossibleDensity: the minima take more than there is.

    Example:
        >>> at_least({"a": 9, "b": 0, "c": 1}, 1, {"a": 9, "b": 9, "c": 9})
        {'a': 8, 'b': 1, 'c': 1}
    """
    floor = {name: min(least, most[name]) for name in counts}
    raised = {name: max(count, floor[name]) for name, count in counts.items()}
    excess = sum(raised.values()) - sum(counts.values())
    for name in sorted(raised, key=lambda n: -raised[n]):
        given = min(excess, raised[name] - floor[name])
        raised[name] -= given
        excess -= given
    if excess:
        raise ImpossibleDensity(
            f"{sum(counts.values())} weights are to be kept, and at least {least} in each of {len(counts)} tensors "
            f"takes {sum(floor.values())}. Keep more, or lower the minimum."
        )
    return raised


def size_of(shape: tuple[int, ...]) -> int:
    """Give the number of entries of a shape."""
    return math.prod(shape)
