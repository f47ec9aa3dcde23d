"""What every schedule promises."""

from dataclasses import is_dataclass
from fractions import Fraction

import pytest

from tombola.prune import schedules
from tombola.prune.schedules import Schedule, at_densities, geometric, ladder, one_shot
from tombola.testing import check_schedule

EVERY: dict[str, Schedule] = {
    "ladder 20 %": ladder(),
    "ladder 7 %": ladder("0.07"),
    "ladder, nearly everything": ladder("0.999"),
    "ladder, nearly nothing": ladder(Fraction(1, 10**6)),
    "geometric": geometric("0.1", 5),
    "geometric, irrational and long": geometric("1/3", 50),
    "geometric, nothing cut": geometric(1, 3),
    "one shot": one_shot("0.15"),
    "densities": at_densities([0.5, 0.2, "0.1", Fraction(1, 60)]),
    "one density": at_densities([0.036]),
}


@pytest.mark.parametrize("name", EVERY)
def test_it_holds_the_public_contract(name: str) -> None:
    check_schedule(EVERY[name])


def test_every_schedule_is_in_the_table() -> None:
    classes = {
        value
        for value in vars(schedules).values()
        if isinstance(value, type) and is_dataclass(value) and value.__module__ == schedules.__name__
    }
    assert {type(schedule) for schedule in EVERY.values()} == classes
