"""Killed at any instant and run again, a study ends in the bytes of one that was never killed."""

import random
import signal
from pathlib import Path

import pytest
from crash_kit import changes, killed_after, killed_at, study
from study_kit import results

from tombola.sparse.kernels.library import available
from tombola.study.store import Store

SPARSE = pytest.param("sparse", marks=pytest.mark.skipif(not available(), reason="the compiled kernels are not here"))
WRITES = 4
"""Of several hundred; ``benchmarks/kill_study.py`` goes through fifty instants."""


@pytest.mark.parametrize("engine", ["plain", SPARSE])
def test_killed_again_and_again_it_ends_alike(tmp_path: Path, engine: str) -> None:
    count = changes(tmp_path / "whole", engine)
    expected = results(tmp_path / "whole")
    draw = random.Random(engine)
    # Each time it gets a little further: the same folder is killed at one point after another.
    for number in range(WRITES):
        assert killed_at(tmp_path / "s", engine, draw.randrange(count // WRITES)) in (-signal.SIGKILL, 0), number
    killed_after(tmp_path / "s", engine, 0.2)
    study(tmp_path / "s", engine)
    assert results(tmp_path / "s") == expected
    health = Store(tmp_path / "s/store").check()
    assert health.altered == ()
    assert health.units == Store(tmp_path / "whole/store").check().units
