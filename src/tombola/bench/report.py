"""What was measured, as plain values: rows, and around them what they were measured on."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final, final

import torch

from tombola.bench.floor import Machine
from tombola.bench.rivals import LeftOut
from tombola.bench.settings import OURS, Settings
from tombola.bench.turns import Summary
from tombola.sparse.kernels.library import kernels

SCHEMA: Final = 1

_PACKAGES: Final = {"sparseprop": "sparseprop", "jax": "jax"}


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One time; see ``docs/bench.md``.

    Attributes:
        benchmark, model, rival: names; ``sparse`` and ``replicas`` are ours.
        density: fraction of the prunable weights that is left; ``None`` for a whole ladder.
        batch, threads: examples of an iteration, threads that this way was given.
        milliseconds: median time of an iteration (of all replicates, or of all jobs at once); for a whole ladder, of
            all its slices.
        ratio: median over the turns of this way's time over ours; in ``scaling`` over one job's.
        floor_milliseconds: what the processor allows, where it is known.
        least_milliseconds, ratio_of_least, spread: the least time, the ratio of least times, and the interquartile
            range in milliseconds.
        turns, iterations: how many turns count, and how many iterations one of them has.
        level: of the ladder.
        setup_milliseconds: what is paid once for each network beside its iterations.
        replicates, jobs: networks in one computation, and independent jobs at a time.
        note: one sentence.
    """

    benchmark: str
    model: str
    rival: str
    density: float | None
    batch: int
    threads: int
    milliseconds: float
    ratio: float
    floor_milliseconds: float | None
    least_milliseconds: float
    ratio_of_least: float
    spread: float | None
    turns: int
    iterations: int
    level: int | None = None
    setup_milliseconds: float | None = None
    replicates: int = 1
    jobs: int = 1
    note: str | None = None

    @classmethod
    def of(cls, summary: Summary, **about: Any) -> "Row":
        """Make a row of what the turns say."""
        return cls(**asdict(summary), **about)


@final
@dataclass
class Report:
    """Everything of one run; it grows row by row.

    Attributes:
        settings: what was asked for.
        rows, left_out: what was measured, and what was not.
        machine: model -> what one thread does in its shapes.
        data: model -> what its data are.
        notes: sentences about the run.
        load: average before the run.
    """

    settings: Settings
    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    machine: dict[str, Machine] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    load: tuple[float, ...] = field(default_factory=os.getloadavg)

    def ladder(self) -> dict[str, dict[str, Any]]:
        """Give for each model the masked dense loop that is fastest over the ladder, and how much longer it takes."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            if row.benchmark != "ladder" or row.density is not None or row.rival == OURS["ladder"]:
                continue
            before = found.get(row.model)
            if before is None or row.milliseconds < before["milliseconds"]:
                found[row.model] = {"rival": row.rival, "milliseconds": row.milliseconds, "ratio": row.ratio}
        return found

    def as_json(self) -> dict[str, Any]:
        """Give the object that ``tombola bench --json`` prints."""
        return {
            "schema": SCHEMA,
            **surroundings(),
            "kernels": kernels().level,
            "load_average_before": rounded(self.load),
            "load_average_after": rounded(os.getloadavg()),
            "settings": self.settings.as_json(),
            "data": self.data,
            "machine": {model: machine.as_json() for model, machine in self.machine.items()},
            "rows": [asdict(row) for row in self.rows],
            "ladder": self.ladder(),
            "left_out": [asdict(one) for one in self.left_out],
            "notes": self.notes,
        }


def encoded(report: dict[str, Any]) -> bytes:
    """Give a report as the bytes of its file."""
    return (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()


def surroundings(device: str = "cpu") -> dict[str, Any]:
    """Say what a result was measured on: versions, day, processor and cores."""
    import datetime

    import numpy

    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {
            "tombola": _version("tombola") or "not installed",
            "torch": torch.__version__,
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            **{name: version for name, package in _PACKAGES.items() if (version := _version(package))},
        },
        "processor": processor(device),
        "cores": os.cpu_count(),
        "cores_allowed": cores(),
    }


def processor(device: str = "cpu") -> str:
    """Name the processor, or the GPU of a CUDA device."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def cores() -> int:
    """Count the cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def rounded(load: Sequence[float]) -> list[float]:
    """Give load averages with two decimals."""
    return [round(value, 2) for value in load]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
