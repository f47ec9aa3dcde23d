"""Run a study and say what of its time was not training.

``python benchmarks/study_overhead.py lenet-mnist --size small --folder DIR --out benchmarks/results/NAME.json``, in a
new folder and with nothing else on the cores. Two parts are added up and divided by the training time, which is the
seconds of all units: what the workers' time is more than that (start-up, storing, waiting for work, the tail in which
some have none), and the processor time of the process that plans, prunes and schedules (importing torch included), for
it takes that from the workers. The result holds the study's claims too.

By the times at which the units were written the first part is split: before a worker's first unit (importing torch and
reading the data), between two units (building the network, storing, waiting) and after its last.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from machine import heading

from tombola.files import write_all
from tombola.study.store import Store


def main() -> None:
    """Run, read the clocks, divide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--size", default="small")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.folder.exists():
        raise SystemExit(f"{arguments.folder} exists, and what is finished would not be trained. Give a new folder.")
    words = ["study", "run", arguments.study, "--size", arguments.size, "--workers", str(arguments.workers)]
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "tombola", *words, "--out", str(arguments.folder)])
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    if status != 0:
        raise SystemExit(f"the study ended with {os.waitstatus_to_exitcode(status)}")
    store = Store(arguments.folder / "store")
    units = [store.get(key) for key in store.entries()]
    training = sum(unit.clock["seconds"] for unit in units if unit is not None)
    split = timeline(arguments.folder, arguments.workers)
    planning = used.ru_utime + used.ru_stime
    besides = arguments.workers * wall - training
    body = json.loads((arguments.folder / "result.json").read_text())
    result = {
        **heading(),
        "command": "tombola " + " ".join(words),
        "workers": arguments.workers,
        "units": len(units),
        "bytes": store.check().bytes,
        "wall_seconds": wall,
        "training_seconds": training,
        "workers_besides_training_seconds": besides,
        **split,
        "planning_processor_seconds": planning,
        "overhead": (besides + planning) / training,
        "study": body,
    }
    write_all({arguments.out: (json.dumps(result, indent=1) + "\n").encode()})
    print(
        f"{len(units)} units, {wall:.0f} s of wall time, {training:.0f} s of training; besides, {besides:.1f} s in the "
        f"workers and {planning:.1f} s of planning: {100 * result['overhead']:.2f} %"
    )


def timeline(folder: Path, workers: int) -> dict[str, float]:
    """Split the workers' time besides training: seconds before the first unit, between units and after the last."""
    store, began = folder / "store", (folder / "study.toml").stat().st_mtime
    kept = Store(store)
    spans = []
    for key in kept.entries():
        unit = kept.get(key)
        if unit is not None:
            end = (store / "units" / key[:2] / f"{key}.json").stat().st_mtime
            spans.append((end - unit.clock["seconds"], end))
    free, first, between = [began] * workers, 0.0, 0.0
    for start, end in sorted(spans):
        # A unit began on the worker that had waited least; what it is written late by is a fraction of a second.
        lane = min(range(workers), key=lambda one: (free[one] > start + 0.5, abs(start - free[one])))
        if free[lane] == began:
            first += start - began
        else:
            between += start - free[lane]
        free[lane] = end
    return {
        "before_first_unit_seconds": first,
        "between_units_seconds": between,
        "after_last_unit_seconds": sum((folder / "result.json").stat().st_mtime - end for end in free),
    }


if __name__ == "__main__":
    main()
