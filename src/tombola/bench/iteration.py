"""What an iteration costs at each density, for every rival."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import torch

from tombola.bench.equal import losses, reference, why_unlike
from tombola.bench.floor import Machine
from tombola.bench.loop import Masks, Ours, Way
from tombola.bench.report import Row
from tombola.bench.rivals import LeftOut, make
from tombola.bench.settings import OURS
from tombola.bench.turns import alternate, summary
from tombola.bench.workload import Workload

_OURS: Final = OURS["iteration"]
_SECONDS_A_TURN: Final = 0.01
_MOST_A_TURN: Final = 50


def measure(
    work: Workload, density: float, *, rivals: Sequence[str], turns: int, threads: int, machine: Machine
) -> Iterator[Row | LeftOut]:
    """Time one network at one density; what does not compute the plain loop's losses has no time."""
    masks = work.masks(density)
    ways: dict[str, Way] = {}
    for name, way in checked(work, masks, rivals):
        if isinstance(way, str):
            yield LeftOut(name, way, "iteration", work.name, density)
        else:
            ways[name] = way
    lengths = {name: _length(way, work) for name, way in ways.items()}
    times = alternate({name: timed(way, work, lengths[name]) for name, way in ways.items()}, turns)
    floor = 1e3 * machine.iteration(work.kept(masks), work.batch, work.features)
    for name, seconds in times.items():
        yield Row.of(
            summary(seconds, times[_OURS]),
            benchmark="iteration",
            model=work.name,
            rival=name,
            density=round(work.density(masks), 6),
            batch=work.batch,
            threads=1 if name == _OURS else threads,
            floor_milliseconds=round(floor, 4),
            turns=turns,
            iterations=lengths[name],
        )


def checked(work: Workload, masks: Masks, rivals: Sequence[str]) -> Iterator[tuple[str, Way | str]]:
    """Make ours and the rivals, and say of each that does not compute the plain loop's losses that it does not.

    Raises:
        AssertionError: the sparse engine itself does not.
    """
    expected = reference(work, masks)
    makers: dict[str, Callable[[], Way | str]] = {_OURS: partial(Ours, work, masks)}
    makers |= {name: partial(make, name, work, masks) for name in rivals}
    for name, maker in makers.items():
        way = maker()
        if not isinstance(way, str):
            why = why_unlike(losses(way, work), expected)
            assert why is None or name != _OURS, f"the sparse engine: {why}"
            way = way if why is None else why
        yield name, way


def timed(way: Way, work: Workload, length: int) -> Callable[[], float]:
    """Make a turn of so many iterations, which gives the seconds of one."""
    return partial(_turn, way, work, length)


def _length(way: Way, work: Workload) -> int:
    """Choose the iterations of a turn: few of a slow way, so that turns lie close together."""
    seconds = min(_turn(way, work, 1) for _ in range(3))
    return max(1, min(_MOST_A_TURN, round(_SECONDS_A_TURN / seconds)))


def _turn(way: Way, work: Workload, length: int) -> float:
    """Give the seconds of an iteration, but for the first one, which finds the caches full of another way's data."""
    order = torch.randint(len(work.split.train_y), (length + 1, work.batch))
    way.train(order[:1])
    began = time.perf_counter()
    way.train(order[1:])
    return (time.perf_counter() - began) / length
