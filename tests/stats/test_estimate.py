"""The crossing density: exact examples and its bootstrap."""

import math

import numpy as np
import pytest

from tombola.stats import estimate_crossing
from tombola.stats.estimate import crossing

DENSITIES = (0.4, 0.1, 0.025)
MARGIN = 0.002


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        ([0.0, 0.0, -0.004], 0.05),  # Halfway, in log density, from 10 % to 2.5 %.
        ([0.004, 0.0, -0.008], 0.1 * 0.25**0.25),
        ([0.0, -0.004, -0.009], 0.2),
        # 40 % and 10 % violate the order and are pooled at 0.
        ([-0.002, 0.002, -0.004], 0.05),
        # Pooled below the margin: -0.003 at both 10 % and 2.5 %, one third of the way beyond... 0 to -0.003.
        ([0.0, -0.004, -0.002], 0.4 * 0.25 ** (2 / 3)),
        # Exactly on the margin is not below it.
        ([0.0, -0.002, -0.006], 0.1),
        # Already below at the densest level: between it and the dense network itself.
        ([-0.004, -0.006, -0.009], math.sqrt(0.4)),
    ],
)
def test_crossing_by_hand(mean: list[float], expected: float) -> None:
    assert math.exp(crossing(DENSITIES, mean, MARGIN)) == pytest.approx(expected, rel=1e-9)


def test_a_fit_that_never_crosses() -> None:
    assert crossing(DENSITIES, [0.01, 0.0, -0.002], MARGIN) == -math.inf
    estimate = estimate_crossing(DENSITIES, np.zeros((3, 5)), MARGIN, resamples=50)
    assert (estimate.density, estimate.low, estimate.high, estimate.resamples) == (None, None, None, 50)


def test_the_interval_resamples_families_with_all_their_levels() -> None:
    # Family r is shifted by one amount at every level, so each resample's crossing moves with the mean shift alone.
    shift = np.array([-0.001, 0.0, 0.001])
    difference = np.array([0.0, -0.003, -0.006])[:, None] + shift
    estimate = estimate_crossing(DENSITIES, difference, MARGIN, resamples=4000)
    assert estimate.density is not None
    assert estimate.low is not None
    assert estimate.high is not None
    # One resample in 27 is all of the lowest family: more than 2.5 %, so the ends are the extreme families' crossings.
    assert estimate.high == pytest.approx(math.exp(crossing(DENSITIES, difference[:, 0], MARGIN)))
    assert estimate.low == pytest.approx(math.exp(crossing(DENSITIES, difference[:, 2], MARGIN)))
    assert estimate.low < estimate.density < estimate.high


def test_one_end_may_lie_beyond_the_sparsest_level() -> None:
    difference = np.array([[0.0] * 4, [0.0] * 4, [-0.008, -0.001, -0.001, -0.001]])
    estimate = estimate_crossing(DENSITIES, difference, MARGIN, resamples=500)
    assert estimate.density is not None
    assert estimate.low is None
    assert estimate.high is not None


def test_order_of_families_and_seed() -> None:
    difference = np.random.default_rng(0).normal(-0.002, 0.002, size=(3, 6))
    first = estimate_crossing(DENSITIES, difference, MARGIN, resamples=200, seed=1)
    again = estimate_crossing(DENSITIES, difference[:, ::-1], MARGIN, resamples=200, seed=1)
    assert (first.low, first.high) == pytest.approx((again.low, again.high))


def test_without_an_interval() -> None:
    difference = np.random.default_rng(0).normal(-0.002, 0.002, size=(3, 6))
    for estimate in (
        estimate_crossing(DENSITIES, difference, MARGIN, resamples=0),
        estimate_crossing(DENSITIES, difference[:, :2], MARGIN),
    ):
        assert (estimate.low, estimate.high, estimate.resamples) == (None, None, 0)
