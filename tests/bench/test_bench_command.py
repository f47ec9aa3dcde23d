"""``tombola bench``: its rows, its files and its errors."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench_kit import SMALL, small

from tombola.bench import ladder, replicas, scaling
from tombola.bench.floor import Machine
from tombola.bench.report import Report, Row
from tombola.bench.settings import RIVALS, Settings
from tombola.bench.shown import rendered
from tombola.cli import main
from tombola.errors import InvalidValue, UnknownName
from tombola.sparse.kernels.library import missing

NUMBER = (int, float)
TYPES: dict[str, Any] = {
    "benchmark": str,
    "model": str,
    "rival": str,
    "density": (*NUMBER, type(None)),
    "batch": int,
    "threads": int,
    "milliseconds": NUMBER,
    "ratio": NUMBER,
    "floor_milliseconds": (*NUMBER, type(None)),
    "least_milliseconds": NUMBER,
    "ratio_of_least": NUMBER,
    "spread": (*NUMBER, type(None)),
    "turns": int,
    "iterations": int,
    "level": (int, type(None)),
    "setup_milliseconds": (*NUMBER, type(None)),
    "replicates": int,
    "jobs": int,
    "note": (str, type(None)),
}
MACHINE = Machine(1e11, 1e11)

needs_kernels = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def checked(row: dict[str, Any]) -> None:
    assert row.keys() == TYPES.keys()
    for key, value in row.items():
        assert isinstance(value, TYPES[key]), (key, value)
    assert row["milliseconds"] >= row["least_milliseconds"] > 0
    if row["rival"] in ("sparse", "replicas") and row["benchmark"] != "scaling":
        assert row["ratio"] == row["ratio_of_least"] == 1


@needs_kernels
def test_the_command_prints_one_object_and_writes_it(tmp_path: Path) -> None:
    out = tmp_path / "new" / "result.json"
    words = ["bench", "iteration", "--turns", "1", "--densities", "0.1", "--rivals", "eager,prune,csr", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tombola", *words, "--model", SMALL, "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    report = json.loads(done.stdout)
    assert [row["rival"] for row in report["rows"]] == ["sparse", "eager", "prune", "csr"]
    for row in report["rows"]:
        checked(row)
        assert (row["benchmark"], row["model"], row["batch"], row["threads"]) == ("iteration", SMALL, 60, 1)
        assert row["density"] == pytest.approx(0.1, abs=1e-4)
        assert row["floor_milliseconds"] > 0
    assert {"tombola", "torch", "python", "numpy"} <= report["versions"].keys()
    for key in ("schema", "date", "processor", "cores", "kernels", "load_average_before", "load_average_after"):
        assert report[key]
    assert report["machine"][SMALL].keys() == {"peak_gflops", "copy_gigabytes_a_second"}
    assert "random" in report["data"][SMALL]
    assert report["left_out"] == []
    written = json.loads(out.read_text())
    assert written["rows"] == report["rows"]
    assert [path.name for path in out.parent.iterdir()] == ["result.json"], "nothing half-written is left"


@needs_kernels
def test_ladder_has_a_row_for_each_level_and_one_for_all() -> None:
    report = Report(Settings(benchmarks=("ladder",)), machine={SMALL: MACHINE}, data={SMALL: "random"})
    found = ladder.measure(small(), rivals=["eager", "prune"], turns=2, iterations=4, machine=MACHINE, levels=3)
    rows = report.rows = [row for row in found if isinstance(row, Row)]
    for row in report.as_json()["rows"]:
        checked(row)
    ours = [row for row in rows if row.rival == "sparse"]
    assert [row.level for row in ours] == [0, 1, 2, None]
    assert [row.density for row in ours][0::3] == [1.0, None]
    assert ours[1].density == pytest.approx(0.8, abs=0.01)
    assert ours[3].iterations == 3 * 4
    assert ours[3].milliseconds >= sum(4 * row.least_milliseconds for row in ours[:3])
    totals = {row.rival: row for row in rows if row.density is None}
    fastest = min(("eager", "prune"), key=lambda name: totals[name].milliseconds)
    assert report.ladder()[SMALL] == {
        "rival": fastest,
        "milliseconds": totals[fastest].milliseconds,
        "ratio": totals[fastest].ratio,
    }
    assert_shows(report, "all levels", f"fastest masked dense loop ({fastest})")


@needs_kernels
def test_replicas_are_eight_networks() -> None:
    report = Report(Settings(benchmarks=("replicas",)), machine={SMALL: MACHINE}, data={SMALL: "random"})
    found = replicas.measure(small(), 0.2, rivals=["eager"], turns=1, machine=MACHINE)
    report.rows = [row for row in found if isinstance(row, Row)]
    assert [(row.rival, row.replicates) for row in report.rows] == [("replicas", 8), ("eager", 8)]
    for row in report.as_json()["rows"]:
        checked(row)
    assert_shows(report, "networks")


@needs_kernels
def test_scaling_compares_jobs_with_one() -> None:
    report = Report(Settings(benchmarks=("scaling",)), machine={SMALL: MACHINE}, data={SMALL: "random"})
    report.rows = list(scaling.measure(small(), 0.1, turns=1, cores=2, seconds=0.01))
    assert [(row.jobs, row.rival) for row in report.rows] == [(1, "sparse"), (2, "sparse")]
    assert report.rows[0].ratio == 1
    for row in report.as_json()["rows"]:
        checked(row)
    assert_shows(report, "jobs")


def assert_shows(report: Report, *texts: str) -> None:
    from io import StringIO

    from rich.console import Console

    screen = Console(file=StringIO(), width=200)
    screen.print(rendered(report))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert [text for text in texts if text not in shown] == []


WRONG = {
    "unknown benchmark": (["bench", "iterations"], "'iteration'"),
    "unknown rival": (["bench", "--rivals", "eager,sparsprop"], "'sparseprop'"),
    "unknown model": (["bench", "--model", "lenet-300"], "'lenet-300-100'"),
    "a rival of another benchmark": (["bench", "iteration", "--rivals", "jax"], "replicas"),
    "percent for density": (["bench", "--densities", "20"], "0.1 for 10 %"),
    "no density": (["bench", "--densities", ","], "fractions with commas"),
    "no turns": (["bench", "--turns", "0"], "at least 1"),
    "a folder for a file": (["bench", "--out", "/"], "folder"),
}


@pytest.mark.parametrize(("words", "hint"), WRONG.values(), ids=WRONG)
def test_a_wrong_call_gets_one_helpful_error(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which the command sets for its process
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert hint in captured.err
    assert "Traceback" not in captured.err


def test_help_and_wrong_words_need_no_torch() -> None:
    code = (
        "import sys; from tombola.cli import main; main(['bench', '--help']); "
        "code = main(['bench', '--rivals', 'eagr']); sys.exit(0 if code == 2 and 'torch' not in sys.modules else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_short_form_is_everything() -> None:
    settings = Settings()
    assert settings.short
    assert settings.chosen == ("iteration", "ladder", "scaling", "replicas")
    assert settings.turns_of("iteration") < Settings(benchmarks=("iteration",)).turns_of("iteration")


def test_rivals_are_those_of_the_benchmark_in_a_fixed_order() -> None:
    settings = Settings(benchmarks=("replicas", "iteration"), rivals=("jax", "csr", "eager"))
    assert settings.chosen == ("iteration", "replicas")
    assert settings.rivals_of("iteration") == ("eager", "csr")
    assert settings.rivals_of("replicas") == ("eager", "jax")
    assert {name for benchmark in settings.chosen for name in Settings().rivals_of(benchmark)} == RIVALS.keys()
    assert Settings(rivals=()).rivals_of("iteration") == ()


def test_settings_refuse() -> None:
    with pytest.raises(UnknownName, match="csr"):
        Settings(rivals=("crs",))
    with pytest.raises(InvalidValue, match="takes part in iteration, and"):
        Settings(benchmarks=("scaling",), rivals=("csr",))
