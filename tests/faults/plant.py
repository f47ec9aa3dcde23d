"""Plant every fault of published code in the library and see that a test fails.

``python tests/faults/plant.py`` prints a table and exits with 1 if a fault is not caught; ``--list`` says what there
is; ``--only NAME`` plants one. Every fault is planted in a process of its own, before any test module is imported, and
only the tests named for it are run. Caught means that each of these tests fails, by an assertion, by an expected
exception that does not come, or by an error of the library's own: a fault that breaks the import or the collection is
not caught. Without a fault the same tests pass, which is checked first.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import torch

# What the tests import is imported here, once for all processes.
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "prune"))

import planting  # noqa: E402

planting.import_everything()

from catalogue import FAULTS, MISSING, Fault  # noqa: E402

from tombola.errors import TombolaError  # noqa: E402


@dataclass(eq=False)
class Report:
    """What a pytest session did; also its plugin.

    Attributes:
        exit: the session's exit status; -1 where it did not come so far.
        passed: node ids.
        failed: node id -> why.
        broken: what went wrong outside of tests.
    """

    exit: int = -1
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def pytest_exception_interact(self, node: Any, call: Any, report: Any) -> None:
        error = call.excinfo.type
        if getattr(report, "when", None) != "call":
            self.broken.append(f"{node.nodeid}: {error.__name__}: {call.excinfo.value}"[:300])
            return
        told = issubclass(error, (AssertionError, pytest.fail.Exception, TombolaError))
        self.failed[node.nodeid] = "assertion" if told else error.__name__

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and report.passed:
            self.passed.append(report.nodeid)


def in_child(work: Callable[[], Report]) -> int:
    """Start a process that writes its report; give what to read it from. Nothing has been computed here, so no threads
    are lost on the way."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return reading
    os.close(reading)
    with open(os.devnull if "-v" not in sys.argv else "/dev/stderr", "w") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            report = work()
        except BaseException as error:
            report = Report(broken=[f"{type(error).__name__}: {error}"])
        with open(writing, "w") as stream:
            stream.write(json.dumps([report.exit, report.passed, report.failed, report.broken]))
    os._exit(0)


def collect(reading: int) -> Report:
    """Read a child's report, and let the child go."""
    with open(reading) as stream:
        text = stream.read()
    with contextlib.suppress(ChildProcessError):
        os.wait()
    return Report(*json.loads(text)) if text else Report(broken=["the process died"])


def session(tests: Sequence[str], plant: Callable[[], None] | None = None) -> Report:
    """Run tests in this process, which ends with them."""
    torch.set_num_threads(1)
    os.chdir(ROOT)
    report = Report()
    if plant is not None:
        plant()
    with tempfile.TemporaryDirectory() as folder:
        nodes = [str(ROOT / one) for one in tests]
        options = [
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
            f"--basetemp={folder}/t",
            f"--rootdir={ROOT}",
        ]
        report.exit = int(pytest.main([*options, *nodes], plugins=[report]))
    return report


def belongs(node: str, test: str) -> bool:
    return node == test or node.startswith((f"{test}[", f"{test}::"))


def verdict(fault: Fault, report: Report) -> tuple[bool, str]:
    """Say whether each of the fault's tests failed as a test does."""
    if report.broken or report.exit != pytest.ExitCode.TESTS_FAILED:
        return False, "; ".join(report.broken) or f"pytest ended with {report.exit}"
    for test in fault.tests:
        why = {reason for node, reason in report.failed.items() if belongs(node, test)}
        if not why:
            return False, f"{test} does not fail"
        odd = why - {"assertion", *fault.errors}
        if odd:
            return False, f"{test} fails by {', '.join(sorted(odd))}"
    return True, ""


def examine(faults: Sequence[Fault], workers: int) -> list[dict[str, Any]]:
    """Check the sound library, then plant each fault; ``workers`` at a time, the table's order kept."""
    every = sorted({test for fault in faults for test in fault.tests})
    sound = collect(in_child(lambda: session(every)))
    if sound.exit != 0:
        raise SystemExit(f"without a fault, these tests do not pass: {list(sound.failed) + sound.broken}")
    for fault in faults:
        for test in fault.tests:
            if not any(belongs(node, test) for node in sound.passed):
                raise SystemExit(f"no test is called {test}")
    rows: list[dict[str, Any]] = []
    running: list[tuple[Fault, int, float]] = []
    waiting = list(faults)
    while running or waiting:
        while waiting and len(running) < workers:
            fault = waiting.pop(0)
            reading = in_child(lambda fault=fault: session(fault.tests, fault.plant))  # type: ignore[misc]
            running.append((fault, reading, time.monotonic()))
        fault, reading, began = running.pop(0)
        report = collect(reading)
        caught, why = verdict(fault, report)
        rows.append({
            "fault": fault.name,
            "code": fault.code,
            "sentence": fault.sentence,
            "tests": list(fault.tests),
            "failed": sorted(report.failed),
            "caught": caught,
            "why_not": why,
            "seconds": round(time.monotonic() - began, 1),
        })  # fmt: skip
        print(f"{'yes' if caught else 'NO ':<4}{fault.name:<36}{fault.code}", flush=True)
        for test in fault.tests:
            print(f"         {test.removeprefix('tests/')}")
        if why:
            print(f"         {why}")
    return rows


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="say what is planted and what there is no feature for")
    parser.add_argument("--only", metavar="NAME", action="append", help="plant this fault; may be repeated")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    parser.add_argument("-v", action="store_true", help="show what pytest says")
    arguments = parser.parse_args()
    if arguments.list:
        for fault in FAULTS:
            print(f"{fault.name:<36}{fault.code}\n     {fault.sentence}")
        for one in MISSING:
            print(f"{one.name:<36}{one.code}\n     no such feature yet: {one.feature}. {one.sentence}")
        return 0
    unknown = set(arguments.only or ()) - {fault.name for fault in FAULTS}
    if unknown:
        parser.error(f"no fault is called {', '.join(sorted(unknown))}; see --list")
    print(f"{'':<4}{'fault':<36}seen in\n         the tests that must fail")
    rows = examine([f for f in FAULTS if f.name in (arguments.only or (f.name,))], arguments.workers)
    caught = sum(row["caught"] for row in rows)
    if not arguments.only:
        for one in MISSING:
            print(f"{'-':<4}{one.name:<36}{one.code}\n         no such feature yet: {one.feature}")
    print(f"{caught} of {len(rows)} faults are caught")
    if arguments.out:
        report = {
            "command": "python tests/faults/plant.py",
            "torch": torch.__version__,
            "python": platform.python_version(),
            "caught": caught,
            "planted": len(rows),
            "faults": rows,
            "no_such_feature_yet": [vars(one) for one in MISSING],
        }
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if caught == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
