"""Where a trainer's data and the user's own network come from: made in each process, and the same in all."""

import pickle
from collections.abc import Callable, Mapping
from typing import Any, final

from torch import nn

from tombola import models
from tombola.data import Dataset, Split, split
from tombola.errors import CorruptData, SourceChanged
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


@final
class OwnNetwork:
    """Builds the user's own network, in every process from the same code."""

    def __init__(self, path: str, build: Callable[[], nn.Module]) -> None:
        """Set the source.

        Args:
            path: ``package.module:factory``.
            build: makes the network; picklable where other processes are to build it.
        """
        self._path, self._build = path, build
        self._sources: Mapping[str, str] = models.sources(path)
        self._received, self._first = False, True

    def __call__(self) -> nn.Module:
        """Build the network.

        Raises:
            SourceChanged: this process was sent the network by one that has other code.
        """
        module = self._build()
        if self._first:
            if self._received:
                self._check()
            else:
                self._sources = models.sources(self._path, module)
            self._first = False
        return module

    def _check(self) -> None:
        if names := models.changed(self._sources):
            raise SourceChanged(
                f"the source of the network {self._path!r} has changed since the search began: {', '.join(names)}, as "
                "found here, differs from what the main process has. Run it again, with the same code and versions "
                "wherever it runs; what is in a store stays valid."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_build": pickle.dumps(self._build), "_received": True, "_first": True}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # What makes the network is packed by itself, so that the files are compared before any of them is imported; the
        # first build compares them again. An edit is seen wherever between the two Python read them.
        vars(self).update(state)
        self._check()
        self._build = pickle.loads(state["_build"])
