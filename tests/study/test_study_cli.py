"""``tombola study`` and ``tombola store`` as a user calls them."""

import json
from pathlib import Path

import pytest

from tombola.cli import main

TOML = """
name = "mine"
title = "two searches"
[common]
model = "study_kit:net"
rounds = 2
rate = 0.5
replicates = 3
dense_runs = 1
workers = 1
[common.recipe]
iterations = 24
batch_size = 50
eval_every = 6
[searches.iterative]
controls = ["reinit"]
[searches.one-shot]
strategy = "one-shot"
controls = []
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was run from a file."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "mine.toml").write_text(TOML)
    assert main(["study", "run", str(folder / "mine.toml"), "--out", str(folder / "s")]) == 0
    return folder / "s"


def test_named_studies_are_listed_and_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["study", "list"]) == 0
    assert "lenet-mnist" in capsys.readouterr().out
    assert main(["study", "show", "lenet-mnist", "--size", "smoke"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "again.toml").write_text(text)
    assert main(["study", "show", str(tmp_path / "again.toml")]) == 0
    assert capsys.readouterr().out == text


def test_a_study_writes_a_folder_for_each_search(done: Path) -> None:
    for name in ("iterative", "one-shot"):
        assert {path.name for path in (done / name).iterdir()} == {
            "ticket.safetensors",
            "trained.safetensors",
            "result.json",
            "results.csv",
        }
    body = json.loads((done / "result.json").read_text())
    assert body["study"] == "mine"
    assert body["searches"].keys() == {"iterative", "one-shot"}
    assert body["failed"] == {}


def test_it_goes_on_without_training(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in done.glob("*/*.safetensors")}
    assert main(["study", "resume", str(done), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"]
    assert {path: path.read_bytes() for path in done.glob("*/*.safetensors")} == before
    assert main(["study", "status", str(done), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["finished"]
    assert told["units"] == len(list((done / "store").glob("units/*/*.json")))


def test_compare_says_what_differs(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text(TOML.replace("eval_every = 6", "eval_every = 6\nlr = 0.002"))
    assert main(["study", "run", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "t")]) == 0
    capsys.readouterr()
    assert main(["study", "compare", str(done), str(done)]) == 0
    assert "equal" in capsys.readouterr().out
    assert main(["study", "compare", str(done), str(tmp_path / "t")]) == 1
    out = capsys.readouterr().out
    assert "searches.iterative.levels[0].ticket" in out
    assert "iterative/ticket.safetensors differs" in out
    assert main(["study", "compare", str(done), str(tmp_path)]) == 2
    assert main(["study", "compare", str(done), str(done / "iterative")]) == 2
    assert "holds one search and no study" in capsys.readouterr().err


def test_a_store_elsewhere_is_remembered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text(TOML)
    folder, store = tmp_path / "s", tmp_path / "of all"
    assert main(["study", "run", str(tmp_path / "mine.toml"), "--out", str(folder), "--store", str(store)]) == 0
    units = sorted(store.glob("units/*/*.json"))
    (folder / "result.json").unlink()
    assert main(["study", "resume", str(folder)]) == 0
    assert main(["study", "run", str(tmp_path / "mine.toml"), "--out", str(folder)]) == 0
    assert (folder / "result.json").exists()
    assert not (folder / "store").exists()
    assert sorted(store.glob("units/*/*.json")) == units
    capsys.readouterr()
    assert main(["study", "status", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["units"] == len(units)


def test_the_order_of_controls_is_no_difference(tmp_path: Path) -> None:
    text = TOML.replace('["reinit"]', '["reinit", "permute"]')
    for name, one in (("a", text), ("b", text.replace('["reinit", "permute"]', '["permute", "reinit"]'))):
        (tmp_path / "mine.toml").write_text(one)
        words = ["study", "run", str(tmp_path / "mine.toml"), "--out", str(tmp_path / name)]
        assert main([*words, "--store", str(tmp_path / "store")]) == 0
    assert main(["study", "compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0


def test_the_store_is_listed_checked_and_cleaned(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(done / "store")
    assert main(["store", "ls", store]) == 0
    assert "units" in capsys.readouterr().out
    assert main(["store", "check", store]) == 0
    record = next((done / "store").glob("units/*/*.json"))
    data = record.read_bytes()
    record.write_bytes(data[:-5])
    assert main(["store", "check", store]) == 1
    assert record.name in capsys.readouterr().out
    assert main(["store", "gc", store, "--rehearse"]) == 0
    assert main(["store", "gc", store]) == 0
    assert main(["study", "resume", str(done)]) == 0
    assert main(["store", "check", store]) == 0
    assert record.read_bytes() == data


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study", "run", "lenet-mnits"], "Did you mean 'lenet-mnist'"),
        (["study", "run", "lenet-mnist", "--size", "tiny"], "smoke"),
        (["study", "run", "nowhere.toml"], "cannot be read"),
        (["study", "resume", "."], "there is no study in"),
        (["store", "ls", "."], "there is no store in"),
        (["study", "run", "lenet-mnist", "--ray", "local", "--workers", "2"], "Give one of them"),
    ],
)
def test_wrong_calls_are_named(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["altered", "cut"])
def test_an_altered_study_file_is_never_run_in_silence(
    done: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = done / "study.toml"
    data = path.read_text()
    path.write_text(
        data.replace("replicates = 3", "replicates = 4", 1) if harm == "altered" else data[: len(data) // 2]
    )
    assert main(["study", "resume", str(done)]) == 2
    assert "study.toml" in capsys.readouterr().err
    assert main(["study", "run", str(done.parent / "mine.toml"), "--out", str(done)]) == 0
    assert path.read_text() == data
