"""The measurements that train further networks of a run: early masks, instability by step, the intervention."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, final

import torch

from tombola.analysis import connectivity
from tombola.analysis.early import THRESHOLD, WINDOW, distances, settled
from tombola.analysis.excess import DRAWS
from tombola.analysis.family import Observed, one_shot_masks
from tombola.analysis.intervention import follow, intervention, permuted_start
from tombola.analysis.measurement import Measurement
from tombola.errors import Diverged, InvalidResults, InvalidValue, UnknownName
from tombola.explain.material import Material
from tombola.explain.tables import Cell, Table
from tombola.prune.rewinding import masked
from tombola.search.setup import Setup
from tombola.seeds import generator
from tombola.stats.comparison import mean_interval
from tombola.types import Masks, RunResult, Seed, Snapshot, Step, TrainFn, TrainJob, TrainOutcome

NAMES: Final[Mapping[str, str]] = {
    "early": "when the mask of the dense run is there: one dense training for each family",
    "instability": "from which step on two data orders lead into one valley: four trainings for each step and family",
    "intervention": "whether the mask follows its initial values: one dense training for each family",
}
"""Name -> what it asks, and what it trains."""

_LOOKS: Final = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.925, 0.95, 0.975)
"""Where the dense run is looked at, as fractions of T."""

_ORDERS: Final = (101, 102)
"""Data orders that no dense run of a search has."""

_LATEST: Final = 0.2
"""The last rewinding step of interest, as a fraction of T."""

_UNITS: Final = 100
"""Steps in T among which the smallest stable one is sought."""


@final
@dataclass(frozen=True)
class Deeper:
    """What further training showed.

    Attributes:
        tables: of the early masks, and of the instability.
        intervention: whether masks follow their initial values; ``None`` where it was not asked for.
    """

    tables: tuple[Table, ...]
    intervention: Measurement | None

    @property
    def sentence(self) -> str:
        """The intervention's outcome; empty where it was not asked for."""
        return "" if self.intervention is None else self.intervention.sentence

    def as_json(self) -> dict[str, Any]:
        """Give plain values."""
        found = None if self.intervention is None else asdict(self.intervention)
        if found is not None:
            found["outcome"] = found["outcome"].value
        return {"tables": {one.name: asdict(one) for one in self.tables}, "intervention": found}


def deeper(material: Material, names: Collection[str], level: int, *, seed: int = 0, watcher: Any = None) -> Deeper:
    """Train further networks of a run, through its store, and measure them.

    Args:
        material: the run.
        names: keys of :data:`NAMES`.
        level: whose counts and masks are looked at.
        seed: of the null's draws.
        watcher: is told of every evaluation; asked whether to stop.

    Raises:
        UnknownName: no such measurement.
        InvalidValue: the run was trained by a loop that is not at hand.
        Diverged: one of the runs did.
        KeyboardInterrupt: one was interrupted; what is finished is in the store.
    """
    check_names(names)
    with material.trainer(watcher) as train:
        assert material.setup is not None
        look = _Look(material, material.setup, level, train, Seed(seed))
        tables = [look.early()] if "early" in names else []
        if "instability" in names:
            tables += [look.instability("dense network"), look.instability("subnetwork")]
        found = look.intervention() if "intervention" in names else None
    return Deeper(tuple(tables), found)


def check_names(names: Collection[str]) -> None:
    """Raise unless all are keys of :data:`NAMES`.

    Raises:
        UnknownName: one is not.
    """
    for name in names:
        if name not in NAMES:
            raise UnknownName.among("measurement that trains", name, NAMES)


