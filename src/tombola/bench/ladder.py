"""What the paper's whole ladder costs: twenty levels, each a slice of training with its evaluations."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, final

from tombola.bench.equal import batches
from tombola.bench.floor import Machine
from tombola.bench.iteration import checked
from tombola.bench.loop import Masks, Way
from tombola.bench.report import Row
from tombola.bench.rivals import LeftOut, make
from tombola.bench.settings import OURS
from tombola.bench.turns import alternate, summary
from tombola.bench.workload import Workload
from tombola.train.plain import PlainTrainer
from tombola.train.sparse import SparseTrainer

LEVELS: Final = 20
"""Densities 0.8 ** k for k from 0 to 19, but that the output layer is pruned at half the rate."""

EVAL_EVERY: Final = 100

_OURS: Final = OURS["ladder"]
_TRAINERS: Final[dict[str, Any]] = {_OURS: SparseTrainer, "eager": PlainTrainer}


@final
@dataclass
class _Times:
    """Turns of one way, over the levels: seconds of a slice, and what came before them."""

    seconds: list[list[float]] = field(default_factory=list)
    setup: list[float] = field(default_factory=list)


def measure(
    work: Workload,
    *,
    rivals: Sequence[str],
    turns: int,
    iterations: int,
    machine: Machine,
    levels: int = LEVELS,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Row | LeftOut]:
    """Time every level, a row each; then the sum of all of them, a row for each way that took part in all.

    ``sparse`` and ``eager`` are the trainers themselves, from the first iteration to the last evaluation; the others
    are loops that do the same iterations and evaluations and keep no snapshots.
    """
    totals: dict[str, _Times] = {}
    floors = []
    about = {"benchmark": "ladder", "model": work.name, "batch": work.batch, "threads": 1, "turns": turns}
    for level in range(levels):
        masks = work.ladder(level)
        able = set()
        for name, found in _checked(work, masks, rivals):
            if isinstance(found, str):
                yield LeftOut(name, found, "ladder", work.name, round(work.density(masks), 6))
            else:
                able.add(name)
        names = [name for name in (_OURS, *rivals) if name in able]
        setup: dict[str, list[float]] = {name: [] for name in names}
        slices = {name: partial(_slice, name, work, masks, iterations, setup[name]) for name in names}
        times = alternate(slices, turns)
        floors.append(iterations * _floor(work, masks, iterations, machine))
        for name, seconds in times.items():
            one, ours = ([s / iterations for s in way] for way in (seconds, times[_OURS]))
            spent = totals.setdefault(name, _Times())
            spent.seconds.append(seconds)
            spent.setup.append(statistics.median(setup[name]))
            yield Row.of(
                summary(one, ours),
                rival=name,
                density=round(work.density(masks), 6),
                floor_milliseconds=round(1e3 * floors[-1] / iterations, 4),
                iterations=iterations,
                level=level,
                setup_milliseconds=round(1e3 * spent.setup[-1], 2),
                **about,
            )
        say(f"ladder {work.name}: level {level} of {levels - 1}")
    ours = _sums(totals[_OURS])
    for name, spent in totals.items():
        if len(spent.seconds) == levels:
            yield Row.of(
                summary(_sums(spent), ours),
                rival=name,
                density=None,
                floor_milliseconds=round(1e3 * sum(floors), 4),
                iterations=iterations * levels,
                setup_milliseconds=round(1e3 * sum(spent.setup), 2),
                note=f"all {levels} levels together: the time of all their iterations, not of one.",
                **about,
            )


def _sums(times: _Times) -> list[float]:
    """Add up the levels, turn by turn."""
    return [sum(turn) for turn in zip(*times.seconds, strict=True)]


def _checked(work: Workload, masks: Masks, rivals: Sequence[str]) -> Iterator[tuple[str, Way | str]]:
    yield from checked(work, masks, [name for name in rivals if name not in _TRAINERS])
    if "eager" in rivals:
        # It is the reference itself.
        yield "eager", make("eager", work, masks)


def _slice(name: str, work: Workload, masks: Masks, iterations: int, setup: list[float]) -> float:
    """Train one level; give the seconds of its iterations and evaluations, and note those before them."""
    began = time.perf_counter()
    if name in _TRAINERS:
        trainer = _TRAINERS[name](work.build, work.splits, work.recipe(iterations, EVAL_EVERY))
        inside = trainer.train_one(work.job(masks, iterations)).seconds
    else:
        way = make(name, work, masks)
        assert not isinstance(way, str)
        inside = _loop(way, work, iterations)
    setup.append(time.perf_counter() - began - inside)
    return float(inside)


def _loop(way: Way, work: Workload, iterations: int) -> float:
    grid = min(EVAL_EVERY, iterations)
    began = time.perf_counter()
    for step, batch in enumerate(batches(work, iterations), start=1):
        way.train(batch[None])
        if step % grid == 0 or step == iterations:
            way.evaluate(work.split.val_x, work.split.val_y)
    return time.perf_counter() - began


def _floor(work: Workload, masks: Masks, iterations: int, machine: Machine) -> float:
    kept, examples = work.kept(masks), len(work.split.val_y)
    evaluations = -(-iterations // min(EVAL_EVERY, iterations))
    return machine.iteration(kept, work.batch, work.features) + evaluations / iterations * machine.evaluation(
        kept, examples, work.features
    )
