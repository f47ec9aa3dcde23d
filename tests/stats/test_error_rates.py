"""The error rates the verdict promises, simulated with the function that judges one study."""

import numpy as np
import pytest

from tombola.stats import equivalence, non_inferiority, passed, power_non_inferiority, superiority, t_test
from tombola.stats.paired import differences

SIMULATIONS = 20_000
ALPHA, MARGIN, SD = 0.05, 0.002, 0.0015


def noise(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("replicates", [3, 5, 10])
def test_a_ticket_worse_by_the_margin_is_called_non_inferior_at_the_nominal_rate(replicates: int) -> None:
    difference = -MARGIN + SD * noise(SIMULATIONS, replicates, seed=replicates)
    assert 0.045 <= np.mean(non_inferiority(difference, MARGIN) < ALPHA) <= 0.055


def test_one_study_and_many_at_once_are_the_same_function() -> None:
    difference = SD * noise(50, 4, 5, seed=1)
    many = t_test(difference, null=-MARGIN)
    for index in np.ndindex(50, 4):
        one = t_test(difference[index], null=-MARGIN)
        for name in ("mean", "sd", "lower", "upper", "p_greater", "p_less"):
            assert getattr(one, name) == pytest.approx(getattr(many, name)[index], rel=1e-12)


def levels_at_the_margin(simulations: int, replicates: int, seed: int) -> np.ndarray:
    """Differences at the margin at six levels, spread rising towards sparse levels, correlated .7 by the dense runs."""
    spread = np.linspace(0.0008, 0.0020, 6)[:, None]
    shared = noise(simulations, 1, replicates, seed=seed)
    own = noise(simulations, 6, replicates, seed=seed + 1)
    return -MARGIN + spread * (np.sqrt(0.7) * shared + np.sqrt(0.3) * own)


@pytest.mark.parametrize("replicates", [3, 5, 8])
def test_spread_that_rises_towards_sparse_levels_inflates_no_level(replicates: int) -> None:
    rejected = non_inferiority(levels_at_the_margin(40_000, replicates, seed=10 + replicates), MARGIN) < ALPHA
    rates = rejected.mean(axis=0)
    assert (rates <= 0.055).all(), rates
    assert (rates >= 0.045).all(), rates


@pytest.mark.parametrize("replicates", [3, 5, 8])
@pytest.mark.parametrize("true_levels", [0, 2, 4])
def test_the_certificate_reaches_too_far_at_most_at_the_nominal_rate(replicates: int, true_levels: int) -> None:
    difference = levels_at_the_margin(SIMULATIONS, replicates, seed=100 * true_levels + replicates)
    difference[:, :true_levels] += 0.02  # Far above the margin; the levels after it lie exactly on it.
    reached = passed(non_inferiority(difference, MARGIN) < ALPHA)
    assert np.mean(reached > true_levels) <= 0.055


@pytest.mark.parametrize("replicates", [3, 5, 8])
def test_two_arms_of_one_recipe_are_called_different_at_the_nominal_rate(replicates: int) -> None:
    family = noise(SIMULATIONS, replicates, seed=20)
    first, second = (family + noise(SIMULATIONS, replicates, seed=seed) for seed in (21, 22))
    assert 0.045 <= np.mean(superiority(differences(first, second)) < ALPHA) <= 0.055


@pytest.mark.parametrize("replicates", [3, 5, 10])
@pytest.mark.parametrize("side", [-1, 1])
def test_arms_that_differ_by_the_margin_are_called_equivalent_at_most_at_the_nominal_rate(
    replicates: int, side: int
) -> None:
    difference = side * MARGIN + 0.0005 * noise(SIMULATIONS, replicates, seed=30 + replicates)
    rate = np.mean(equivalence(difference, MARGIN) < ALPHA)
    assert rate <= 0.055
    assert replicates == 3 or rate >= 0.045  # With a small spread the other side costs nothing.


def test_winning_at_the_certified_level_keeps_its_error_rate_though_data_chose_the_level() -> None:
    """The ticket equals its control; the certified level is the one where tickets were lucky."""
    for gap in (0.0, 0.001, 0.002, 0.003, 0.005):
        dense = 0.0009 * noise(SIMULATIONS, 1, 5, seed=40)
        ticket, control = (0.0015 * noise(SIMULATIONS, 6, 5, seed=seed) for seed in (41, 42))
        count = passed(non_inferiority(ticket - dense + gap - MARGIN, MARGIN) < ALPHA)
        better = superiority(ticket - control) < ALPHA
        chosen = np.take_along_axis(better, np.maximum(count - 1, 0)[:, None], axis=1)[:, 0]
        assert np.mean(chosen & (count > 0)) <= 0.055


@pytest.mark.parametrize(("replicates", "mean"), [(3, 0.0), (5, 0.0), (5, 0.001), (8, -0.001), (20, -0.001)])
def test_power_is_the_rejection_rate(replicates: int, mean: float) -> None:
    difference = mean + SD * noise(40_000, replicates, seed=50)
    rate = np.mean(non_inferiority(difference, MARGIN) < ALPHA)
    assert rate == pytest.approx(power_non_inferiority(replicates, mean, SD, MARGIN), abs=0.01)


@pytest.mark.parametrize(("replicates", "power"), [(5, 0.37), (8, 0.68)])
def test_power_to_beat_two_controls_by_one_sd(replicates: int, power: float) -> None:
    """Holm over two controls whose differences share the ticket's noise, hence correlate by one half."""
    ticket, controls = noise(SIMULATIONS, 1, replicates, seed=60), noise(SIMULATIONS, 2, replicates, seed=61)
    p = np.sort(superiority(1 + (ticket - controls) / np.sqrt(2)), axis=1)
    assert np.mean((p[:, 0] < ALPHA / 2) & (p[:, 1] < ALPHA)) == pytest.approx(power, abs=0.02)
