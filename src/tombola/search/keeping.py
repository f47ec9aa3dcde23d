"""What is finished of a search that does not end."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from tombola.files import write_all
from tombola.search.find import Observer
from tombola.search.finding import LevelSummary, results
from tombola.search.levels import Dropped
from tombola.search.setup import Setup
from tombola.stats import ACCURACY, Scale, write_csv
from tombola.types import Step, TrainJob


@final
class Keeping:
    """Passes everything on to another observer, and keeps the finished levels."""

    def __init__(self, observer: Observer) -> None:
        """Set whom to pass it on to."""
        self._observer = observer
        self._score: Scale = ACCURACY
        self.levels: list[LevelSummary] = []

    def planned(self, setup: Setup) -> None:
        self._score = setup.score
        self._observer.planned(setup)

    def training(self, jobs: Sequence[TrainJob]) -> None:
        self._observer.training(jobs)

    def level_done(self, summary: LevelSummary, dropped: Sequence[Dropped]) -> None:
        # A further look has the same levels again, with more families.
        self.levels = [*(one for one in self.levels if one.level != summary.level), summary]
        self._observer.level_done(summary, dropped)

    def evaluated(self, job: int, step: Step, loss: float, accuracy: float) -> None:
        self._observer.evaluated(job, step, loss, accuracy)

    def stop(self) -> bool:
        return self._observer.stop()

    def save(self, path: Path) -> int:
        """Write the rows of the finished levels as a table for ``tombola judge``, if there are any.

        Returns:
            How many levels there are, the dense one included; with 0 nothing is written.

        Raises:
            CannotWrite: the table cannot be written.
        """
        levels = tuple(self.levels)
        if levels:
            write_all({path: write_csv(results(levels, levels[0].dense), score=self._score).encode()})
        return len(levels)
