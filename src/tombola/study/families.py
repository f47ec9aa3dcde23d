"""A search in which no family waits for another: each goes on as soon as its own runs are done."""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import final

from tombola.errors import InvalidValue
from tombola.prune.controls import Control
from tombola.prune.pruner import Pruner
from tombola.search.course import Course
from tombola.search.levels import Family, Level, NobodyLeft, merged, search
from tombola.search.rounds import Rounds
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
    course: Course | None = None,
    rounds: Rounds | None = None,
) -> Iterator[Level]:
    """Give the levels of :func:`tombola.search.levels.search`, equal in every bit.

    Args:
        train: may be called from several threads at once; the rest as there. Under a course that looks at all families
            together, none goes ahead.
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
        course=course,
        rounds=rounds,
    )
    if not families or levels < 0:
        raise InvalidValue("a search needs at least one family, and no negative number of levels.")
    if course is not None and course.joint:
        yield from one(families)
        return
    ways = [_Way(one([family])) for family in families]
    try:
        while parts := [part for way in ways if (part := way.next()) is not None]:
            found = merged(parts)
            if not any(way.goes_on for way in ways):
                raise NobodyLeft(found)
            yield found
    finally:
        for way in ways:
            way.leave()


@final
class _Way:
    """One family's search, in a thread of its own."""

    def __init__(self, levels: Iterator[Level]) -> None:
        self.goes_on, self.ended = True, False
        self._levels = levels
        # At most two levels wait, so that a family far ahead does not fill the memory with what nobody reads yet.
        self._found: SimpleQueue[Level | BaseException | None] = SimpleQueue()
        self._room, self._left = threading.Semaphore(1), False
        threading.Thread(target=self._run, daemon=True).start()

    def next(self) -> Level | None:
        """Give the next level; ``None`` when the family has left, or there is no further one."""
        if not self.goes_on or self.ended:
            return None
        found = self._found.get()
        self._room.release()
        if found is None:
            self.ended = True
            return None
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
            self._found.put(None)
        except BaseException as error:
            self._found.put(error)
