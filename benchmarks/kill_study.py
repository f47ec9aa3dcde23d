"""Kill a study again and again, and look whether it ends in the bytes of one that was never killed.

``python benchmarks/kill_study.py --kills 50 --out benchmarks/results/NAME.json``: half of the kills come at the n-th
call that changes the disk, spread over all such calls of the study, and half at random instants; each in a folder of
its own, then the study is run to its end there. Both engines take turns. A study that ended before its instant counts
as no kill.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / folder) for folder in ("crash", "study")]

from crash_kit import changes, killed_after, killed_at, study  # noqa: E402
from machine import heading  # noqa: E402
from study_kit import results  # noqa: E402

from tombola.files import write_all  # noqa: E402


def main() -> None:
    """Kill, go on, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    draw = random.Random(0)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as top:
        whole = {}
        for engine in ("plain", "sparse"):
            folder = Path(top) / engine
            began = time.perf_counter()
            count = changes(folder, engine)
            whole[engine] = results(folder), count, time.perf_counter() - began
        number = -1
        while sum(row["killed"] for row in rows) < arguments.kills:
            number += 1
            engine = ("plain", "sparse")[number % 2]
            expected, count, seconds = whole[engine]
            folder = Path(top) / "killed"
            if number % 4 < 2:
                at = (number * count // arguments.kills) % count
                ended, instant = killed_at(folder, engine, at), f"change {at} of {count}"
            else:
                after = draw.uniform(0, seconds)
                ended, instant = killed_after(folder, engine, after), f"after {after:.2f} s of about {seconds:.1f} s"
            kept = len(list(folder.glob("store/units/*/*.json")))
            study(folder, engine)
            equal = results(folder) == expected
            rows.append(
                {
                    "engine": engine,
                    "instant": instant,
                    "killed": ended == -signal.SIGKILL,
                    "units": kept,
                    "equal": equal,
                }
            )
            print(rows[-1], flush=True)
            shutil.rmtree(folder)
    report = {
        **heading(),
        "kills": sum(row["killed"] for row in rows),
        "equal": sum(row["equal"] for row in rows),
        "of": len(rows),
        "rows": rows,
    }
    print({key: report[key] for key in ("kills", "equal", "of")})
    if arguments.out:
        write_all({arguments.out: (json.dumps(report, indent=1) + "\n").encode()})


if __name__ == "__main__":
    main()
