"""Exact integer arithmetic: how many weights a rate or a density keeps.

Everything is in rationals. ``0.07 * 100`` is ``7.000000000000001`` in floating point, and a rule that rounds it up
prunes 8 weights of 100 where 7 were asked for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

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


@dataclass(frozen=True)
class Cut:
    """What a schedule asks of one level; exactly one field is set.

    Attributes:
        rate: the fraction of the *surviving* weights to remove in this round.
        density: the fraction of the *original* prunable weights to keep.
        keep: the number of weights to keep.
    """

    rate: Fraction | None = None
    density: Fraction | None = None
    keep: int | None = None

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


def apportion(ideal: Mapping[str, float | Fraction], total: int, most: Counts) -> dict[str, int]:
    """Turn ideal shares into whole numbers with a given sum, by largest remainder.

    Args:
        ideal: name -> share, at least 0, summing to about ``total``.
        total: the sum wanted, at most the sum of ``most``.
        most: name -> the largest count allowed.

    Returns:
        name -> count, within one of its share wherever the caps and the sum allow.

    Example:
        >>> apportion({"a": 1.5, "b": 1.5, "c": 2}, 5, {"a": 9, "b": 9, "c": 9})
        {'a': 2, 'b': 1, 'c': 2}
    """
    counts = {name: min(most[name], math.floor(share)) for name, share in ideal.items()}
    order = sorted(ideal, key=lambda name: float(math.floor(ideal[name]) - ideal[name]))
    missing = total - sum(counts.values())
    while missing > 0:
        open_names = [name for name in order if counts[name] < most[name]]
        for name in open_names[:missing]:
            counts[name] += 1
        missing -= min(missing, len(open_names))
    for name in reversed(order):
        taken = min(counts[name], max(0, -missing))
        counts[name] -= taken
        missing += taken
    return counts


def size_of(shape: tuple[int, ...]) -> int:
    """Give the number of entries of a shape."""
    return math.prod(shape)
