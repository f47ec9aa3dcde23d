"""Tests on paired differences against scipy, by hand, and at their edges."""

import numpy as np
import pytest
import scipy.stats

from tombola.errors import InvalidValue
from tombola.stats import effect_size, equivalence, non_inferiority, sign_flip, superiority, t_test
from tombola.stats.paired import differences

D = np.array([0.0012, -0.0004, 0.0021, 0.0007, -0.0015])
MARGIN = 0.002


def test_non_inferiority_is_scipys_one_sided_t_test() -> None:
    expected = scipy.stats.ttest_1samp(D, -MARGIN, alternative="greater")
    assert non_inferiority(D, MARGIN) == pytest.approx(expected.pvalue, rel=1e-10)
    test = t_test(D, null=-MARGIN)
    assert test.lower == pytest.approx(expected.confidence_interval(0.95).low, rel=1e-10)
    less = scipy.stats.ttest_1samp(D, -MARGIN, alternative="less")
    assert test.p_less == pytest.approx(less.pvalue, rel=1e-10)
    assert test.upper == pytest.approx(less.confidence_interval(0.95).high, rel=1e-10)


def test_superiority_is_paired_and_one_sided() -> None:
    second = np.array([0.95, 0.97, 0.92, 0.96, 0.94])
    expected = scipy.stats.ttest_rel(second + D, second, alternative="greater")
    assert superiority(differences(second + D, second)) == pytest.approx(expected.pvalue, rel=1e-8)


def test_equivalence_is_the_larger_of_two_one_sided_tests() -> None:
    above = scipy.stats.ttest_1samp(D, -MARGIN, alternative="greater").pvalue
    below = scipy.stats.ttest_1samp(D, MARGIN, alternative="less").pvalue
    assert equivalence(D, MARGIN) == pytest.approx(max(above, below), rel=1e-10)


def test_rejecting_is_having_the_lower_limit_above_the_margin() -> None:
    difference = np.random.default_rng(0).normal(-0.0005, 0.0015, size=(2000, 5))
    test = t_test(difference, null=-MARGIN)
    np.testing.assert_array_equal(test.p_greater < 0.05, test.lower > -MARGIN)
    np.testing.assert_array_equal(test.p_less < 0.05, test.upper < -MARGIN)


@pytest.mark.parametrize(("value", "p"), [(-0.001, 0.0), (-0.002, 1.0), (-0.003, 1.0)])
def test_without_spread_the_mean_decides(value: float, p: float) -> None:
    test = t_test(np.full(5, value), null=-MARGIN)
    assert (test.p_greater, test.sd, test.lower, test.upper) == (p, 0.0, value, value)


def test_rounding_errors_are_no_spread() -> None:
    first, second = np.array([0.1, 0.0, 0.5]), np.array([0.3, 0.2, 0.7])
    assert len(set(first - second)) > 1
    test = t_test(differences(first, second), null=-0.2)
    assert (test.sd, test.p_greater, test.p_less) == (0.0, 1.0, 1.0)
    assert (differences(np.full(3, 0.1) * 3, np.full(3, 0.3)) == 0).all()


def test_one_difference_leaves_everything_open_and_none_is_refused() -> None:
    test = t_test([0.01])
    assert (test.lower, test.upper, test.p_greater, test.p_less) == (-np.inf, np.inf, 1.0, 1.0)
    with pytest.raises(InvalidValue, match="at least one replicate"):
        t_test([])


def test_sign_flip_of_three_by_hand() -> None:
    assert sign_flip([1.0, 2.0, 3.0]) == 1 / 8  # Only all-plus reaches 6.
    assert sign_flip([1.0, 2.0, -3.0]) == 5 / 8  # Sums of at least 0: 6, 4, 2, 0 and 0.
    assert sign_flip([1.0, -2.0, 3.0]) == 3 / 8  # Sums of at least 2: 6, 4 and 2.
    assert sign_flip([-1.0, 0.0, 1.0], margin=2.0) == 1 / 8


def test_sign_flip_is_at_least_two_to_the_minus_r() -> None:
    assert [sign_flip(np.full(n, 0.5)) for n in (1, 3, 5, 20)] == [2.0**-1, 2.0**-3, 2.0**-5, 2.0**-20]
    assert sign_flip(np.full(5, -MARGIN), MARGIN) == 1.0


def test_sign_flip_by_sampling_agrees_with_the_exact_one() -> None:
    x = np.random.default_rng(3).normal(0.3, 1.0, size=21)
    sums = np.zeros(1)
    for value in x:
        sums = np.concatenate([sums + value, sums - value])
    exact = float(np.mean(sums >= x.sum() - 1e-9))
    assert sign_flip(x) == pytest.approx(exact, abs=0.005)
    assert sign_flip(x) == sign_flip(x[::-1])
    assert sign_flip(np.full(30, 1.0)) == pytest.approx(1e-5, rel=0.01)


def test_effect_size_is_hedges_corrected() -> None:
    expected = D.mean() / D.std(ddof=1) * (1 - 3 / 15)
    assert effect_size(D) == pytest.approx(expected)
    assert effect_size(np.zeros(5)) is None
    assert effect_size([0.1, 0.2]) is None
