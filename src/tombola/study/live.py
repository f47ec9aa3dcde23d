"""What is seen while a study runs: a bar on a terminal, lines elsewhere; always on standard error."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tombola.saying import say
from tombola.search.setup import Setup
from tombola.study.remembering import Order
from tombola.study.running import Observer
from tombola.study.spec import Spec
from tombola.types import TrainOutcome

_EVERY_SECONDS = 15.0


@contextmanager
def watching() -> Iterator[Observer]:
    """Give an observer that shows progress in the way that fits where standard error goes."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Shown(None)
        return
    columns = ("[progress.description]{task.description}", "{task.fields[units]}")
    bar = Progress(
        TextColumn(columns[0]),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(columns[1]),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        yield _Shown(bar)


@final
class _Shown(Observer):
    """How far the study is, in iterations; units that are shared count once for each search."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._lock = threading.Lock()
        self._steps: dict[int, tuple[int, int]] = {}
        self._ended = self._total = self._read = self._trained = 0
        self._began = self._said = time.monotonic()
        self._task = None if bar is None else bar.add_task("preparing", total=None, units="")

    def planned(self, spec: Spec, setups: Mapping[str, Setup]) -> None:
        self._total = sum(setup.total_iterations() for setup in setups.values())
        self._began = time.monotonic()
        for name, setup in setups.items():
            self._say(f"{name}: {setup.title}, {setup.engine}")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=spec.name, total=self._total)

    def found(self, order: Order) -> None:
        with self._lock:
            self._read += 1
            self._ended += order.job.stop - order.job.start.step
        self._show()

    def waiting(self, number: int, order: Order) -> None:
        with self._lock:
            self._steps[number] = order.job.start.step, order.job.start.step

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:  # noqa: ARG002
        with self._lock:
            first, _ = self._steps.get(job, (step, step))
            self._steps[job] = first, step
        self._show()

    def finished(self, number: int, outcome: TrainOutcome) -> None:
        with self._lock:
            self._trained += 1
            first, _ = self._steps.pop(number, (0, 0))
            self._ended += outcome.end.step - first
        self._show()

    def _show(self) -> None:
        with self._lock:
            done = self._ended + sum(step - first for first, step in self._steps.values())
            units = f"{self._trained} units trained, {self._read} read"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, units=units)
            return
        now = time.monotonic()
        if now - self._said >= _EVERY_SECONDS and done:
            self._said = now
            left = (now - self._began) * max(0, self._total - done) / done
            self._say(f"{100 * done / max(1, self._total):.0f} % of the iterations, {units}; about {left:.0f} s left")

    def _say(self, text: str) -> None:
        if self._bar is None:
            say(text)
