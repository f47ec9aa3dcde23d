"""A search whose runs another process holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from study_kit import settings

from tombola.search.find import run
from tombola.search.named import prepare
from tombola.study import recalling
from tombola.study.store import Store


@pytest.mark.parametrize("engine", ["plain", "replicas"])
@pytest.mark.parametrize(("refusals", "lines"), [(0, 0), (60, 1)])
def test_a_long_wait_for_another_process_is_said_once(
    engine: str, refusals: int, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Elsewhere each unit is held for as many looks as make two long waits."""
    left, claim = [refusals], Store.claim

    @contextmanager
    def held(store: Store, key: str) -> Iterator[bool]:
        left[0] -= 1
        if left[0] >= 0:
            yield False
        else:
            with claim(store, key) as mine:
                yield mine

    monkeypatch.setattr(Store, "claim", held)
    monkeypatch.setattr(recalling, "_LOOK_EVERY_SECONDS", 0.001)
    monkeypatch.setattr(recalling, "_SAY_AFTER_SECONDS", 0.005)
    one = settings(engine=engine, rounds=1, replicates=1, dense_runs=1, workers=1, controls=())
    assert run(recalling.recalling(prepare(one), tmp_path / "s")).levels
    said = [line for line in capsys.readouterr().err.splitlines() if "waiting for another process" in line]
    assert len(said) == lines
    assert all(str(tmp_path / "s") in line and "Ctrl-C" in line for line in said)
