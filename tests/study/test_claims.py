"""A claim is reproduced where its whole interval lies in its band and not where it lies outside; else it is open."""

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tombola.stats import Run
from tombola.study.claims import (
    Claim,
    NotMeasured,
    Settled,
    earlier,
    points_above,
    settle,
    times_faster,
)
from tombola.study.library import CLAIMS


def claim(numbers: Sequence[float], band: tuple[float, float]) -> Claim:
    return Claim("c", "text", "source", "text", None, band, "%", lambda _: numbers)


@pytest.mark.parametrize(
    ("numbers", "band", "verdict"),
    [
        # The mean is 10 and the half-width of the 95 % t interval of three numbers is 4.303 / sqrt(3) = 2.484.
        ((9, 10, 11), (7.5, 12.5), Settled.REPRODUCED),
        ((9, 10, 11), (7.6, 12.5), Settled.CANNOT_TELL),
        ((9, 10, 11), (7.5, 12.4), Settled.CANNOT_TELL),
        ((9, 10, 11), (0.0, math.inf), Settled.REPRODUCED),
        ((9, 10, 11), (-math.inf, 0.0), Settled.NOT_REPRODUCED),
        ((9, 10, 11), (12.5, 20.0), Settled.NOT_REPRODUCED),
        ((9, 10, 11), (12.4, 20.0), Settled.CANNOT_TELL),
        ((0, 0, 0), (0.0, math.inf), Settled.NOT_REPRODUCED),
        ((9, 11), (0.0, math.inf), Settled.CANNOT_TELL),
        ((), (0.0, math.inf), Settled.CANNOT_TELL),
    ],
)
def test_the_interval_decides(numbers: Sequence[float], band: tuple[float, float], verdict: Settled) -> None:
    found = settle(claim(numbers, band), {})
    assert found.verdict is verdict
    assert found.families == len(numbers)
    assert found.as_json()["verdict"] == verdict.value


def test_what_was_not_trained_cannot_be_told() -> None:
    for one in CLAIMS.values():
        found = settle(one, {})
        assert found.verdict is Settled.CANNOT_TELL
        assert found.why.startswith("there is no result of a search called ")
        assert found.as_json()["measured"] is None


def run(accuracy: float, stop: int, censored: bool = False) -> Run:
    return Run(accuracy, accuracy - 0.01, stop, censored)


def finding(data: str = "mnist", **arms: Mapping[int, Run]) -> Any:
    """Give what a measure reads of a finding: two families, the dense level and one at 21 %."""
    dense = {0: (run(0.90, 100), run(0.92, 300)), 1: (run(0.94, 200), run(0.94, 200))}
    return SimpleNamespace(
        about={"data": data},
        dense=dense,
        levels=(
            SimpleNamespace(density=1.0, arms={"ticket": {0: dense[0][0], 1: dense[1][0]}}),
            SimpleNamespace(density=0.2107, arms=arms),
        ),
        judgement=SimpleNamespace(replicates=(0, 1)),
    )


TICKET = ("s", 0.211, "ticket")
DENSE = ("s", 1.0, "dense")


def test_measures_are_one_number_for_each_family() -> None:
    found = {"s": finding(ticket={0: run(0.95, 50), 1: run(0.93, 150)}, reinit={0: run(0.9, 100), 1: run(0.9, 600)})}
    assert earlier(TICKET, DENSE)(found) == pytest.approx([75.0, 25.0])
    assert points_above(TICKET, DENSE, at_early_stop=False)(found) == pytest.approx([4.0, -1.0])
    assert points_above(TICKET, DENSE)(found) == pytest.approx([4.0, -1.0])
    assert times_faster(TICKET, ("s", 0.211, "reinit"))(found) == pytest.approx([2.0, 4.0])


def test_a_family_that_left_is_in_no_measure() -> None:
    found = finding(ticket={0: run(0.95, 50), 1: run(0.93, 150), 2: run(0.1, 1)})
    assert len(earlier(TICKET, DENSE)({"s": found})) == 2


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, "no result of a search called s"),
        ({"s": finding("digits", ticket={})}, "about mnist, and the search is on digits"),
        ({"s": finding(reinit={})}, "no ticket at a density of 21.1 %"),
        ({"s": finding(ticket={0: run(0.9, 50, censored=True), 1: run(0.9, 50)})}, "at its last evaluation"),
        ({"s": finding(ticket={0: Run(0.9), 1: Run(0.9)})}, "no validation curve"),
    ],
)
def test_what_cannot_be_measured_says_why(found: Mapping[str, Any], words: str) -> None:
    with pytest.raises(NotMeasured, match=words):
        earlier(TICKET, DENSE)(found)


def test_a_level_stands_for_densities_near_it_only() -> None:
    found = {"s": finding(ticket={0: run(0.95, 50), 1: run(0.93, 150)})}
    earlier(("s", 0.19, "ticket"), DENSE)(found)
    with pytest.raises(NotMeasured, match="no level near a density of 15 %"):
        earlier(("s", 0.15, "ticket"), DENSE)(found)
