"""Where the ticket starts to lose more than the margin: an estimate beside the certificate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tombola.stats.paired import MIN_REPLICATES, TOLERANCE, Floats


@dataclass(frozen=True)
class Estimate:
    """The density at which the mean difference crosses ``-margin``; not a guarantee, unlike a certificate.

    Attributes:
        density: the estimate; ``None`` when it is sparser than the sparsest level.
        low: sparse end of the interval; ``None`` when sparser than the sparsest level, or without an interval.
        high: dense end of the interval; ``None`` likewise.
        confidence: of the interval, such as 0.95.
        resamples: behind the interval; 0 when there is none.
    """

    density: float | None
    low: float | None
    high: float | None
    confidence: float
    resamples: int


def crossing(densities: Sequence[float], mean: ArrayLike, margin: float) -> float:
    """Return the log density at which the isotonic fit of the mean difference crosses ``-margin``.

    The fit does not increase as density falls (pool adjacent violators; Robertson, Wright & Dykstra 1988, chapter 1);
    between levels it is linear in log density. The dense network itself, density 1 and difference 0, stands before
    the densest level.

    Args:
        densities: dense to sparse, in (0, 1).
        mean: mean difference at each, shape ``[L]``.
        margin: at least 0, in the same units.

    Returns:
        A natural logarithm, ``-inf`` when the fit never crosses.
    """
    from scipy.optimize import isotonic_regression

    fit = np.asarray(isotonic_regression(np.asarray(mean, dtype=np.float64), increasing=False).x)
    below = np.flatnonzero(fit < -margin - TOLERANCE)
    if below.size == 0:
        return -math.inf
    index = int(below[0])
    here, value = math.log(densities[index]), float(fit[index])
    before, previous = (math.log(densities[index - 1]), float(fit[index - 1])) if index else (0.0, 0.0)
    return before + (here - before) * (previous + margin) / (previous - value)


def estimate_crossing(
    densities: Sequence[float],
    difference: Floats,
    margin: float,
    *,
    alpha: float = 0.05,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Estimate the crossing density with a percentile bootstrap over families (Efron & Tibshirani 1993, chapter 13).

    A family is drawn with all its levels, since they share the family's dense runs.

    Args:
        densities: dense to sparse, in (0, 1), L of them.
        difference: ticket minus dense, shape ``[L, R]``.
        margin: at least 0.
        alpha: the interval covers 1 - alpha.
        resamples: of the bootstrap; 0 leaves the interval out, as do fewer than three replicates.
        seed: of the resampling.
    """
    log_density = crossing(densities, difference.mean(axis=1), margin)
    count = difference.shape[1]
    if count < MIN_REPLICATES or resamples < 1:
        return Estimate(_density(log_density), None, None, 1 - alpha, 0)
    # One order whatever order the families come in, so that the interval does not depend on it.
    families = difference.T[np.lexsort(difference)]
    rng = np.random.default_rng(seed)
    draws = np.sort(
        [crossing(densities, families[rng.integers(count, size=count)].mean(axis=0), margin) for _ in range(resamples)]
    )
    # Order statistics, never interpolated: one neighbour may be -inf.
    low = float(draws[math.floor(alpha / 2 * (resamples - 1))])
    high = float(draws[math.ceil((1 - alpha / 2) * (resamples - 1))])
    return Estimate(_density(log_density), _density(low), _density(high), 1 - alpha, resamples)


def _density(log_density: float) -> float | None:
    return math.exp(log_density) if math.isfinite(log_density) else None
