"""Power against published tables of the noncentral t, and its consistency."""

import pytest

from tombola.errors import InvalidValue
from tombola.stats import detectable_gap, power_non_inferiority, required_replicates

RATIOS = [0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3]


@pytest.mark.parametrize(
    ("power", "alpha", "mean", "expected"),
    [
        (0.8, 0.05, 0.0, [27, 13, 8, 6, 5, 4, 3, 3]),
        (0.9, 0.05, 0.0, [36, 17, 11, 8, 6, 4, 4, 3]),
        (0.9, 0.01, 0.0, [55, 26, 16, 12, 9, 7, 6, 5]),
        (0.9, 0.05, -0.5, [139, 63, 36, 24, 17, 11, 8, 6]),
    ],
)
def test_required_replicates_by_margin_over_sd(power: float, alpha: float, mean: float, expected: list[int]) -> None:
    found = [required_replicates(mean * r, 1.0, r, power=power, alpha=alpha) for r in RATIOS]
    assert found == expected


@pytest.mark.parametrize(("replicates", "gap"), [(3, 2.78), (5, 1.61), (8, 1.15), (10, 1.005), (20, 0.68)])
def test_detectable_gap_in_sd(replicates: int, gap: float) -> None:
    assert detectable_gap(replicates) == pytest.approx(gap, abs=0.006)
    assert power_non_inferiority(replicates, detectable_gap(replicates), 1.0, 0.0) == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize("mean", [-0.0015, 0.0, 0.003])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_required_replicates_is_the_first_with_the_power(mean: float, power: float) -> None:
    needed = required_replicates(mean, 0.002, 0.002, power=power)
    assert needed is not None
    assert power_non_inferiority(needed, mean, 0.002, 0.002) >= power
    assert needed == 3 or power_non_inferiority(needed - 1, mean, 0.002, 0.002) < power


def test_nothing_shows_what_is_not_so() -> None:
    assert required_replicates(-0.003, 0.001, 0.002) is None
    assert required_replicates(-0.002, 0.001, 0.002) is None
    assert required_replicates(-0.00199, 0.01, 0.002) is None
    assert power_non_inferiority(5, -0.002, 0.001, 0.002) == pytest.approx(0.05)


def test_edges() -> None:
    assert power_non_inferiority(2, 1.0, 0.001, 0.0) == 0.0
    assert [power_non_inferiority(5, m, 0.0, 0.002) for m in (-0.001, -0.002, -0.003)] == [1.0, 0.0, 0.0]
    assert power_non_inferiority(5, 1.0, 1e-9, 0.0) == 1.0
    assert power_non_inferiority(5, -1.0, 1e-9, 0.0) == 0.0
    assert required_replicates(0.0, 0.0, 0.002) == 3


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidValue, match="standard deviation is -1"):
        power_non_inferiority(5, 0.0, -1.0, 0.1)
    with pytest.raises(InvalidValue, match="power is 1"):
        required_replicates(0.0, 1.0, 1.0, power=1)
    with pytest.raises(InvalidValue, match="No test is made below 3"):
        detectable_gap(2)
    with pytest.raises(InvalidValue, match="between alpha"):
        detectable_gap(5, power=0.05)
