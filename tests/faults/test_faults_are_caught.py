"""The faults of published code, one of each kind; ``python tests/faults/plant.py`` plants all of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FEW = (
    "ceiling and one",
    "norms are pruned",
    "a shuffle that does nothing",
    "weights are not reset",
    "another rate in round 0",
    "no gradient below zero",
    "the test split is watched",
    "momentum revives",
    "ranks hold different masks",
)

CODE = (
    "open_lth",
    "lottery-ticket-hypothesis",
    "rahulvigneswaran",
    "pytorch-lightning",
    "microsoft/nni",
    "Synaptic-Flow",
    "SNIP-it",
    "hidden-networks",
    "rigl",
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script, away from the options of this session."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, str(HERE / "plant.py"), *arguments],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each fault is planted in a fork")
def test_a_few_faults_are_caught() -> None:
    found = run(*(part for name in FEW for part in ("--only", name)))
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.endswith(f"{len(FEW)} of {len(FEW)} faults are caught\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each fault is planted in a fork")
def test_a_fault_that_no_test_sees_is_told() -> None:
    """The script itself can fail: with a fault that is none, and with one that breaks what is no test."""
    script = """
import sys
sys.argv[1:] = []
sys.path.insert(0, {here!r})
import plant
from catalogue import Fault
node = "tests/prune/test_prune_counting.py::test_halves_go_up"
def broken():
    raise LookupError("gone")
def mistyped():
    from tombola.prune import counting
    counting.Fraction = None
plant.FAULTS = tuple(Fault(how.__name__, "", "", how, (node,)) for how in (int, broken, mistyped))
raise SystemExit(plant.main())
"""
    found = subprocess.run(
        [sys.executable, "-c", script.format(here=str(HERE))], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 1, found.stderr
    assert "0 of 3 faults are caught" in found.stdout
    assert "pytest ended with 0" in found.stdout
    assert "LookupError: gone" in found.stdout
    assert "fails by TypeError" in found.stdout


def test_every_code_base_is_listed() -> None:
    listed = run("--list").stdout
    for name in (*FEW, *CODE):
        assert name in listed
    assert "no such feature yet: edge-popup" in listed
