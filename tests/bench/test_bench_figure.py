"""The figure of a small report."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib", reason="the figure needs matplotlib: pip install tombola[plots]")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "figure.py"
RIVALS = ("sparse", "eager", "compiled", "prune", "csr", "sparseprop")


def report() -> dict[str, Any]:
    rows = [
        {"benchmark": "iteration", "model": "lenet-300-100", "rival": rival, "density": density, "batch": 60,
         "threads": 1, "milliseconds": (1 + number) * (density if rival == "sparse" else 1.0),
         "floor_milliseconds": density / 2, "turns": 3}
        for density in (1.0, 0.2, 0.05) for number, rival in enumerate(RIVALS)
    ]  # fmt: skip
    about = {"processor": "A Processor", "versions": {"torch": "2.13"}, "date": "2026-11-23"}
    return {**about, "data": {"lenet-300-100": "random"}, "rows": rows}


def make(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    results = folder / "results.json"
    results.write_text(json.dumps(report()))
    words = [sys.executable, str(SCRIPT), str(results), "--out", str(out)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def test_the_figure_names_everything_and_is_the_same_twice(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        done = make(tmp_path, tmp_path / name)
        assert done.returncode == 0, done.stderr
    made = (tmp_path / "one.svg").read_bytes()
    assert made == (tmp_path / "two.svg").read_bytes()
    words = " ".join(
        "".join(part.itertext()) for part in ElementTree.fromstring(made).iter("{http://www.w3.org/2000/svg}text")
    )
    assert [rival for rival in RIVALS if rival not in words] == []
    for text in ("floor", "(ms)", "fraction of the weights", "1 thread", "A Processor", "2026-11-23", "lenet-300-100"):
        assert text in words


WRONG: dict[str, tuple[str | None, list[str], str]] = {
    "another model": (json.dumps(report()), ["--model", "vgg-19"], "there are: lenet-300-100"),
    "no file": (None, [], "cannot be read: No such file"),
    "no JSON": ("density,milliseconds", [], "is not JSON"),
    "a list": ("[]", [], "no list of rows"),
    "another report": ('{"seeds": []}', [], "no list of rows"),
    "rows of another kind": (json.dumps({**report(), "rows": [{"seed": 0}, 1]}), [], "lacks batch, benchmark"),
    "no processor": (json.dumps({k: v for k, v in report().items() if k != "processor"}), [], "lacks processor,"),
    "no rows": (json.dumps({**report(), "rows": []}), [], "there are: none at all"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_input_gets_one_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, words, says = WRONG[case]
    results, out = tmp_path / "results.json", tmp_path / "none.svg"
    if text is not None:
        results.write_text(text)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(results), "--out", str(out), *words])
    assert runpy.run_path(str(SCRIPT))["main"]() == 2
    said = capsys.readouterr().err
    assert said.startswith("InvalidResults: ")
    assert said.count("\n") == 1
    assert says in said
    assert not out.exists()
