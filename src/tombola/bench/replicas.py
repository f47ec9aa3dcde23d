"""What a stack of replicates costs: against the same networks one after another, and against JAX's ``vmap``."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import torch

from tombola.bench.equal import ITERATIONS, examples, orders, reference, watched, why_unlike
from tombola.bench.floor import Machine
from tombola.bench.loop import Masks
from tombola.bench.report import Row
from tombola.bench.rivals import LeftOut
from tombola.bench.rivals_jax import Vmapped
from tombola.bench.settings import OURS
from tombola.bench.turns import alternate, summary
from tombola.bench.workload import Workload
from tombola.train.plain import PlainTrainer
from tombola.train.replicas import ReplicaTrainer
from tombola.types import Seed, TrainFn, TrainJob

REPLICATES: Final = 8
ITERATIONS_A_TURN: Final = 50

_OURS: Final = OURS["replicas"]
_EXAMPLES: Final = 988, 60
_BUSY: Final = 1.1


def measure(
    work: Workload, density: float, *, rivals: Sequence[str], turns: int, machine: Machine
) -> Iterator[Row | LeftOut]:
    """Time eight networks, each under masks of its own start values and with a data order of its own.

    Validation and test parts are small, and the trainers look at them once: what is timed is training.
    """
    work = work.cut(*_EXAMPLES)
    seeds = [Seed(0, replicate) for replicate in range(REPLICATES)]
    masks = [work.masks(density, seed) for seed in seeds]
    turn, notes, why = ITERATIONS_A_TURN, {_OURS: "one stack"}, {}
    jobs = [work.job(found, turn, seed) for found, seed in zip(masks, seeds, strict=True)]
    recipe = work.recipe(turn, turn)
    stack = ReplicaTrainer(work.build, work.splits, recipe, at_once=REPLICATES)
    ways: dict[str, Callable[[], float]] = {_OURS: partial(_seconds, stack, jobs)}
    expected = [reference(work, found, seed) for found, seed in zip(masks, seeds, strict=True)]
    unlike = _unlike(_stacked(work, masks, seeds), expected)
    assert unlike is None, f"the stack: {unlike}"
    if "eager" in rivals:
        ways["eager"] = partial(_seconds, PlainTrainer(work.build, work.splits, recipe), jobs)
        notes["eager"] = "the plain trainer, one network after another"
    if "jax" in rivals:
        mapped = Vmapped(work, masks, seeds)
        why["jax"] = _unlike(_mapped(mapped, work, seeds), expected)
        order = torch.stack([orders(work, turn, seed) for seed in seeds], dim=1)
        mapped.choose(order)
        ways["jax"] = partial(_train, mapped, order)
        notes["jax"] = f"vmap; {mapped.note}{_threads(mapped, order)}"
    for name, sentence in why.items():
        if sentence is not None:
            yield LeftOut(name, sentence, "replicas", work.name, density)
            del ways[name]
    times = alternate(ways, turns)
    floor = sum(1e3 * machine.iteration(work.kept(found), work.batch, work.features) for found in masks)
    for name, seconds in times.items():
        yield Row.of(
            summary([s / turn for s in seconds], [s / turn for s in times[_OURS]]),
            benchmark="replicas",
            model=work.name,
            rival=name,
            density=round(work.density(masks[0]), 6),
            batch=work.batch,
            threads=1,
            floor_milliseconds=round(floor, 4),
            turns=turns,
            iterations=turn,
            replicates=REPLICATES,
            note=f"{notes[name]}; on the first {len(work.split.train_y)} examples.",
        )


def _seconds(trainer: TrainFn, jobs: Sequence[TrainJob]) -> float:
    return sum(outcome.seconds for outcome in trainer(jobs))


def _train(mapped: Vmapped, order: torch.Tensor) -> float:
    began = time.perf_counter()
    mapped.train(order)
    return time.perf_counter() - began


def _threads(mapped: Vmapped, order: torch.Tensor) -> str:
    """Say how many cores it kept busy, where it was more than one."""
    cpu, wall = time.process_time(), time.perf_counter()
    mapped.train(order)
    busy = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return f", and it kept {busy:.1f} cores busy" if busy > _BUSY else ""


def _stacked(work: Workload, masks: Sequence[Masks], seeds: Sequence[Seed]) -> list[list[float]]:
    jobs = [work.job(found, ITERATIONS, seed) for found, seed in zip(masks, seeds, strict=True)]
    trainer = ReplicaTrainer(work.build, watched(work), work.recipe(ITERATIONS, 1), at_once=len(jobs))
    return [list(outcome.curve.loss) for outcome in trainer(jobs)]


def _mapped(mapped: Vmapped, work: Workload, seeds: Sequence[Seed]) -> list[list[float]]:
    """Give each replicate's losses over the first iterations."""
    order = torch.stack([orders(work, ITERATIONS, seed) for seed in seeds], dim=1)
    found = []
    for step in order:
        mapped.train(step[None])
        found.append(mapped.losses(*examples(work)))
    return [list(curve) for curve in zip(*found, strict=True)]


def _unlike(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> str | None:
    return next((why for one, other in zip(found, expected, strict=True) if (why := why_unlike(one, other))), None)
