"""A finished run, read back and looked at: whoever trained it, and whatever became of its files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tombola
from tombola.cli import main
from tombola.errors import InvalidResults, InvalidValue, UnknownName
from tombola.explain.material import read

WORDS = ["find", "--rounds", "4", "--rate", "0.4", "--iterations", "60", "--replicates", "3", "--dense-runs", "2",
         "--controls", "reinit", "--workers", "1", "--lr", "0.004"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert main([*WORDS, "--out", str(folder)]) == 0
    return folder


def test_a_run_is_read_back_as_it_was_trained(run: Path) -> None:
    """The masks are those that the saved ticket names, and the dense networks score what the result says."""
    found, told = read(run), json.loads((run / "result.json").read_text())
    ticket = tombola.load(run / "ticket.safetensors")
    r, level = ticket.provenance["replicate"], ticket.provenance["level"]
    family = next(one for one in found.families if one.replicate == r)
    assert all(torch.equal(mask, family.masks[level][name]) for name, mask in ticket.masks.items())
    assert all(
        torch.equal(value[ticket.masks[name]] if name in ticket.masks else value, kept)
        for name, value in family.theta_0.items()
        for kept in [ticket.start[name][ticket.masks[name]] if name in ticket.masks else ticket.start[name]]
    )
    assert [len(one.ends) for one in found.families] == [2, 2, 2]
    assert found.accuracies(level)[r] == told["levels"][level]["arms"]["ticket"]["test_accuracy"][r]


def test_the_command_prints_tables_a_verdict_and_writes_their_numbers(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(run), "--draws", "2", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Conjecture: " in out
    assert "This is correlational" in out
    told = json.loads((tmp_path / "analysis.json").read_text())
    assert set(told["tables"]) == {
        "movement", "quantiles", "survival", "deciles", "signs", "overlap", "initialisations", "one-shot", "densities",
        "effective", "shape", "supermasks", "barriers",
    }  # fmt: skip
    assert not told["missing"]
    assert {path.stem for path in tmp_path.glob("*.csv")} == set(told["tables"])
    aucs = {row[0]: row[1] for row in told["tables"]["survival"]["rows"]}
    assert all(0.5 < auc < 1 for auc in aucs.values())
    assert list(told["conjecture"]["measurements"]) == ["survival", "signs", "overlap", "supermask", "reinit"]


def test_the_same_run_and_seed_give_the_same_bytes(run: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert main(["analyze", str(run), "--draws", "2", "--json", "--out", str(tmp_path / name)]) == 0
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


def test_what_trains_further_is_kept_and_not_trained_twice(run: Path, tmp_path: Path) -> None:
    """The mask of the dense run ends as its last one, at no distance; barriers and the intervention are numbers."""
    words = ["analyze", str(run), "--draws", "1", "--also", "early,instability,intervention", "--out"]
    assert main([*words, str(tmp_path / "first")]) == 0
    kept = sorted(path.name for path in (run / "store" / "units").rglob("*") if path.is_file())
    told = json.loads((tmp_path / "first" / "analysis.json").read_text())["deeper"]
    last = told["tables"]["early"]["rows"][-1]
    assert last[0] == 60
    assert (last[1], last[7]) == (0.0, 1.0)
    jaccards = [row[7] for row in told["tables"]["early"]["rows"]]
    assert jaccards[0] < jaccards[-2] < 1
    for name in ("instability-of-the-dense-network", "instability-of-the-subnetwork"):
        assert all(abs(row[1]) < 1 for row in told["tables"][name]["rows"])
    assert len(told["intervention"]["excess"]) == 3
    assert told["intervention"]["low"] < told["intervention"]["mean"] < told["intervention"]["high"]
    assert main([*words, str(tmp_path / "second")]) == 0
    assert sorted(path.name for path in (run / "store" / "units").rglob("*") if path.is_file()) == kept
    first, second = ((tmp_path / name / "analysis.json").read_bytes() for name in ("first", "second"))
    assert first == second


def test_what_is_not_known_to_train_is_refused_before_anything_is_measured(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(run), "--also", "earlier"]) == 2
    err = capsys.readouterr().err
    assert "UnknownName" in err
    assert "measured" not in err


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))


X = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()


def train(model: nn.Module, *, seed: int, iterations: int, record: Any) -> None:  # noqa: ARG001
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(record.start, record.stop):
        batch = torch.randint(200, (32,), generator=rng)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[batch]), Y[batch]).backward()
        optimizer.step()


def score(model: nn.Module) -> float:
    return float((model(X).argmax(1) == Y).float().mean())


def test_a_loop_of_ones_own_is_looked_at_in_memory_and_from_its_files(tmp_path: Path) -> None:
    found = tombola.find(build, train, score, iterations=60, rounds=2, replicates=3, dense_runs=2, progress=False)
    whole = tombola.analyze(found, build=build, score=score, example=X[:1], draws=2)
    assert not whole.missing
    found.save(tmp_path)
    again = tombola.analyze(tmp_path, build=build, score=score, draws=2)
    assert [one.name for one in again.missing] == ["effective"]
    for table in again.tables:
        assert table == next(one for one in whole.tables if one.name == table.name)
    assert main(["analyze", str(tmp_path), "--draws", "1"]) == 0
    bare = tombola.analyze(tmp_path, draws=1)
    assert {one.name for one in bare.missing} == {"effective", "supermasks", "barriers"}
    assert bare.conjecture.measurements["supermask"].mean is None


def test_one_dense_run_says_what_it_lacks(tmp_path: Path) -> None:
    words = [word if word != "2" else "1" for word in WORDS]
    assert main([*words, "--out", str(tmp_path)]) == 0
    found = tombola.analyze(tmp_path, draws=1)
    assert [one.name for one in found.missing] == ["overlap"]
    assert "--dense-runs 2" in found.missing[0].why
    assert found.conjecture.verdict.value in ("cannot tell", "not supported", "contradicted")


def test_what_is_damaged_or_not_there_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidResults, match="there is no finished run"):
        read(tmp_path)
    with pytest.raises(UnknownName, match="search"):
        read(run, "another")
    with pytest.raises(InvalidValue, match="no masks of level 99"):
        tombola.analyze(run, level=99)
    hurt = tmp_path / "hurt"
    shutil.copytree(run, hurt)
    (hurt / "result.json").write_text("{")
    with pytest.raises(InvalidResults, match="cannot be read"):
        read(hurt)
    (hurt / "result.json").unlink()
    with pytest.raises(InvalidResults, match="not finished"):
        read(hurt)
    shutil.copy(run / "result.json", hurt / "result.json")
    shutil.rmtree(hurt / "store")
    with pytest.raises(InvalidResults, match="lacks the run"):
        read(hurt)
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(run / "result.json", own / "result.json")
    for garbage in (b"", b"x" * 100, (100).to_bytes(8, "little") + b"{}"):
        (own / "networks.safetensors").write_bytes(garbage)
        with pytest.raises(InvalidResults, match="does not hold the networks"):
            read(own)
