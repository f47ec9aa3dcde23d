"""The minimum of validation loss."""

import math

import pytest

from tombola.errors import InvalidValue
from tombola.stats import early_stop

STEPS = [100, 200, 300, 400]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ([0.5, 0.2, 0.3, 0.4], (200, False)),
        ([0.5, 0.2, 0.2, 0.4], (200, False)),
        ([0.2, 0.2, 0.2, 0.2], (100, False)),
        ([0.5, 0.4, 0.3, 0.2], (400, True)),
        ([0.5, 0.2, 0.3, 0.2], (200, False)),
        ([0.1, 0.2, math.nan, 0.4], (None, False)),
        ([0.1, 0.2, 0.3, math.inf], (None, False)),
        ([-math.inf, 0.2, 0.3, 0.1], (None, False)),
    ],
)
def test_the_earliest_minimum(loss: list[float], expected: tuple[int | None, bool]) -> None:
    assert early_stop(STEPS, loss) == expected


def test_short_curves() -> None:
    assert early_stop([], []) == (None, False)
    assert early_stop([100], [0.3]) == (100, True)


def test_wrong_calls() -> None:
    with pytest.raises(InvalidValue, match="2 steps and 1 losses"):
        early_stop([1, 2], [0.1])
    with pytest.raises(InvalidValue, match="do not increase"):
        early_stop([2, 2], [0.1, 0.2])
