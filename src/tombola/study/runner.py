"""Units that are ready go to workers; what died is tried again; equal units are trained once."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, final

from tombola.errors import WorkerDied
from tombola.study import units
from tombola.study.remembering import Order
from tombola.study.store import Store
from tombola.study.units import Trained
from tombola.types import RunResult, TrainFn, TrainJob, TrainOutcome

_TRIES: Final = 3
_LOOK_EVERY_SECONDS: Final = 0.2

Attempt = Callable[[Order, int], TrainOutcome | None]
"""Trains one unit somewhere and waits for it; ``None`` where another process is at it. May raise ``WorkerDied``."""


@final
@dataclass
class _Unit:
    """A unit that somebody waits for."""

    key: str
    order: Order
    number: int
    outcome: "Future[TrainOutcome]"
    tries: int = 0


@final
class Runner:
    """Runs units for any number of searches at once; each search calls it from a thread of its own."""

    def __init__(self, store: Store, attempt: Attempt, workers: int, told: "Told") -> None:
        """Start threads that wait for workers.

        Args:
            store: what is known already.
            attempt: trains one unit.
            workers: how many at once.
            told: is told of every unit.
        """
        self._store, self._attempt, self._told = store, attempt, told
        self._ready: deque[_Unit] = deque()
        self._waited_for: dict[str, _Unit] = {}
        self._change = threading.Condition()
        self._numbers = 0
        self._closed: BaseException | None = None
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def train_for(self, search: str, trained: Trained) -> TrainFn:
        """Give the training routine of a search."""

        def train(jobs: Sequence[TrainJob], /) -> list[TrainOutcome]:
            waiting = [self._ask(Order(search, job), trained) for job in jobs]
            return [outcome.result() for outcome in waiting]

        return train

    def stop(self, why: BaseException | None = None) -> None:
        """Begin nothing more; whoever waits for a unit, or asks for one, gets ``why`` or is interrupted."""
        with self._change:
            self._closed = self._closed or why or KeyboardInterrupt("stopped")
            waiting = list(self._waited_for.values())
            self._change.notify_all()
        for unit in waiting:
            _fail(unit, self._closed)

    def close(self) -> None:
        """Stop, and wait for what is under way."""
        self.stop()
        for thread in self._threads:
            thread.join()

    def _ask(self, order: Order, trained: Trained) -> "Future[TrainOutcome]":
        unit = units.describe(order.job, trained)
        key = units.key(unit)
        with self._change:
            self._check_open()
            if (same := self._waited_for.get(key)) is not None:
                return same.outcome
        known = units.known(self._store, unit)
        if known is not None:
            self._told.found(order)
            at_once: Future[TrainOutcome] = Future()
            at_once.set_result(known)
            return at_once
        with self._change:
            self._check_open()
            if (same := self._waited_for.get(key)) is not None:
                return same.outcome
            new = _Unit(key, order, self._numbers, Future())
            self._numbers += 1
            self._told.waiting(new.number, order)
            self._waited_for[key] = new
            self._ready.append(new)
            self._change.notify()
        return new.outcome

    def _work(self) -> None:
        elsewhere = 0
        while True:
            with self._change:
                while not self._ready and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                unit, left = self._ready.popleft(), len(self._ready)
            try:
                outcome = self._attempt(unit.order, unit.number)
                if outcome is not None and outcome.result is not RunResult.INTERRUPTED:
                    self._told.finished(unit.number, outcome)
            except WorkerDied as error:
                unit.tries += 1
                if unit.tries >= _TRIES:
                    self.stop(error)
                else:
                    self._again(unit)
                continue
            except BaseException as error:
                # A full disk, say: what other units still do would come to the same end.
                self.stop(error)
                continue
            if outcome is None:
                # Another process is at it. The others are tried first, and when all are elsewhere, it is waited.
                self._again(unit)
                elsewhere += 1
                if elsewhere > left:
                    time.sleep(_LOOK_EVERY_SECONDS)
                    elsewhere = 0
                continue
            elsewhere = 0
            if outcome.result is RunResult.INTERRUPTED:
                _fail(unit, KeyboardInterrupt(outcome.sentence))
                continue
            self._end(unit)
            with suppress(InvalidStateError):
                unit.outcome.set_result(outcome)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed

    def _again(self, unit: _Unit) -> None:
        with self._change:
            self._ready.append(unit)
            self._change.notify()

    def _end(self, unit: _Unit) -> None:
        with self._change:
            self._waited_for.pop(unit.key, None)


class Told:
    """Who is told of units; does nothing by itself."""

    def found(self, order: Order) -> None:
        """A unit was in the store."""

    def waiting(self, number: int, order: Order) -> None:
        """A unit is to be trained; ``evaluated`` will call it by its number."""

    def finished(self, number: int, outcome: TrainOutcome) -> None:
        """A unit was trained, or another process has trained it."""


def _fail(unit: _Unit, error: BaseException) -> None:
    # Stopping and the unit's own end may come at once.
    with suppress(InvalidStateError):
        unit.outcome.set_exception(error)
