"""What a search cost: an entry for each run, the sums over them, and what the clock says.

Training alone is counted in operations, no evaluation; the clock measures a run from its first iteration to its last
reading of the test split. What cannot be counted is ``None``, and so is every sum that it is part of.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final, TypeVar, final

from tombola.search.levels import ATTEMPT, DENSE, TICKET
from tombola.search.way import ROUND

SCORING: Final = "scoring"
"""The arm of what criteria cost that look at the network: no training, so no iterations and no samples of it."""

_NO_CONTROL: Final = (DENSE, TICKET, ROUND, ATTEMPT, SCORING)

_Number = TypeVar("_Number", int, float)


@final
@dataclass(frozen=True)
class RunCost:
    """What one run cost, whether or not it finished.

    Attributes:
        level: 0 is the dense network.
        toward: the level whose mask or verdict it was trained for; ``level`` itself but for rounds and attempts.
        density: of the level, a fraction of the prunable weights.
        arm: ``dense``, ``ticket`` or a control; ``round`` was trained for its mask alone, ``attempt`` is a ticket that
            was given up, ``scoring`` is what looking at networks cost.
        replicate: its family.
        order: which of the family's data orders; above 0 for further dense runs only.
        engine: what trained it.
        iterations: how many were trained.
        samples: examples seen, each as often as it was; iterations times the batch size.
        flops_dense: operations, every weight counted; see :func:`tombola.train.cost.flops_per_example`.
        flops_effective: operations, surviving weights counted.
        seconds: wall time.
    """

    level: int
    toward: int
    density: float
    arm: str
    replicate: int
    order: int
    engine: str
    iterations: int
    samples: int | None
    flops_dense: float | None
    flops_effective: float | None
    seconds: float


@final
@dataclass(frozen=True)
class Origin:
    """Where a level's masks come from.

    Attributes:
        level: which.
        cut_from: the level whose trained network was cut; ``None`` where none was.
        dense_needed: replicate -> iterations of its first dense run that it took, where those are fewer than all.
    """

    level: int
    cut_from: int | None
    dense_needed: Mapping[int, int] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Share:
    """A part of what a search cost, summed over the families.

    Attributes:
        iterations: training iterations.
        dense_trainings: those in units of one dense training of T iterations.
        dense_trainings_effective: the same by the operations of surviving weights; ``None`` where not counted.
    """

    iterations: int
    dense_trainings: float
    dense_trainings_effective: float | None


@final
@dataclass(frozen=True)
class Cost:
    """What a search cost.

    Attributes:
        runs: its entries, in the order of the jobs.
        training: iterations of one dense training, T.
        training_flops: operations of one dense training; ``None`` where they are not counted.
        elapsed: wall time of the whole search.
        origins: where the masks of each level come from.
        tickets_make_masks: the next mask is made from the tickets that are judged, and from no runs beside them.
    """

    runs: tuple[RunCost, ...]
    training: int
    training_flops: float | None
    elapsed: float
    origins: tuple[Origin, ...] = ()
    tickets_make_masks: bool = True

    def finding(self, level: int) -> Share:
        """Give what it took to find the masks of a level: the dense runs and tickets they were cut from, and rounds.

        Further dense runs, the tickets of the level itself and controls verify; they are not in it.
        """
        return self._share((run, self._needed(run, self._path(level))) for run in self.runs)

    @property
    def purposes(self) -> dict[str, Share]:
        """Divide everything into ``search`` (finding the masks of all levels), ``verification`` and ``controls``."""
        paths = [self._path(one.level) for one in self.origins]
        needed = [max((self._needed(run, path) for path in paths), default=0.0) for run in self.runs]
        control = [run.arm not in _NO_CONTROL for run in self.runs]
        return {
            "search": self._share(zip(self.runs, needed, strict=True)),
            "verification": self._share(
                (run, 1 - part) for run, part, other in zip(self.runs, needed, control, strict=True) if not other
            ),
            "controls": self._share((run, 1.0) for run, other in zip(self.runs, control, strict=True) if other),
        }

    def _path(self, level: int) -> list[Origin]:
        """Give the origins that lead to a level, itself first; without the dense one where nothing was cut."""
        at = {one.level: one for one in self.origins}
        found = [at[level]]
        while (before := found[-1].cut_from) is not None:
            found.append(at[before])
        return found

    def _needed(self, run: RunCost, path: Sequence[Origin]) -> float:
        """Give the part of a run that the masks at the end of a path took, from 0 to 1."""
        if run.arm in (ROUND, ATTEMPT, SCORING):
            return float(run.toward in {one.level for one in path if one.level})
        before = {one.level for one in path[1:]}
        if run.arm == DENSE and run.order == 0 and 0 in before:
            first = next(one for one in reversed(path) if one.cut_from == 0)
            return first.dense_needed.get(run.replicate, run.iterations) / run.iterations
        return float(run.arm == TICKET and self.tickets_make_masks and run.level in before)

    def _share(self, parts: Iterable[tuple[RunCost, float]]) -> Share:
        counted = [(run, part) for run, part in parts if part]
        iterations = round(sum(part * run.iterations for run, part in counted))
        flops = _sum(None if run.flops_effective is None else part * run.flops_effective for run, part in counted)
        one = self.training_flops
        return Share(iterations, iterations / self.training, None if flops is None or not one else flops / one)

    @property
    def iterations(self) -> int:
        """Training iterations of all runs."""
        return sum(run.iterations for run in self.runs)

    @property
    def samples(self) -> int | None:
        """Examples seen by all runs."""
        return _sum(run.samples for run in self.runs)

    @property
    def dense_trainings(self) -> float:
        """All iterations, in units of one dense training."""
        return self.iterations / self.training

    @property
    def flops_dense(self) -> float | None:
        """Operations of all runs, every weight multiplied whether pruned or not."""
        return _sum(run.flops_dense for run in self.runs)

    @property
    def flops_effective(self) -> float | None:
        """Operations of all runs that the surviving weights alone need."""
        return _sum(run.flops_effective for run in self.runs)

    @property
    def dense_trainings_effective(self) -> float | None:
        """The operations of surviving weights, in units of one dense training."""
        effective = self.flops_effective
        return effective / self.training_flops if effective is not None and self.training_flops else None

    @property
    def seconds(self) -> float:
        """Wall time of the whole search."""
        return self.elapsed

    @property
    def run_seconds(self) -> float:
        """Wall time summed over the runs; with several workers they overlap, so it may exceed that of the search."""
        return sum(run.seconds for run in self.runs)

    @property
    def dense_training_seconds(self) -> float | None:
        """Wall time of one dense training of T iterations: the median over the dense runs."""
        pace = _pace([run for run in self.runs if run.arm == DENSE])
        return None if pace is None else pace * self.training

    @property
    def dense_trainings_measured(self) -> float | None:
        """The wall time of all runs, in units of one dense training."""
        one = self.dense_training_seconds
        return None if one is None else self.run_seconds / one

    @property
    def masked_dense_seconds(self) -> float | None:
        """Estimate the wall time of all runs with masks on dense tensors: every iteration at the dense runs' speed."""
        one = self.dense_training_seconds
        return None if one is None else self.dense_trainings * one

    @property
    def ticket_time(self) -> float | None:
        """Wall time of the sparsest tickets as a fraction of the dense runs', by the medians of an iteration."""
        dense, ticket = self.dense_training_seconds, _pace(self._sparsest)
        return None if dense is None or ticket is None else ticket * self.training / dense

    @property
    def _sparsest(self) -> list[RunCost]:
        tickets = [run for run in self.runs if run.arm == TICKET]
        last = max((run.level for run in tickets), default=0)
        return [run for run in tickets if run.level == last]

    @property
    def saving(self) -> str | None:
        """Say what being sparse saved of the time, or that it saved nothing; ``None`` where it was not measured."""
        time = self.ticket_time
        if time is None:
            return None
        one = self._sparsest[0]
        found = f"a ticket at {100 * one.density:.1f} % trained in {time:.2f} of the dense network's time"
        if one.engine != "sparse":
            return "no saving: masks are applied to dense tensors, so a ticket costs what the dense network does"
        return found if time < 1 else f"no saving: {found}"

    @property
    def sentence(self) -> str:
        """Say it in one sentence."""
        effective, measured = self.dense_trainings_effective, self.dense_trainings_measured
        parts = [f"{self.iterations:,} training iterations = {self.dense_trainings:.1f} dense trainings"]
        if effective is not None:
            parts.append(f"{effective:.1f} by the operations of surviving weights")
        if measured is not None:
            parts.append(
                f"{measured:.1f} by the clock ({self.run_seconds:.0f} s summed over the runs; masked-dense, an "
                f"estimated {self.masked_dense_seconds:.0f} s at the dense runs' own speed)"
            )
        saving = "" if self.saving is None else f"; {self.saving}"
        if self.origins:
            shares = (f"{name} {share.dense_trainings:.1f}" for name, share in self.purposes.items())
            parts[0] += f" ({', '.join(shares)})"
        return f"Cost: {', '.join(parts)}{saving}; {self.elapsed:.0f} s in all."

    def as_json(self) -> dict[str, Any]:
        """Give plain values; everything under ``wall`` is the clock's, and the rest is the same for the same seed."""
        return {
            "iterations": self.iterations,
            "samples": self.samples,
            "dense_trainings": self.dense_trainings,
            "flops_dense": self.flops_dense,
            "flops_effective": self.flops_effective,
            "dense_trainings_effective": self.dense_trainings_effective,
            "purposes": {name: asdict(share) for name, share in self.purposes.items()},
            "finding": [{"level": one.level, **asdict(self.finding(one.level))} for one in self.origins if one.level],
            "runs": [{key: value for key, value in asdict(run).items() if key != "seconds"} for run in self.runs],
            "wall": {
                "seconds": self.elapsed,
                "run_seconds": self.run_seconds,
                "dense_training_seconds": self.dense_training_seconds,
                "dense_trainings": self.dense_trainings_measured,
                "masked_dense_seconds": self.masked_dense_seconds,
                "ticket_time": self.ticket_time,
                "saving": self.saving,
                "runs": [run.seconds for run in self.runs],
            },
        }


def _sum(values: Iterable[_Number | None]) -> _Number | None:
    known = list(values)
    return None if any(value is None for value in known) else sum(value for value in known if value is not None)


def _pace(runs: Sequence[RunCost]) -> float | None:
    """Give the median wall time of an iteration."""
    paces = [run.seconds / run.iterations for run in runs if run.iterations and run.seconds > 0]
    return median(paces) if paces else None
