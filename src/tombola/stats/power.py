"""How many replicates a verdict needs, from the noncentral t distribution."""

from __future__ import annotations

import math

from tombola.errors import InvalidValue
from tombola.stats.paired import MIN_REPLICATES

MOST_REPLICATES = 1000


def power_non_inferiority(replicates: int, mean: float, sd: float, margin: float, alpha: float = 0.05) -> float:
    """Return the probability that R replicates show non-inferiority.

    The paired one-sided t test rejects when ``(mean + margin) / (sd / sqrt(R))`` exceeds its quantile; under a true
    mean that statistic follows the noncentral t distribution (Chow, Shao & Wang 2008, chapter 3).

    Args:
        replicates: R.
        mean: true mean difference, ticket minus dense.
        sd: true standard deviation of the differences, in the same units.
        margin: what may be lost, in the same units, at least 0; with 0 this is the power of a superiority test.
        alpha: one-sided level.

    Returns:
        A probability; 0 below three replicates, which are never judged.

    Raises:
        InvalidValue: ``sd`` is negative or not finite.
    """
    from scipy.special import nctdtr, stdtrit

    if not (math.isfinite(sd) and sd >= 0):
        raise InvalidValue(f"the standard deviation is {sd}. Give a finite number of at least 0.")
    if replicates < MIN_REPLICATES:
        return 0.0
    gap = mean + margin
    if sd == 0:
        return float(gap > 0)
    # Beyond 35 standard errors power is 0 or 1 to all digits, and older scipy loses them.
    noncentrality = min(35.0, max(-35.0, gap * math.sqrt(replicates) / sd))
    power = 1.0 - nctdtr(replicates - 1, noncentrality, stdtrit(replicates - 1, 1 - alpha))
    return float(min(1.0, max(0.0, power)))


def required_replicates(
    mean: float, sd: float, margin: float, *, power: float = 0.8, alpha: float = 0.05, cap: int = MOST_REPLICATES
) -> int | None:
    """Return the smallest R, at least 3, that shows non-inferiority with the wanted power.

    Args:
        mean: true mean difference, ticket minus dense.
        sd: true standard deviation of the differences, in the same units.
        margin: what may be lost, in the same units, at least 0.
        power: wanted probability of showing it, in (0, 1).
        alpha: one-sided level.
        cap: the largest R considered.

    Returns:
        R, or ``None`` when even ``cap`` replicates are too few.

    Raises:
        InvalidValue: ``sd`` is negative or not finite, or ``power`` is outside (0, 1).

    Example:
        >>> required_replicates(0.0, 0.15, 0.2)
        6
    """
    if not 0 < power < 1:
        raise InvalidValue(f"the power is {power}. Give a probability between 0 and 1, such as 0.8.")
    if power_non_inferiority(cap, mean, sd, margin, alpha) < power:
        return None
    # Power grows with R for any mean above the margin, so halving finds the smallest.
    low, high = MIN_REPLICATES, cap
    while low < high:
        middle = (low + high) // 2
        if power_non_inferiority(middle, mean, sd, margin, alpha) >= power:
            high = middle
        else:
            low = middle + 1
    return low


def detectable_gap(replicates: int, power: float = 0.9, alpha: float = 0.05) -> float:
    """Return the true gap, in standard deviations of the differences, that R replicates find with the wanted power.

    Args:
        replicates: R, at least 3.
        power: wanted probability of finding it, in (alpha, 1).
        alpha: one-sided level.

    Raises:
        InvalidValue: fewer than three replicates, or a power outside (alpha, 1).
    """
    if replicates < MIN_REPLICATES:
        raise InvalidValue(f"there are {replicates} replicates. No test is made below {MIN_REPLICATES}.")
    if not alpha < power < 1:
        raise InvalidValue(f"the power is {power}. Give a probability between alpha = {alpha} and 1.")
    low, high = 0.0, 20.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        if power_non_inferiority(replicates, middle, 1.0, 0.0, alpha) < power:
            low = middle
        else:
            high = middle
    return high
