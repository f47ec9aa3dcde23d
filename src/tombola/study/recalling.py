"""One search on a store: what is finished is read, and a run that was stopped is gone on with."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, final

from tombola.saying import say
from tombola.search.setup import Setup
from tombola.study import units
from tombola.study.remembering import Order, Remembering
from tombola.study.store import Store
from tombola.study.units import Trained
from tombola.train.plain import PlainTrainer
from tombola.train.pool import Pool
from tombola.train.sparse import SparseTrainer
from tombola.train.watch import Watcher
from tombola.types import RunResult, TrainFn, TrainJob, TrainOutcome

_LOOK_EVERY_SECONDS: Final = 0.2
_SAY_AFTER_SECONDS: Final = 5.0
_NAME: Final = "search"


def trained_with(setup: Setup) -> Trained:
    """Say what the units of a search depend on besides their jobs."""
    about = setup.about
    return Trained(
        network=about["network"],
        data=about["data_fingerprint"],
        recipe=about["recipe_digest"],
        engine=f"{about['engine']} on {about['device'].partition(':')[0]}",
    )


def recalling(setup: Setup, folder: Path) -> Setup:
    """Give the same search, trained through a store.

    Raises:
        StoreError, CannotWrite: the folder cannot be a store.
    """
    store = Store(folder)
    return replace(setup, trainer=partial(_trainer, setup, store))


@contextmanager
def _trainer(setup: Setup, store: Store, watcher: Watcher) -> Iterator[TrainFn]:
    trained = trained_with(setup)
    if setup.alone is not None:
        with through(store, setup.alone, trained, setup.workers, watcher) as train:
            yield train
        return
    with store.in_use(), setup.trainer(watcher) as together:
        yield partial(_all_or_none, store, trained, together, _Waiting(store.folder, watcher))


@contextmanager
def through(
    store: Store, alone: PlainTrainer | SparseTrainer, trained: Trained, workers: int, watcher: Watcher
) -> Iterator[TrainFn]:
    """Give a training routine that reads what a store has, and goes on with what it has in part.

    Args:
        store: of finished runs.
        alone: trains one network by itself.
        trained: what its outcomes depend on besides their jobs.
        workers: processes.
        watcher: told of every evaluation.
    """
    one = Remembering({_NAME: alone}, {_NAME: trained}, store.folder, watcher=watcher)
    with store.in_use(), Pool(one, workers) as pool:
        yield partial(_each, store, trained, pool, _Waiting(store.folder, watcher))


def _each(
    store: Store, trained: Trained, pool: Pool, wait: "_Waiting", jobs: Sequence[TrainJob], /
) -> list[TrainOutcome]:
    """Read what is known and train the rest; what another process is training is waited for."""
    found = {number: units.known(store, units.describe(job, trained)) for number, job in enumerate(jobs)}
    while missing := [number for number, outcome in found.items() if outcome is None]:
        outcomes = pool([Order(_NAME, jobs[number]) for number in missing], missing)
        found.update(zip(missing, outcomes, strict=True))
        if all(outcome is None for outcome in outcomes):
            wait()
    return [outcome for outcome in found.values() if outcome is not None]


def _all_or_none(
    store: Store, trained: Trained, together: TrainFn, wait: "_Waiting", jobs: Sequence[TrainJob], /
) -> list[TrainOutcome]:
    """Train all as one where one is missing: the bits of a stack may depend on what is in it."""
    alone = [units.describe(job, trained) for job in jobs]
    stack = units.key({"stack": [units.key(unit) for unit in alone]})
    each = [{**unit, "stack": stack} for unit in alone]
    while True:
        with store.claim(stack) as mine:
            found = [units.known(store, unit) for unit in each]
            if all(outcome is not None for outcome in found):
                return [outcome for outcome in found if outcome is not None]
            if mine:
                outcomes = together(jobs)
                for job, unit, outcome in zip(jobs, each, outcomes, strict=True):
                    if outcome.result is not RunResult.INTERRUPTED:
                        units.put(store, job, unit, outcome)
                return outcomes
        wait()


@final
class _Waiting:
    """Waits a moment for another process, at each call; says so once when the moments become long."""

    def __init__(self, store: Path, watcher: Watcher) -> None:
        self._store, self._watcher, self._left = store, watcher, round(_SAY_AFTER_SECONDS / _LOOK_EVERY_SECONDS)

    def __call__(self) -> None:
        if self._watcher.stop():
            raise KeyboardInterrupt("the observer asked for it")
        time.sleep(_LOOK_EVERY_SECONDS)
        self._left -= 1
        if self._left == 0:
            say(f"waiting for another process, which trains one of these runs in {self._store}; Ctrl-C stops this one")
