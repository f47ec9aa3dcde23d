"""A search in which no family waits for another: each goes on as soon as its own runs are done."""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import final

from tombola.errors import InvalidValue
from tombola.prune.controls import Control
from tombola.prune.pruner import Pruner
from tombola.search.levels import Family, Level, NobodyLeft, merged, search
from tombola.types import TrainFn


def by_family(
    families: Sequence[Family],
    train: TrainFn,
    pruner: Pruner,
    prunable: Sequence[str],
    *,
    iterations: int,
    levels: int,
    dense_runs: int = 1,
    controls: Mapping[str, Control] | None = None,
    control_levels: Collection[int] = (),
) -> Iterator[Level]:
    """Give the levels of :func:`tombola.search.levels.search`, equal in every bit.

    Args:
        train: may be called from several threads at once; the rest as there.
    """
    one = partial(
        search,
        train=train,
        pruner=pruner,
        prunable=prunable,
        iterations=iterations,
        levels=levels,
        dense_runs=dense_runs,
        controls=controls,
        control_levels=control_levels,
    )
    if not families or levels < 0:
        raise InvalidValue("a search needs at least one family, and no negative number of levels.")
    courses = [_Course(one([family])) for family in families]
    try:
        for _ in range(levels + 1):
            parts = [part for course in courses if (part := course.next()) is not None]
            found = merged(parts)
            if not any(course.goes_on for course in courses):
                raise NobodyLeft(found)
            yield found
    finally:
        for course in courses:
            course.leave()


@final
class _Course:
    """One family's search, in a thread of its own."""

    def __init__(self, levels: Iterator[Level]) -> None:
        self.goes_on = True
        self._levels = levels
        # At most two levels wait, so that a family far ahead does not fill the memory with what nobody reads yet.
        self._found: SimpleQueue[Level | BaseException] = SimpleQueue()
        self._room, self._left = threading.Semaphore(1), False
        threading.Thread(target=self._run, daemon=True).start()

    def next(self) -> Level | None:
        """Give the next level; ``None`` when the family has left."""
        if not self.goes_on:
            return None
        found = self._found.get()
        self._room.release()
        if isinstance(found, NobodyLeft):
            self.goes_on = False
            return found.level
        if isinstance(found, BaseException):
            raise found
        return found

    def leave(self) -> None:
        """Let the thread end at its next level."""
        self._left = True
        self._room.release()

    def _run(self) -> None:
        try:
            for level in self._levels:
                self._found.put(level)
                self._room.acquire()
                if self._left:
                    return
        except BaseException as error:
            self._found.put(error)
