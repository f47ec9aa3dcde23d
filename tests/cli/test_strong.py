"""``tombola strong``, and ``tombola ticket`` on what it writes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tombola.cli.app import WRONG_CALL, main
from tombola.train.plain import PlainTrainer
from tombola.types import TrainJob

KEYS = {
    "weights", "unresolved", "seconds", "max_error", "mean_error", "kept", "total", "agreement", "certified",
    "target_accuracy", "ticket_accuracy", "ticket",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small search on the digits."""
    folder = tmp_path_factory.mktemp("run")
    words = "find --rounds 2 --rate 0.5 --replicates 1 --dense-runs 1 --iterations 200 --controls none --workers 1"
    assert main([*words.split(), "--out", str(folder)]) == 0
    return folder


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("dense", [False, True])
def test_a_run_becomes_a_strong_ticket_that_verifies(
    run: Path, dense: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(
        ["strong", "construct", str(run), "--out", str(tmp_path), *(["--dense"] if dense else []), "--threads", "1"],
        capsys,
    )
    assert found.keys() >= KEYS
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    assert not [key for key in (*found, *found["layers"][0], *found["sizes"]) if f"`{key}`" not in page]  # type: ignore[index,misc,call-overload]
    assert found["unresolved"] == 0
    assert found["max_error"] <= 1e-3  # type: ignore[operator]
    assert found["agreement"] >= 0.99  # type: ignore[operator]
    assert found["certified"] > 0  # type: ignore[operator]
    assert found["weights"] == 50_610
    assert (found["solved"] < 20_000) is not dense  # type: ignore[operator]
    assert json.loads((tmp_path / "result.json").read_text()).keys() == found.keys()
    path = str(tmp_path / "strong.safetensors")
    checks = told(["ticket", "verify", path], capsys)
    assert checks["ok"] is True
    assert [one["name"] for one in checks["checks"]] == ["file", "weights", "agreement", "accuracy"]  # type: ignore[index,attr-defined]
    if not dense:
        assert "error" in str(told(["ticket", "verify", path, "--target", str(run)], capsys))
    assert told(["ticket", "show", path], capsys)["kept"] == found["kept"]


def test_one_layer_more_than_the_run_has(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["strong", "construct", str(run), "--error", "1e-4", "--out", str(tmp_path)]
    one, double = told([*words, "--depth", "L+1"], capsys), told([*words[:-1], str(tmp_path / "2L")], capsys)
    assert (one["depth"], double["depth"]) == (4, 6)
    assert one["weights"] == double["weights"] == 50_610
    assert one["copies"] == one["candidates"] // 2  # type: ignore[operator]
    assert one["kept"] > double["kept"]  # type: ignore[operator]
    assert one["agreement"] >= 0.99  # type: ignore[operator]
    assert told(["ticket", "verify", str(tmp_path / "strong.safetensors"), "--target", str(run)], capsys)["ok"] is True


def test_a_flipped_bit_fails_the_check(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strong", "construct", str(run), "--error", "0.01", "--out", str(tmp_path)]) == 0
    path = tmp_path / "strong.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert main(["ticket", "verify", str(path)]) == 1
    assert "nobody has altered" in capsys.readouterr().out


def test_a_goal_takes_the_place_of_the_error(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(["strong", "construct", str(run), "--certified", "0.9", "--out", str(tmp_path)], capsys)
    assert found["certified"] >= 0.9  # type: ignore[operator]
    assert 1e-7 < found["error"] < 0.1  # type: ignore[operator]


def large() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Linear(64, 20)
    with torch.no_grad():
        first.weight.mul_(500.0)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(20, 10))


def test_a_goal_is_looked_for_where_sums_come_so_near(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights so large that the smallest error of the search is beyond what subset sums come to."""
    words = ["strong", "construct", f"{__name__}:large", "--data", "digits", "--out", str(tmp_path)]
    assert main([*words, "--error", "1e-7"]) == WRONG_CALL
    found = told([*words, "--agreement", "0.99"], capsys)
    assert found["agreement"] >= 0.99  # type: ignore[operator]


def own() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


def smooth() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3))


def test_a_module_of_ones_own_needs_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(["strong", "construct", f"{__name__}:own", "--out", str(tmp_path)], capsys)
    assert found["agreement"] is found["certified"] is found["domain"] is None
    assert found["signed"] is True, "nobody says that its inputs are not negative"
    assert told(["ticket", "verify", str(tmp_path / "strong.safetensors")], capsys)["ok"] is True


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([f"{__name__}:smooth"], "is a GELU"),
        ([f"{__name__}:own", "--error", "0"], "a number above 0"),
        ([f"{__name__}:own", "--error", "0.1", "--certified", "0.5"], "Give one of them"),
        ([f"{__name__}:own", "--agreement", "0.5"], "Add --data"),
        ([f"{__name__}:own", "--agreement", "1.5"], "a share above 0"),
        ([f"{__name__}:own", "--candidates", "4"], "candidates for each input are too few"),
        ([f"{__name__}:own", "--candidates", "1"], "take 2 to"),
        ([f"{__name__}:own", "--data", "digits"], "does not take examples of shape"),
        ([f"{__name__}:own", "--depth", "L"], "2L, L+1"),
        ([f"{__name__}:nobody"], "nobody"),
        (["/nowhere/at/all"], "is not here"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["strong", "construct", *words, "--out", str(tmp_path / "out")]) == WRONG_CALL
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "nothing half-written"


def test_edge_popup_learns_a_mask_and_writes_a_ticket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "strong",
        "edge-popup",
        "--iterations",
        "120",
        "--replicates",
        "2",
        "--workers",
        "1",
        "--out",
        str(tmp_path),
    ]
    found = told(words, capsys)
    assert len(found["test_accuracy"]) == 2  # type: ignore[arg-type]
    assert found["mean"] > 0.8  # type: ignore[operator]
    assert found["density"] == [0.5, 0.5]
    assert told(["ticket", "verify", str(tmp_path / "ticket.safetensors")], capsys)["ok"] is True
    for bad, says in (
        ("--density 0", "above 0"),
        ("--rule x", "no rule"),
        ("--rule supermask --density 0.1", "of edge-popup"),
        ("--init x", "no init"),
        ("--replicates 0", "one"),
    ):
        assert main(["strong", "edge-popup", *bad.split(), "--out", str(tmp_path / "bad")]) == WRONG_CALL
        assert says in capsys.readouterr().err
        assert not (tmp_path / "bad").exists()


def test_edge_popup_trains_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["strong", "edge-popup", "--iterations", "40", "--workers", "1", "--out", str(tmp_path)]
    first = told([*words, "--replicates", "2"], capsys)
    trained: list[int] = []
    monkeypatch.setattr(PlainTrainer, "train_one", counted(trained))
    assert told([*words, "--replicates", "2"], capsys) == first
    assert trained == []
    third = told([*words, "--replicates", "3"], capsys)
    assert trained == [2]
    assert third["test_accuracy"][:2] == first["test_accuracy"]  # type: ignore[index]
    told([*words, "--replicates", "1", "--density", "0.4"], capsys)
    assert trained == [2, 0], "another rule is another run"


def counted(trained: list[int]) -> object:
    """Give the real training, which notes the replicate."""
    real = PlainTrainer.train_one

    def train_one(self: PlainTrainer, job: TrainJob, *rest: object, **more: object) -> object:
        trained.append(job.seed.replicate)
        return real(self, job, *rest, **more)  # type: ignore[arg-type]

    return train_one


def test_ctrl_c_leaves_edge_popup_to_be_gone_on_with(tmp_path: Path) -> None:
    words = ["strong", "edge-popup", "--iterations", "100000", "--workers", "1", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tombola", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    process.stderr.readline()
    time.sleep(4)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on from there" in err
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_bounds_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(["strong", "bounds"], capsys)
    assert list(found["candidates"]) == ["malach", "orseau", "lueker", "median"]  # type: ignore[call-overload]
    assert main(["strong", "bounds"]) == 0
    assert "Pensia" in capsys.readouterr().out
    for words in (["--error", "0"], ["--failure", "2"], ["--weight", "1"]):
        assert main(["strong", "bounds", *words]) == WRONG_CALL


def test_law_and_width_write_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    law = ["strong", "law", "--counts", "8,10", "--lists", "200", "--threads", "1", "--out", str(tmp_path / "law")]
    found = told(law, capsys)
    assert len(found["rows"]) == 10  # type: ignore[arg-type]
    assert json.loads((tmp_path / "law" / "law.json").read_text()) == found
    assert len((tmp_path / "law" / "law.csv").read_text().splitlines()) == 11
    width = [
        "strong",
        "width",
        "--factors",
        "0.1,0.2",
        "--iterations",
        "30",
        "--workers",
        "1",
        "--out",
        str(tmp_path / "w"),
    ]
    assert len(told(width, capsys)["rows"]) == 2  # type: ignore[arg-type]
    for words in (
        ["law", "--counts", "8.5,10"],
        ["law", "--counts", "x"],
        ["width", "--factors", "0"],
        ["width", "--factors", ","],
    ):
        assert main(["strong", *words, "--out", str(tmp_path / "bad")]) == WRONG_CALL
        assert not (tmp_path / "bad").exists()
