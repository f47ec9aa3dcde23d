"""A trainer that never trains twice: what the store has is read, what it has in part is gone on with."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

from tombola.errors import CorruptStore, ShapeMismatch
from tombola.study import tensors, units
from tombola.study.store import Store
from tombola.study.units import Trained
from tombola.train.plain import PlainTrainer
from tombola.train.row import Progress
from tombola.train.sparse import SparseTrainer
from tombola.train.watch import Unwatched, Watcher
from tombola.types import Curve, RunResult, TrainJob, TrainOutcome

EVERY_SECONDS: Final = 20.0
"""Between two snapshots of a unit in progress: what a killed process loses at most."""


@final
@dataclass(frozen=True)
class Order:
    """A job, and the search that it belongs to.

    Attributes:
        search: whose trainer trains it.
        job: what is trained.
    """

    search: str
    job: TrainJob


@final
@dataclass
class Remembering:
    """Trains one unit at a time for the searches of a study, in whatever process it finds itself.

    Attributes:
        trainers: search -> what trains its networks.
        trained: search -> what is common to its units.
        store: the store's folder.
        every: seconds between two snapshots of a unit in progress.
        watcher: told of every evaluation.
    """

    trainers: Mapping[str, PlainTrainer | SparseTrainer]
    trained: Mapping[str, Trained]
    store: Path
    every: float = EVERY_SECONDS
    watcher: Watcher = field(default_factory=Unwatched)

    def train_one(self, order: Order, number: int = 0) -> TrainOutcome | None:
        """Give a unit's outcome, training it only where that is not known.

        Returns:
            ``None`` where another process is training it at this moment.

        Raises:
            CannotWrite: the store's disk is full or read-only; what was kept before stays.
        """
        store, job = Store(self.store), order.job
        unit = units.describe(job, self.trained[order.search])
        key = units.key(unit)
        with store.claim(key) as mine:
            if not mine:
                return None
            known = units.known(store, unit)
            if known is not None:
                return known
            keeper = _Keeper(store, key, job, self.every, units.versions(unit["engine"]))
            trainer = replace(self.trainers[order.search], watcher=self.watcher)
            outcome = trainer.train_one(job, number, keeper=keeper, resumed=keeper.found())
            outcome = replace(outcome, seconds=keeper.before + outcome.seconds)
            if outcome.result is not RunResult.INTERRUPTED:
                units.put(store, job, unit, outcome)
            return outcome


@final
class _Keeper:
    """Keeps a unit in progress, now and then."""

    def __init__(self, store: Store, key: str, job: TrainJob, every: float, versions: Mapping[str, str]) -> None:
        self._versions = dict(versions)
        self._store, self._key, self._job, self._every = store, key, job, every
        self._began = self._last = time.monotonic()
        self.before = 0.0

    def found(self) -> Progress | None:
        """Give what another process left of this unit."""
        part = self._store.part(self._key)
        if part is None or part.tensors is None or part.body.get("versions") != self._versions:
            return None
        try:
            held = tensors.read(part.tensors, f"part of unit {self._key}")
            curve = {name: tuple(map(units.number, values)) for name, values in part.body["curve"].items()}
            found = Progress(
                now=held["now"],
                best=held["best"],
                saved={step: held[f"at {step}"] for step in part.body["saved"]},
                curve=Curve(**curve),
                masks=units.found_masks(held, held["now"].params),
                history=units.read_history(part.body.get("history", ())),
                moved=units.found_moved(held),
            )
            self.before = float(part.body["seconds"])
        except (CorruptStore, ShapeMismatch, KeyError, TypeError, ValueError):
            return None
        return found

    def due(self) -> bool:
        """Whether it is time again."""
        return time.monotonic() - self._last >= self._every

    def keep(self, progress: Progress) -> None:
        """Keep what it takes to go on."""
        saved = {f"at {step}": one for step, one in progress.saved.items()}
        kept = {"now": progress.now, "best": progress.best, **saved, **units.besides(progress.masks, progress.moved)}
        data = tensors.write(kept, self._job.masks if progress.masks is None else progress.masks)
        body: dict[str, Any] = {
            "saved": sorted(progress.saved),
            "curve": {name: [units.plain(one) for one in values] for name, values in vars(progress.curve).items()},
            "versions": self._versions,
            **({"history": units.written(progress.history)} if progress.masks is not None else {}),
            "seconds": self.before + time.monotonic() - self._began,
        }
        self._store.put_part(self._key, body, data)
        self._last = time.monotonic()
