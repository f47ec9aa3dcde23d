"""Which level a search cuts to next, and from where."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

from tombola.analysis.connectivity import STABLE_BELOW


@final
@dataclass(frozen=True)
class Cut:
    """A cut to make.

    Attributes:
        source: the level whose trained network is cut; 0 is the dense one.
        target: the level that it is cut to.
    """

    source: int
    target: int


@final
@dataclass(frozen=True)
class Seen:
    """What validation says of a level, means over the families; the test split has no say in a search.

    Attributes:
        level: which.
        cut_from: the level whose network was cut.
        difference: the tickets' score after T iterations minus their dense networks', a fraction; ``None`` where the
            loop reports none.
        barrier: the error barrier between the tickets of this level and the networks that were cut, a fraction;
            ``None`` where it was not measured.
    """

    level: int
    cut_from: int
    difference: float | None = None
    barrier: float | None = None


class Course(Protocol):
    """Decides where a search goes."""

    @property
    def joint(self) -> bool:
        """Whether it looks at all families together, so that none may go ahead of the others."""
        ...

    def next(self, seen: Sequence[Seen], /) -> Cut | None:
        """Say what is cut next.

        Args:
            seen: every level so far, the dense one first, in the order they were trained. A level that is followed by
                one no sparser was given up.

        Returns:
            ``None`` when the search is over.
        """
        ...

    def needs(self, seen: Sequence[Seen], /) -> frozenset[int]:
        """Give the levels whose networks may yet be cut, or compared with; the dense one is always kept."""
        ...


@final
@dataclass(frozen=True)
class Fixed:
    """Goes to levels named beforehand, each cut from the one before it.

    Attributes:
        targets: the levels, rising.
    """

    targets: tuple[int, ...]
    joint: bool = False

    def next(self, seen: Sequence[Seen], /) -> Cut | None:
        """Give the first target below the last level."""
        last = seen[-1].level
        return next((Cut(last, target) for target in self.targets if target > last), None)

    def needs(self, seen: Sequence[Seen], /) -> frozenset[int]:
        """Give the last level."""
        return frozenset({seen[-1].level})


@final
@dataclass(frozen=True)
class Followed:
    """Goes the way that another search went.

    Attributes:
        cuts: in their order.
    """

    cuts: tuple[Cut, ...]
    joint: bool = False

    def next(self, seen: Sequence[Seen], /) -> Cut | None:
        """Give the cut after as many as there were."""
        return self.cuts[len(seen) - 1] if len(seen) <= len(self.cuts) else None

    def needs(self, seen: Sequence[Seen], /) -> frozenset[int]:
        """Give the sources of the cuts to come."""
        return frozenset(cut.source for cut in self.cuts[len(seen) - 1 :])


@final
@dataclass(frozen=True)
class Adaptive:
    """Few rounds of full length: big cuts first, finer as less is left and where the tickets weaken.

    A big cut may be made in single levels with some training between them (``Rounds.between``): what is full in length
    is then what each big cut begins from.

    The trunk goes down by the ``strides`` in turn, then one level at a time. A gate that it would pass over is cut from
    the trunk's last level, beside it. Below ``first`` a round cuts one level from there on as soon as the tickets' lead
    over the dense networks is less than half of the margin, or they are not linearly connected with the networks that
    they were cut from (Paul et al. 2023). A level whose tickets lose more than the margin after a cut of several is
    given up, and the search goes on in single levels from the last one that did not. No published strategy: few long
    rounds find the tickets of many (``docs/cheaper.md`` has the measurements).

    Attributes:
        last: the sparsest level.
        gates: levels that are visited whatever happens.
        first: the densest level at which tickets may be found to weaken: at their densest they lead by little.
        margin: what may be lost, a fraction of accuracy or in the score's unit.
        strides: levels that the trunk goes down at once.
    """

    last: int
    gates: tuple[int, ...]
    first: int
    margin: float
    strides: tuple[int, ...] = (5, 4, 3, 2)
    joint: bool = True

    def next(self, seen: Sequence[Seen], /) -> Cut | None:
        """Go on from the last level, or back to the last that passed."""
        held, given_up = _held(seen)
        here = held[-1]
        if here.level - here.cut_from > 1 and self._fails(here):
            return Cut(held[-2].level, held[-2].level + 1)
        if here.level >= self.last:
            return None
        if given_up or any(self._weakens(one) for one in held[1:] if one.level >= self.first):
            return Cut(here.level, here.level + 1)
        base, stride = self._trunk(held)
        planned = min(base + stride, self.last)
        return Cut(base, min([planned, *(gate for gate in self.gates if here.level < gate)]))

    def needs(self, seen: Sequence[Seen], /) -> frozenset[int]:
        """Give the trunk's last level and the last two of all."""
        held, _ = _held(seen)
        return frozenset({self._trunk(held)[0], *(one.level for one in held[-2:])})

    def _trunk(self, held: Sequence[Seen]) -> tuple[int, int]:
        """Give the last level of the trunk, and how far it goes from there."""
        at, levels, strides = 0, {one.level for one in held}, [*self.strides]
        while strides and at + strides[0] in levels:
            at += strides.pop(0)
        return (at, strides[0]) if strides else (held[-1].level, 1)

    def _fails(self, one: Seen) -> bool:
        return one.difference is not None and one.difference < -self.margin

    def _weakens(self, one: Seen) -> bool:
        unknown = one.difference is None or one.difference < self.margin / 2
        return unknown or (one.barrier is not None and one.barrier >= STABLE_BELOW)


def _held(seen: Sequence[Seen]) -> tuple[list[Seen], bool]:
    """Give the levels that were not given up, and whether any was."""
    held: list[Seen] = []
    given_up = False
    for one in seen:
        while held and held[-1].level >= one.level:
            held.pop()
            given_up = True
        held.append(one)
    return held, given_up


def is_given_up(last: Seen, following: Cut | None) -> bool:
    """Whether a course that goes to ``following`` after ``last`` has given that level up."""
    return following is not None and following.target <= last.level


def foreseen(course: Course) -> tuple[int, ...]:
    """Give the levels that a course visits when nothing weakens."""
    seen = [Seen(0, 0)]
    while (cut := course.next(tuple(seen))) is not None:
        seen.append(Seen(cut.target, cut.source, math.inf))
    return tuple(one.level for one in seen[1:])
