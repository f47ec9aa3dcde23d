"""The clock: ways take turns, so that a busy moment hits all of them."""

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

WARM_UP: Final = 1
"""Turns that are made and not counted."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep Python's collector of cycles from running meanwhile."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def alternate(ways: Mapping[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    """Let every way have its turns, every second time in the opposite order.

    Args:
        ways: name -> one turn, which gives the seconds that count.
        turns: how many count; the first one more does not.

    Returns:
        name -> seconds of each turn; entries of one number were measured next to each other.

    Example:
        >>> alternate({"a": lambda: 2.0, "b": lambda: 1.0}, 3)
        {'a': [2.0, 2.0, 2.0], 'b': [1.0, 1.0, 1.0]}
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    with undisturbed():
        for number in range(turns + WARM_UP):
            # Each turn starts with another, so that none is always the one after a cold cache.
            for name in list(ways) if number % 2 else list(ways)[::-1]:
                seconds = ways[name]()
                if number >= WARM_UP:
                    times[name].append(seconds)
    return times


@final
@dataclass(frozen=True)
class Summary:
    """What the turns of one way say, beside ours.

    Attributes:
        milliseconds: the median.
        least_milliseconds: the least.
        spread: interquartile range in milliseconds; ``None`` for fewer than two turns.
        ratio: the median over the turns of this way's time over ours in the same turn.
        ratio_of_least: the ratio of the least times.
    """

    milliseconds: float
    least_milliseconds: float
    spread: float | None
    ratio: float
    ratio_of_least: float


def summary(seconds: Sequence[float], ours: Sequence[float]) -> Summary:
    """Sum up one way's turns.

    Example:
        >>> summary([2.0, 6.0, 4.0], [1.0, 2.0, 2.0])
        Summary(milliseconds=4000.0, least_milliseconds=2000.0, spread=4000.0, ratio=2.0, ratio_of_least=2.0)
    """
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else None
    return Summary(
        milliseconds=round(1e3 * statistics.median(seconds), 4),
        least_milliseconds=round(1e3 * min(seconds), 4),
        spread=None if quartiles is None else round(1e3 * (quartiles[2] - quartiles[0]), 4),
        ratio=round(statistics.median(a / b for a, b in zip(seconds, ours, strict=True)), 4),
        ratio_of_least=round(min(seconds) / min(ours), 4),
    )
