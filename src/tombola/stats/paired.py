"""Tests on paired differences: non-inferiority, superiority, equivalence, and the exact sign flip.

Everything but the sign flip works on arrays ``[..., R]`` of R replicates along the last axis, so that the function that
judges one study is the one whose error rates the tests simulate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tombola.errors import InvalidValue

Floats: TypeAlias = NDArray[np.float64]

MIN_REPLICATES = 3
"""Below it no test decides: two differences say nothing about their spread, and a t quantile of 6.3 hides it."""

TOLERANCE = 1e-12
"""Differences of accuracies are multiples of one over the number of test images; anything smaller is rounding.
Other scores are brought to this size first."""

_EXACT_UP_TO = 20
_SAMPLES = 100_000


@dataclass(frozen=True)
class TTest:
    """One-sample t tests of differences, one per leading index, shape ``[...]`` each.

    Attributes:
        mean: of the differences.
        sd: with R - 1 in the denominator; NaN for one replicate.
        lower: one-sided 1 - alpha limit from below.
        upper: one-sided 1 - alpha limit from above.
        p_greater: of the null hypothesis that the true mean is at most ``null``.
        p_less: of the null hypothesis that the true mean is at least ``null``.
    """

    mean: Floats
    sd: Floats
    lower: Floats
    upper: Floats
    p_greater: Floats
    p_less: Floats


def differences(first: ArrayLike, second: ArrayLike) -> Floats:
    """Subtract pair by pair, with rounding errors set to exactly 0; shapes ``[..., R]``."""
    gap = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return np.where(np.abs(gap) < TOLERANCE, 0.0, gap)


def t_test(difference: ArrayLike, *, null: float = 0.0, alpha: float = 0.05) -> TTest:
    """Test paired differences against ``null`` with Student's t, in both directions.

    Differences that are all equal have no spread to test with; then the mean decides alone and p is 0 or 1. One
    difference leaves everything open: p is 1 and the limits are infinite.

    Args:
        difference: shape ``[..., R]``.
        null: the value tested, in the units of the differences.
        alpha: level of the one-sided limits.

    Raises:
        InvalidValue: there is no replicate.
    """
    from scipy.special import stdtr, stdtrit

    x = np.asarray(difference, dtype=np.float64)
    n = x.shape[-1] if x.ndim else 0
    if n == 0:
        raise InvalidValue("there is no difference to test. Give at least one replicate.")
    mean = x.mean(axis=-1)
    if n == 1:
        one, infinite = np.ones_like(mean), np.full_like(mean, np.inf)
        return TTest(mean, np.full_like(mean, np.nan), -infinite, infinite, one, one)
    sd = x.std(axis=-1, ddof=1)
    sd = np.where(sd < TOLERANCE, 0.0, sd)
    error = sd / np.sqrt(n)
    gap = np.where(np.abs(mean - null) < TOLERANCE, 0.0, mean - null)
    t = gap / np.where(sd > 0, error, 1.0)
    half = stdtrit(n - 1, 1 - alpha) * error
    return TTest(
        mean=mean,
        sd=sd,
        lower=mean - half,
        upper=mean + half,
        p_greater=np.where(sd > 0, stdtr(n - 1, -t), np.where(gap > 0, 0.0, 1.0)),
        p_less=np.where(sd > 0, stdtr(n - 1, t), np.where(gap < 0, 0.0, 1.0)),
    )


def non_inferiority(difference: ArrayLike, margin: float) -> Floats:
    """Return p, shape ``[...]``, of the null hypothesis that the true mean difference is at most ``-margin``.

    Rejecting it shows that the first arm is worse by less than the margin, if worse at all. With ``margin=0`` this is
    a test of superiority, which an equally good arm passes with probability alpha only.
    """
    return t_test(difference, null=-margin).p_greater


def superiority(difference: ArrayLike) -> Floats:
    """Return p, shape ``[...]``, of the null hypothesis that the first arm is on average not better."""
    return t_test(difference).p_greater


def equivalence(difference: ArrayLike, margin: float) -> Floats:
    """Return p, shape ``[...]``, of the null hypothesis that the arms differ by at least the margin, either way.

    Two one-sided tests, Schuirmann (1987): the larger p of the two.
    """
    below = t_test(difference, null=-margin).p_greater
    above = t_test(difference, null=margin).p_less
    return np.maximum(below, above)


def sign_flip(difference: ArrayLike, margin: float = 0.0, *, seed: int = 0) -> float:
    """Return the p of non-inferiority that assumes only that differences scatter symmetrically.

    Fisher's randomisation test, in Pitman's (1937) form: under the null hypothesis each ``D_r + margin`` could as well
    have had the other sign. All 2^R signs up to R = 20, so p is exact and at least 2^-R; 100,000 random ones beyond,
    with the observed signs counted among them.

    Args:
        difference: shape ``[R]``.
        margin: in the units of the differences; 0 tests superiority.
        seed: of the random signs.
    """
    x = differences(np.sort(np.asarray(difference, dtype=np.float64)), -margin)
    tolerance = TOLERANCE * x.size
    if x.size <= _EXACT_UP_TO:
        sums = np.zeros(1)
        for value in x:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(sums >= x.sum() - tolerance))
    rng = np.random.default_rng(seed)
    hits, block = 0, max(1, 2_000_000 // x.size)
    for start in range(0, _SAMPLES, block):
        signs = rng.integers(0, 2, size=(min(block, _SAMPLES - start), x.size)) * 2 - 1
        hits += int(np.sum(signs @ x >= x.sum() - tolerance))
    return (hits + 1) / (_SAMPLES + 1)


def effect_size(difference: ArrayLike) -> float | None:
    """Return Hedges' g_z, the mean difference in units of its standard deviation, corrected for small R.

    Hedges (1981), with the correction 1 - 3 / (4 (R - 1) - 1). ``None`` below three replicates or without spread.
    """
    test = t_test(difference)
    n = np.asarray(difference).shape[-1]
    if n < MIN_REPLICATES or test.sd == 0:
        return None
    return float(test.mean / test.sd) * (1 - 3 / (4 * (n - 1) - 1))
