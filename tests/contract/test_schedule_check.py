"""``check_schedule`` passes what holds the contract, and names each way to break it."""

# ruff: noqa: ARG005 - a faulty part takes what a sound one is given.

import itertools
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tombola.prune.counting import Cut
from tombola.testing import check_schedule

HALF = Fraction(1, 2)
CALLS = itertools.count(1)


def bigger_first(level: int) -> Cut:
    """Half of the weights in the first round, a fifth in each round after it."""
    return Cut(rate=HALF if level == 1 else Fraction(1, 5))


def to_a_density(level: int) -> Cut:
    """Two rounds by rate, then stand at a density below what they leave."""
    return Cut(rate=HALF) if level < 3 else Cut(density=Fraction(1, 4))


def drawn(level: int) -> Cut:  # noqa: ARG001
    torch.rand(1)
    return Cut(rate=HALF)


def unset(level: int) -> Cut:  # noqa: ARG001
    cut = Cut(rate=HALF)
    object.__setattr__(cut, "rate", None)
    return cut


FAULTS: dict[str, Any] = {
    "gave level 1 a float, not a Cut": lambda level: 0.8**level,
    "gave level 1 a SimpleNamespace": lambda level: SimpleNamespace(rate=HALF, density=None, keep=None),
    "the cut of level 1 has nothing": unset,
    "the rate of level 1 is the float 0.2, not exact": lambda level: Cut(rate=0.2),  # type: ignore[arg-type]
    "the rate of level 1 is 0; it lies between": lambda level: Cut(rate=Fraction(0)),
    "the rate of level 1 is 1; it lies between": lambda level: Cut(rate=Fraction(1)),
    "the density of level 1 is 0; it is above": lambda level: Cut(density=Fraction(0)),
    "the density of level 1 is 80; it is above": lambda level: Cut(density=Fraction(80)),
    "level 2 keeps 0.5 of the weights, and 0.25 are left": lambda level: Cut(density=Fraction(min(level, 3), 4)),
    "level 2 keeps 0.75 of the weights, and 0.5 are left": lambda level: (
        Cut(rate=HALF) if level == 1 else Cut(density=Fraction(3, 4))
    ),
    "level 1 keeps 0 weights": lambda level: Cut(keep=0),
    "level 2 keeps 11 weights, and a level before it 10": lambda level: Cut(keep=9 + level),
    "failed at level 4 with IndexError": lambda level: Cut(keep=(9, 8, 7)[level - 1]),
    "gives level 50 another cut": lambda level: Cut(rate=Fraction(1, level + next(CALLS))),
    "the schedule draws from torch's global generator": drawn,
}


@pytest.mark.parametrize("schedule", [bigger_first, to_a_density, lambda level: Cut(keep=max(1, 99 - level))])
def test_what_holds_the_contract_passes(schedule: Any) -> None:
    check_schedule(schedule)


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_fault_is_named(sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_schedule(FAULTS[sentence])


def test_a_schedule_is_asked_for_as_many_levels_as_wanted() -> None:
    short = FAULTS["failed at level 4 with IndexError"]
    check_schedule(short, levels=3)
