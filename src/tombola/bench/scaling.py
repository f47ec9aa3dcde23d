"""What independent jobs cost each other: as many jobs on as many cores against one job on one."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Final

from tombola.bench.ladder import EVAL_EVERY
from tombola.bench.report import Row
from tombola.bench.settings import OURS
from tombola.bench.turns import alternate, summary
from tombola.bench.workload import Workload
from tombola.train.pool import Pool
from tombola.train.sparse import SparseTrainer
from tombola.types import Seed, TrainJob

_TRIAL: Final = 50
SECONDS: Final = 1.0
"""What a job is made to last."""

_MOST: Final = 20_000


def counts(cores: int) -> list[int]:
    """Choose the numbers of jobs: one, powers of two, and all cores.

    Example:
        >>> counts(6), counts(2)
        ([1, 2, 4, 6], [1, 2])
    """
    powers = [1 << n for n in range(cores.bit_length()) if 1 << n <= cores]
    return sorted({*powers, cores})


def measure(work: Workload, density: float, *, turns: int, cores: int, seconds: float = SECONDS) -> Iterator[Row]:
    """Time one network at one density; a job lasts about a second, so that starting it does not count for much."""
    masks = work.masks(density)
    trial = SparseTrainer(work.build, work.splits, work.recipe(_TRIAL, EVAL_EVERY))
    one = trial.train_one(work.job(masks, _TRIAL)).seconds / _TRIAL
    iterations = max(_TRIAL, min(_MOST, round(seconds / one)))
    trainer = SparseTrainer(work.build, work.splits, work.recipe(iterations, EVAL_EVERY))
    jobs = [work.job(masks, iterations, Seed(0, replicate)) for replicate in range(cores)]
    numbers = counts(cores)
    with ExitStack() as stack:
        pools = {number: stack.enter_context(Pool(trainer, number)) for number in numbers}
        for number, pool in pools.items():
            # Workers start with their first job, and read the data for it.
            pool(jobs[:number])
        times = alternate({str(n): partial(_wall, pool, jobs[:n], iterations) for n, pool in pools.items()}, turns)
    for number in numbers:
        yield Row.of(
            summary(times[str(number)], times["1"]),
            benchmark="scaling",
            model=work.name,
            rival=OURS["scaling"],
            density=round(work.density(masks), 6),
            batch=work.batch,
            threads=1,
            floor_milliseconds=None,
            turns=turns,
            iterations=iterations,
            jobs=number,
            note="the ratio is the wall time of these jobs over that of one job.",
        )


def _wall(pool: Pool, jobs: list[TrainJob], iterations: int) -> float:
    began = time.perf_counter()
    pool(jobs)
    return (time.perf_counter() - began) / iterations