@final
class _Look:
    """A run at a level, and what trains it."""

    def __init__(self, material: Material, setup: Setup, level: int, train: TrainFn, seed: Seed) -> None:
        self.material, self.setup, self.level, self.seed = material, setup, level, seed
        self.counts = material.counts(level)
        self._train = train
        self._inits = {family.replicate: family for family in setup.families}

    def train(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        found = self._train(jobs)
        for job, run in zip(jobs, found, strict=True):
            if run.result is RunResult.INTERRUPTED:
                raise KeyboardInterrupt(run.sentence)
            if run.result is RunResult.DIVERGED:
                raise Diverged(
                    f"the {job.name} of family {job.seed.replicate} {run.sentence}. Lower the learning rate."
                )
        return found

    def dense(self, one: Observed, *save_at: Step, start: Snapshot | None = None) -> TrainJob:
        family = self._inits[one.replicate]
        return TrainJob(
            start=family.init if start is None else start,
            masks={},
            seed=family.seed,
            stop=self.setup.iterations,
            save_at=save_at,
            with_optimizer=False,
            name="dense",
        )

    def masks(self, one: Observed, network: Snapshot) -> Masks:
        ties = generator(Seed(self.seed.root, one.replicate), "control", "deeper")
        return one_shot_masks(network.params, self.counts, ties)

    def mean(self, values: Sequence[float]) -> tuple[Cell, Cell, Cell]:
        if len(values) < 2:
            return values[0], None, None
        found = mean_interval(values, 0.05)
        return found.mean, found.low, found.high

    def early(self) -> Table:
        """Set the dense run's mask on the way against its last one."""
        families, T = self.material.families, self.setup.iterations
        grid = sorted({max(1, round(fraction * T)) for fraction in _LOOKS})
        runs = self.train([self.dense(one, *grid) for one in families])
        rows: list[tuple[Cell, ...]] = []
        masks: list[list[Masks]] = []
        for one, run in zip(families, runs, strict=True):
            if any(not torch.equal(value, one.ends[0][name]) for name, value in run.end.params.items()):
                raise InvalidResults(
                    f"the dense run of family {one.replicate}, trained again, ended otherwise than the one in the "
                    "store: another version or processor trained that. Search again with another --store."
                )
            masks.append([self.masks(one, run.saved[step]) for step in grid] + [self.masks(one, run.end)])
        for k, step in enumerate([*grid, T]):
            apart = [distances(of[k], of[-1]).pooled for of in masks]
            ready = sum(settled(of[: k + 1], WINDOW, THRESHOLD) for of in masks)
            rows.append(
                (
                    step,
                    *self.mean([d.hamming for d in apart]),
                    *self.mean([d.corrected for d in apart]),
                    *self.mean([d.jaccard for d in apart]),
                    ready,
                )
            )
        interval = [h for name in ("hamming", "over chance", "jaccard") for h in (name, "low", "high")]
        return Table(
            "early",
            "The dense run's one-shot mask on the way against its last: distance, over chance (1 is chance), Jaccard; "
            "families settled",
            ("iteration", *interval, "settled"),
            tuple(rows),
        )

    def instability(self, what: str) -> Table:
        """Find the smallest rewinding step that is stable (Frankle et al. 2020), by bisection."""
        if not self.material.eyes:
            raise InvalidValue("instability evaluates networks, and this run has no data at hand.")
        unit = max(1, self.setup.iterations // _UNITS)
        seen: dict[Step, list[float]] = {}

        def barrier(units: int) -> float:
            seen[units * unit] = self._barriers(what, units * unit)
            return sum(seen[units * unit]) / len(seen[units * unit])

        found = connectivity.smallest_stable_step(barrier, round(_LATEST * _UNITS))
        stable = "none up to there" if found.step is None else str(found.step * unit)
        rows = [(step, *self.mean(values)) for step, values in sorted(seen.items())]
        return Table(
            f"instability of the {what}".replace(" ", "-"),
            f"Error barrier on validation between two copies of the {what}, trained from a step on in two new data "
            f"orders; stable below 0.02, from step: {stable}",
            ("rewinding step", "barrier", "low", "high"),
            tuple(rows),
        )

    def _barriers(self, what: str, step: Step) -> list[float]:
        families = self.material.families
        if step:
            runs = self.train([self.dense(one, step) for one in families])
            starts = [run.saved[step] for run in runs]
        else:
            starts = [self._inits[one.replicate].init for one in families]
        jobs = []
        for one, start in zip(families, starts, strict=True):
            masks = one.masks[self.level] if what == "subnetwork" else {}
            for order in _ORDERS:
                job = replace(self.dense(one, start=masked(start, masks)), masks=masks, name=what)
                jobs.append(replace(job, seed=replace(job.seed, order=order)))
        ends = iter([run.end for run in self.train(jobs)])
        return [self._barrier(one, next(ends), next(ends)) for one in families]

    def _barrier(self, one: Observed, first: Snapshot, second: Snapshot) -> float:
        assert self.material.eyes is not None
        eyes = self.material.eyes[one.replicate]
        found = connectivity.path(first, second, lambda at: 1 - eyes.accuracy(at), recalibrate=eyes.recalibrated)
        return found.barrier

    def intervention(self) -> Measurement:
        """Permute which weights hold which initial values, and see whether the mask goes along."""
        orders, jobs = {}, []
        for one in self.material.families:
            rng = generator(Seed(self.seed.root, one.replicate), "control", "intervention")
            start, orders[one.replicate] = permuted_start(self._inits[one.replicate].init, one.prunable, rng)
            jobs.append(replace(self.dense(one, start=start), name="permuted"))
        found = {}
        for one, job, run in zip(self.material.families, jobs, self.train(jobs), strict=True):
            found[one.replicate] = follow(
                (one.theta_0, one.ends[0]),
                (job.start.params, run.end.params),
                orders[one.replicate],
                self.counts,
                seed=Seed(self.seed.root, one.replicate),
                draws=DRAWS,
            )
        return intervention(found)
