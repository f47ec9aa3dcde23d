"""A study that dies where it is told to: at the n-th call that changes the disk, or after so many seconds."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "study"))

from study_kit import settings

from tombola.study.remembering import Remembering
from tombola.study.running import run
from tombola.study.spec import Spec
from tombola.train.pool import clean_context

PATIENCE = 240
"""Seconds, for what takes a few."""
_CHANGES = ("fsync", "replace", "unlink", "mkdir")


def what(engine: str) -> Spec:
    """Give a study with a rewinding search, for one engine."""
    return Spec(
        "crash",
        {
            "rewound": settings(engine=engine, rewind="step:7", controls=("reinit",)),
            "one-shot": settings(engine=engine, strategy="one-shot", controls=()),
        },
    )


@contextmanager
def here(one: Remembering) -> Iterator[tuple[Any, Callable[[], None], int]]:
    """Train units in this process, keeping those in progress all the time."""
    yield replace(one, every=0.0).train_one, lambda: None, 2


def study(folder: Path, engine: str) -> None:
    """Run the study to its end and write its results."""
    run(what(engine), folder, folder / "store", here).save(folder)


def changes(folder: Path, engine: str) -> int:
    """Count the calls of a whole study that change the disk."""
    counted = clean_context().SimpleQueue()
    assert _ended(_counted, folder, engine, counted) == 0
    return int(counted.get())


def killed_at(folder: Path, engine: str, change: int) -> int | None:
    """Run the study and kill it at a change; give how it ended."""
    return _ended(_dies_at, folder, engine, change)


def killed_after(folder: Path, engine: str, seconds: float) -> int | None:
    """Run the study and kill it after some seconds; give how it ended."""
    return _ended(_dies_after, folder, engine, seconds)


def _ended(target: Callable[..., None], *arguments: Any) -> int | None:
    child = clean_context().Process(target=target, args=arguments)
    child.start()
    child.join(PATIENCE)
    if child.exitcode is None:
        child.kill()
        raise AssertionError(f"{target.__name__} did not end within {PATIENCE} seconds")
    return child.exitcode


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _watched(told: Callable[[], None]) -> None:
    lock = threading.Lock()

    def watching(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            with lock:
                told()
            return function(*given, **named)

        return call

    for name in _CHANGES:
        setattr(os, name, watching(getattr(os, name)))


def _counted(folder: Path, engine: str, counted: Any) -> None:
    calls = [0]
    _watched(lambda: calls.__setitem__(0, calls[0] + 1))
    study(folder, engine)
    counted.put(calls[0])


def _dies_at(folder: Path, engine: str, change: int) -> None:
    left = [change]

    def told() -> None:
        left[0] -= 1
        if left[0] < 0:
            _die()

    _watched(told)
    study(folder, engine)
    os._exit(0)


def _dies_after(folder: Path, engine: str, seconds: float) -> None:
    timer = threading.Timer(seconds, _die)
    timer.daemon = True
    timer.start()
    study(folder, engine)
    os._exit(0)
