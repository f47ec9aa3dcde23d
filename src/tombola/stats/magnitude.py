"""Scores of any size on one footing, so that what is rounding in one is rounding in all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from tombola.stats.paired import Floats
from tombola.stats.results import Results
from tombola.stats.scale import Scale

# Squares of larger numbers overflow. A score so far from the others is a run that blew up without saying so; how far
# makes no difference to any test.
_FAR = 1e140


def magnitude(results: Results, margin: float, scale: Scale) -> float:
    """Return the power of two by which the tests divide scores and margin.

    They take differences below 1e-12 for rounding, which suits accuracies and is everything to a score of 1e-15 and
    nothing to one of -1e6. Dividing by a power of two is exact, so the tests say the same whatever the unit.

    Args:
        results: a study; NaN counts for nothing.
        margin: checked.
        scale: of the scores.

    Returns:
        1 for accuracies; for another score the power of two at or below the median absolute score, or the margin where
        that is larger. The median, since a single run that blew up must not make the rest look like rounding.
    """
    if scale.is_accuracy:
        return 1.0
    sizes = [abs(value) for value in _scores(results) if value and math.isfinite(value)]
    typical = max(float(np.median(sizes)) if sizes else 0.0, margin)
    # The ends keep both the power and one over it finite.
    return 2.0 ** min(1000, max(-1000, math.frexp(typical)[1] - 1)) if typical else 1.0


def divided(values: Sequence[float], unit: float) -> Floats:
    """Divide by a power of two."""
    with np.errstate(over="ignore"):
        return np.clip(np.array(values, dtype=np.float64) / unit, -_FAR, _FAR)


def _scores(results: Results) -> Iterable[float]:
    for runs in (*results.dense, *(runs for level in results.levels for runs in level.arms.values())):
        for run in runs:
            if run is not None:
                yield run.test_accuracy
                if run.test_accuracy_at_early_stop is not None:
                    yield run.test_accuracy_at_early_stop
