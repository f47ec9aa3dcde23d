"""Where a trainer's data comes from: loaded once in each process, split by the seed."""

from collections.abc import Callable
from typing import Any, final

from tombola.data import Dataset, Split, split
from tombola.types import Seed


@final
class Splits:
    """Seed -> split, over a data set that every process loads for itself."""

    def __init__(self, load: Callable[[], Dataset]) -> None:
        """Set the source; ``load`` is called on first use, and again in every worker process."""
        self._load = load
        self._dataset: Dataset | None = None
        self._last: tuple[tuple[int, int], Split] | None = None

    @property
    def dataset(self) -> Dataset:
        """The data set."""
        if self._dataset is None:
            self._dataset = self._load()
        return self._dataset

    def __call__(self, seed: Seed) -> Split:
        """Give the split of a seed; only the last one is kept, for a large one is worth its memory once."""
        published = self.dataset.test_y is not None
        key = (seed.root, 0 if published else seed.replicate)
        if self._last is None or self._last[0] != key:
            self._last = (key, split(self.dataset, seed))
        return self._last[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"_load": self._load, "_dataset": None, "_last": None}
