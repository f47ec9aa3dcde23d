"""The keys that ``docs/json.md`` and ``docs/bench.md`` list are those of the JSON, level by level."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import tombola
from tombola.bench.rivals import LeftOut
from tombola.search.levels import Dropped
from tombola.sparse.kernels.library import missing

DOCS = Path(__file__).parents[1] / "docs"
SMALL = "64-300-100-10"

Cells = dict[str, str]


def tables(name: str) -> dict[str, Cells]:
    """Read the tables of keys: the sentence before each -> key -> what is said of it."""
    found: dict[str, Cells] = {}
    for before, block in pairwise((DOCS / name).read_text().split("\n\n")):
        if not block.startswith("| key | value |"):
            continue
        sentence = re.split(r"\.\s", before.replace("\n", " "))[-1]
        cells = found[sentence] = {}
        for line in block.splitlines()[2:]:
            _, names, value, _ = line.split("|")
            for key in re.findall(r"`(\w+)`", names):
                assert key not in cells, f"{key} stands twice in the table: {sentence}"
                cells[key] = value
    return found


def keys(objects: Iterable[Mapping[str, Any] | None]) -> set[str]:
    return {key for one in objects if one is not None for key in one}


def compare(name: str, emitted: Mapping[str, set[str]]) -> None:
    documented = {sentence: set(cells) for sentence, cells in tables(name).items()}
    assert documented.keys() == emitted.keys()
    for sentence, expected in emitted.items():
        assert expected, f"nothing was emitted for: {sentence}"
        assert documented[sentence] == expected, sentence


def command(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tombola", *words, "--json"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def finding(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A search of the command line on the digits."""
    sizes = ["--rounds", "1", "--replicates", "3", "--dense-runs", "1", "--iterations", "10", "--workers", "1"]
    return command("find", *sizes, "--out", str(tmp_path_factory.mktemp("found")))


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    """A search in a loop that is not ours."""
    x, y = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2

    def train(model: nn.Module, *, seed: int, iterations: int, record: tombola.Record) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(record.start, record.start + iterations):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y) * (1 + seed % 7)
            loss.backward()
            optimizer.step()
            record(step + 1, loss=loss.detach())

    def evaluate(model: nn.Module) -> float:
        return float((model(x).argmax(1) == y).float().mean())

    build: Callable[[], nn.Module] = lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))  # noqa: E731
    return tombola.find(build, train, evaluate, iterations=3, rounds=1, replicates=2, dense_runs=1).as_json()


def test_the_keys_of_find_are_those_of_its_document(finding: dict[str, Any], own: dict[str, Any]) -> None:
    both = (finding, own)
    levels = [level for one in both for level in one["levels"]]
    judged = [level["judged"] for level in levels if "judged" in level]
    dropped = asdict(Dropped(replicate=0, level=0, arm="dense", sentence="It diverged."))
    compare(
        "json.md",
        {
            "There is no NaN; what is not known is `null`.": keys(both),
            "Each entry of `dropped`:": keys([dropped]),
            "Each entry of `levels`:": keys(levels),
            "Each of `arms` holds lists over `replicates_used`:": keys(
                arm for level in levels for arm in level["arms"].values()
            ),
            "`judged` has:": keys(judged),
            "`budget` and `early` have:": keys(one[clause] for one in judged for clause in ("budget", "early")),
            "`speed` has:": keys(one["speed"] for one in judged),
            "Each of `controls` in `judged` has:": keys(c for one in judged for c in one["controls"].values()),
            "`judgement` has:": keys(one["judgement"] for one in both),
            "What cannot be counted, as the operations of a loop of your own without `input_shape` and `batch_size`, "
            "is `null`, and so is every sum that it is part of.": keys(one["cost"] for one in both),
            "Each entry of `cost.runs`:": keys(run for one in both for run in one["cost"]["runs"]),
            "`wall` has:": keys(one["cost"]["wall"] for one in both),
        },
    )


def test_what_a_cell_lists_is_what_its_object_has(finding: dict[str, Any]) -> None:
    cells = {key: value for table in tables("json.md").values() for key, value in table.items()}
    judged = finding["levels"][1]["judged"]
    objects = {
        "certified": finding["certified"],
        "estimate": finding["judgement"]["estimate"],
        "dense": judged["budget"]["dense"],
        "control": judged["controls"]["reinit"]["control"],
    }
    cells["certified"] = tables("json.md")["There is no NaN; what is not known is `null`."]["certified"]
    for key, value in objects.items():
        assert set(re.findall(r"`(\w+)`", cells[key])) - {"null"} == value.keys(), key


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_keys_of_bench_are_those_of_its_document() -> None:
    words = ["bench", "iteration", "ladder", "--model", SMALL, "--rivals", "eager", "--densities", "0.2"]
    report = command(*words, "--turns", "1", "--iterations", "1")
    assert {row["benchmark"] for row in report["rows"]} == {"iteration", "ladder"}
    compare(
        "bench.md",
        {
            "`--json` prints one object and nothing else on standard output; `--out FILE` writes the same, again after "
            "each part, so that an interrupted run leaves what it had.": keys([report]),
            "Each row has all of these keys:": keys(report["rows"]),
            "Each of `machine`:": keys(report["machine"].values()),
            "Each of `ladder`:": keys(report["ladder"].values()),
            "Each entry of `left_out`:": keys([asdict(LeftOut("jax", "It is not installed."))]),
        },
    )
    assert all(row.keys() == report["rows"][0].keys() for row in report["rows"])
