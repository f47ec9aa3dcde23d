"""The early-stop iteration: the minimum of validation loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from tombola.errors import InvalidValue


def early_stop(steps: Sequence[int], loss: Sequence[float]) -> tuple[int | None, bool]:
    """Find the iteration of minimum validation loss, the paper's proxy for how fast a network learns.

    Frankle & Carbin (2019), section 2. Of equal minima the earliest counts. A minimum at the last evaluation is
    censored: training was too short to see the true one.

    Args:
        steps: positions evaluated, increasing, in iterations.
        loss: validation loss at each.

    Returns:
        The iteration and whether it is censored; ``(None, False)`` without an evaluation or when any loss is not
        finite, since a run that diverged has no minimum worth the name.

    Raises:
        InvalidValue: the two have different lengths, or the steps do not increase.

    Example:
        >>> early_stop([100, 200, 300], [0.5, 0.2, 0.2])
        (200, False)
    """
    if len(steps) != len(loss):
        raise InvalidValue(f"there are {len(steps)} steps and {len(loss)} losses. Give one loss for each evaluation.")
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise InvalidValue("the evaluated steps do not increase. Give them in the order of training.")
    if not steps or not all(math.isfinite(value) for value in loss):
        return None, False
    best = min(range(len(loss)), key=lambda index: loss[index])
    return int(steps[best]), best == len(loss) - 1
