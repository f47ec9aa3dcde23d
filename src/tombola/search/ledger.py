"""What a search cost: an entry for each run, the sums over them, and what the clock says.

Training alone is counted in operations, no evaluation; the clock measures a run from its first iteration to its last
reading of the test split. What cannot be counted is ``None``, and so is every sum that it is part of.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final, TypeVar, final

from tombola.search.levels import DENSE, TICKET

SCORING: Final = "scoring"
"""The arm of what criteria cost that look at the network: no training, so no iterations and no samples of it."""

_Number = TypeVar("_Number", int, float)


@final
@dataclass(frozen=True)
class RunCost:
    """What one run cost, whether or not it finished.

    Attributes:
        level: 0 is the dense network.
        density: of the level, a fraction of the prunable weights.
        arm: ``dense``, ``ticket`` or a control; ``scoring`` is what making the masks cost.
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
class Cost:
    """What a search cost.

    Attributes:
        runs: its entries, in the order of the jobs.
        training: iterations of one dense training, T.
        training_flops: operations of one dense training; ``None`` where they are not counted.
        elapsed: wall time of the whole search.
    """

    runs: tuple[RunCost, ...]
    training: int
    training_flops: float | None
    elapsed: float

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
