"""Where a trainer's data comes from: loaded once in each process, split by the seed."""

from collections.abc import Callable
from typing import Any, final

from tombola.data import Dataset, Split, split
from tombola.errors import CorruptData
from tombola.types import Seed


@final
class Splits:
    """Seed -> split, over a data set that every process loads for itself."""

    def __init__(self, load: Callable[[], Dataset]) -> None:
        """Set the source; ``load`` is called on first use, and again in every worker process."""
        self._load = load
        self._dataset: Dataset | None = None
        self._expected: str | None = None
        self._last: tuple[tuple[int, int], Split] | None = None

    @property
    def dataset(self) -> Dataset:
        """The data set.

        Raises:
            CorruptData: another process loaded something else under the same name.
        """
        if self._dataset is None:
            loaded = self._load()
            if self._expected not in (None, loaded.fingerprint):
                raise CorruptData(
                    f"{loaded.name!r} is not the same data in every process: its fingerprint is "
                    f"{loaded.fingerprint[:12]} here and {str(self._expected)[:12]} in the main process. Let its "
                    "function give the same arrays every time (seed what it draws), or use --workers 1."
                )
            self._dataset = loaded
        return self._dataset

    def __call__(self, seed: Seed) -> Split:
        """Give the split of a seed; only the last one is kept, for a large one is worth its memory once."""
        published = self.dataset.test_y is not None
        key = (seed.root, 0 if published else seed.replicate)
        if self._last is None or self._last[0] != key:
            self._last = (key, split(self.dataset, seed))
        return self._last[1]

    def __getstate__(self) -> dict[str, Any]:
        expected = self._expected if self._dataset is None else self._dataset.fingerprint
        return {"_load": self._load, "_dataset": None, "_expected": expected, "_last": None}
