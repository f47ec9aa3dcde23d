"""Schedules: how much each level cuts."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Protocol, final

from tombola.errors import ImpossibleDensity, InvalidValue
from tombola.prune.counting import Cut, exact, root_power


class Schedule(Protocol):
    """Level (1, 2, ...) -> the cut that makes it."""

    def __call__(self, level: int, /) -> Cut: ...


@final
@dataclass(frozen=True)
class Ladder:
    """Remove the same fraction of the survivors in every round.

    Frankle & Carbin (2019), section 2: 20 % a round, compounding from the integer survivors.

    Attributes:
        rate: fraction of the survivors to remove, in (0, 1).
    """

    rate: Fraction

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise InvalidValue(f"the rate is {float(self.rate):g}; a round removes a fraction between 0 and 1.")

    def __call__(self, level: int) -> Cut:  # noqa: ARG002
        return Cut(rate=self.rate)


@final
@dataclass(frozen=True)
class Geometric:
    """Reach a density in a number of equal rounds.

    Each round keeps ``d^(1/n)``: the paper's "each round prunes p^(1/n) % of the weights that survive" (Frankle &
    Carbin 2019, section 1) holds when p is read as the percentage *remaining*. Counts come from the original sizes,
    so rounding never drifts.

    Attributes:
        density: fraction of the original weights at the end, in (0, 1].
        rounds: at least 1.
    """

    density: Fraction
    rounds: int

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ImpossibleDensity(
                f"the density is {float(self.density):g}; it is the fraction of weights kept, above 0 and at most 1."
                + (f" For {float(self.density):g} % write {float(self.density) / 100:g}." if self.density > 1 else "")
            )
        if self.rounds < 1:
            raise InvalidValue(f"{self.rounds} rounds; at least 1 is needed.")

    def __call__(self, level: int) -> Cut:
        return Cut(density=root_power(self.density, min(level, self.rounds), self.rounds))


@final
@dataclass(frozen=True)
class Densities:
    """Stand at stated densities, one level each.

    Attributes:
        densities: fractions of the original weights, in (0, 1), falling.
    """

    densities: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        falling = all(after < before for before, after in pairwise(self.densities))
        if not self.densities or not falling or not self.densities[-1] > 0 or not self.densities[0] < 1:
            raise ImpossibleDensity(
                f"the densities are {', '.join(f'{float(one):g}' for one in self.densities) or 'none'}; each is the "
                "fraction of weights kept, below 1 and above 0, and below the one before it."
            )

    def __call__(self, level: int) -> Cut:
        return Cut(density=self.densities[min(level, len(self.densities)) - 1])


def at_densities(densities: Sequence[float | str | Fraction]) -> Densities:
    """Make a schedule of stated densities; a float is read as the decimal it prints as."""
    return Densities(tuple(map(exact, densities)))


def ladder(rate: float | str | Fraction = Fraction(1, 5)) -> Ladder:
    """Make the paper's ladder; a float is read as the decimal it prints as."""
    return Ladder(exact(rate))


def geometric(density: float | str | Fraction, rounds: int) -> Geometric:
    """Make a schedule that ends at ``density`` after ``rounds`` equal rounds."""
    return Geometric(exact(density), rounds)


def one_shot(density: float | str | Fraction) -> Geometric:
    """Make the schedule of a single cut."""
    return Geometric(exact(density), 1)
