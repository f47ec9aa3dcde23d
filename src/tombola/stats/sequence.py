"""Many tests, one error rate: gates tested in a fixed order, and Holm's correction over controls."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tombola.errors import InvalidValue

GATE_TARGETS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)

# A density typed as a table prints it, with three digits, must be found again; levels lie much further apart.
_SAME_DENSITY = 5e-3


def passed(rejected: ArrayLike) -> NDArray[np.int64]:
    """Count the gates passed in a fixed sequence: go on while the null hypothesis falls, stop at the first that stands.

    Each test may use the full alpha, since a later one is looked at only after every earlier one rejected
    (Maurer, Hothorn & Lehmacher 1995; Westfall & Krishen 2001): the probability of passing any gate whose null
    hypothesis is true is at most alpha.

    Args:
        rejected: bool, shape ``[..., G]``, in the order fixed beforehand.

    Returns:
        Shape ``[...]``, from 0 to G.
    """
    return np.cumprod(np.asarray(rejected, dtype=np.int64), axis=-1).sum(axis=-1)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p values for testing all of them, Holm (1979).

    The k-th smallest of m is multiplied by ``m - k + 1``; none may fall below one that was smaller, and none exceeds 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return tuple(adjusted)


def default_gates(densities: Sequence[float]) -> tuple[float, ...]:
    """Choose the levels nearest, in log density, to 50, 20, 10, 5, 2 and 1 % of the weights.

    A gate at every level would stop at the first unlucky one among many; a handful keeps its power.

    Args:
        densities: of the levels, in any order; a dense level (1) is never a gate.

    Returns:
        Each chosen level once, dense to sparse; of two equally near the denser.

    Raises:
        InvalidValue: no density lies in (0, 1).
    """
    levels = sorted({d for d in densities if 0 < d < 1}, reverse=True)
    if not levels:
        raise InvalidValue(f"none of the densities {list(densities)} lies between 0 and 1. Give the ticket's levels.")
    chosen = {min(levels, key=lambda d: abs(math.log(d / target))) for target in GATE_TARGETS}
    return tuple(sorted(chosen, reverse=True))


def pick_gates(gates: Sequence[float], densities: Sequence[float]) -> tuple[float, ...]:
    """Find each wanted gate among the levels.

    Args:
        gates: densities, in any order.
        densities: of the levels.

    Returns:
        The levels' own densities, each once, dense to sparse.

    Raises:
        InvalidValue: there is no gate, or one is not among the levels.
    """
    if not gates:
        raise InvalidValue("the list of gates is empty. Give at least one of the levels' densities.")
    found = set()
    ascending = sorted(densities)
    order = {density: index for index, density in enumerate(densities)}
    for gate in gates:
        at = bisect_left(ascending, gate)
        # Of two equally near the one that was given first.
        nearest = min(ascending[max(0, at - 1) : at + 1], key=lambda d: (abs(d - gate), order[d]))
        if not abs(nearest - gate) <= _SAME_DENSITY * nearest:
            known = ", ".join(f"{d:.6g}" for d in sorted(densities, reverse=True))
            raise InvalidValue(f"there is no level of density {gate:g} to be a gate. Choose among: {known}.")
        found.add(nearest)
    return tuple(sorted(found, reverse=True))
