"""``tombola find`` from the outside: what it prints, what it writes, and what it does when it cannot write."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tombola import models, ticket
from tombola.cli import main
from tombola.data import load, split
from tombola.sparse.kernels.library import missing
from tombola.stats import judge, read_csv
from tombola.train.plain import evaluate
from tombola.types import Seed

SHORT = [
    *("find", "--iterations", "30", "--rounds", "2", "--replicates", "3", "--dense-runs", "2", "--batch-size", "64"),
    *("--workers", "1", "--seed", "3", "--lr", "0.003", "--engine", "plain"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """One short search through the command line: its folder, its JSON and its standard error."""
    folder = tmp_path_factory.mktemp("find")
    done = subprocess.run(
        [sys.executable, "-m", "tombola", *SHORT, "--json", "--out", str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def test_json_is_the_documented_object(found: tuple[Path, dict[str, Any], str]) -> None:
    _, result, _ = found
    for key in ("data", "model", "engine", "strategy", "seed", "replicates", "margin", "levels", "dense_runs",
                "certified_density", "certified", "sentence", "cost", "ticket", "trained"):  # fmt: skip
        assert key in result, key
    assert (result["data"], result["model"], result["engine"]) == ("digits", "lenet-300-100", "plain")
    assert (result["strategy"], result["seed"], result["replicates"], result["margin"]) == ("imp", 3, 3, 0.01)
    assert set(result["certified"]) == {"budget", "early", "speed"}
    assert set(result["cost"]) == {"iterations", "samples", "dense_trainings", "flops_dense", "flops_effective",
                                   "dense_trainings_effective", "purposes", "finding", "runs", "wall"}  # fmt: skip
    assert [len(runs) for runs in result["dense_runs"]] == [2, 2, 2]
    assert [level["level"] for level in result["levels"]] == [0, 1, 2]
    for level in result["levels"]:
        assert level["density"] == level["kept"] / level["total"]
        ticket_arm = level["arms"]["ticket"]
        assert {len(values) for values in ticket_arm.values()} == {3}
        assert all(0 <= value <= 1 for value in ticket_arm["test_accuracy"])
        assert all(stop % 1 == 0 and 0 < stop <= 30 for stop in ticket_arm["early_stop_iteration"])
        assert set(level["arms"]) == ({"ticket", "reinit", "shuffle"} if level["gate"] else {"ticket"})
    first = [runs[0] for runs in result["dense_runs"]]
    assert result["levels"][0]["arms"]["ticket"]["test_accuracy"] == first
    assert result["levels"][0]["verdict"] == "not applicable"


def test_cost_is_the_hand_count(found: tuple[Path, dict[str, Any], str]) -> None:
    """3 families x (2 dense + 2 levels + 2 controls at each gate) x 30 iterations."""
    _, result, _ = found
    gates = sum(level["gate"] for level in result["levels"])
    runs = 3 * (2 + 2 + 2 * gates)
    assert result["cost"]["iterations"] == runs * 30
    assert result["cost"]["dense_trainings"] == runs
    assert result["cost"]["flops_dense"] == runs * 30 * 64 * 6 * 50_200
    kept = [level["kept"] for level in result["levels"]]
    effective = 3 * (2 * kept[0] + sum(n * (3 if level["gate"] else 1) for n, level in
                                       zip(kept[1:], result["levels"][1:], strict=True)))  # fmt: skip
    assert result["cost"]["flops_effective"] == pytest.approx(effective * 30 * 64 * 6)


def test_progress_goes_to_standard_error_in_plain_lines(found: tuple[Path, dict[str, Any], str]) -> None:
    _, _, err = found
    assert [line.split(":")[0] for line in err.splitlines()[1:]] == ["level 0", "level 1", "level 2"]
    assert "\x1b" not in err


def test_the_files_say_the_same(found: tuple[Path, dict[str, Any], str]) -> None:
    folder, result, _ = found
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "ticket.safetensors", "trained.safetensors", "result.json", "results.csv", "search.toml", "store",
    }  # fmt: skip
    assert json.loads((folder / "result.json").read_text()) == result
    table = read_csv(folder / "results.csv")
    gates = [level["density"] for level in result["levels"] if level["gate"]]
    assert judge(table, margin=0.01, gates=gates).sentence == result["sentence"]


def test_the_trained_network_has_the_accuracy_that_is_reported(found: tuple[Path, dict[str, Any], str]) -> None:
    """Three lines of torch load it, and its pruned weights are exactly zero."""
    _, result, _ = found
    kept = ticket.load(Path(result["ticket"]))
    about = kept.provenance
    network = models.build(about["model"], tuple(about["input_shape"]), about["classes"])
    network.load_state_dict(load_file(result["trained"]))
    parts = split(load("digits"), Seed(about["seed"], about["replicate"]))
    assert evaluate(network, parts.test_x, parts.test_y)[1] == about["reported"]["test_accuracy"]
    state = network.state_dict()
    for name, mask in kept.masks.items():
        assert bool((state[name][~mask] == 0).all())


def test_the_ticket_starts_from_theta_0(found: tuple[Path, dict[str, Any], str]) -> None:
    _, result, _ = found
    kept = ticket.load(Path(result["ticket"]))
    about = kept.provenance
    build = lambda: models.build(about["model"], tuple(about["input_shape"]), about["classes"])  # noqa: E731
    theta_0 = models.initial(build, Seed(about["seed"], about["replicate"])).params
    for name, value in kept.start.items():
        mask = kept.masks.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value[mask], theta_0[name][mask])
        assert bool((value[~mask] == 0).all())


def test_two_workers_write_the_same_bytes(found: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    folder, _, _ = found
    words = [word if word != "1" else "2" for word in SHORT]
    assert "2" in words[words.index("--workers") :]
    done = subprocess.run([sys.executable, "-m", "tombola", *words, "--out", str(tmp_path)], check=True,
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    for name in ("ticket.safetensors", "trained.safetensors", "results.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
    assert "Verdict:" in done.stdout
    assert str(tmp_path / "ticket.safetensors") in done.stdout


def test_ticket_show_and_verify(found: tuple[Path, dict[str, Any], str], capsys: pytest.CaptureFixture[str]) -> None:
    _, result, _ = found
    assert main(["ticket", "show", result["ticket"]]) == 0
    assert "fc1.weight" in capsys.readouterr().out
    assert main(["ticket", "show", result["ticket"], "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["kept"] in [level["kept"] for level in result["levels"] if level["gate"]]
    assert shown["kept"] == sum(layer["kept"] for layer in shown["layers"].values())
    assert main(["ticket", "verify", result["ticket"]]) == 0


def test_a_flipped_bit_does_not_verify(
    found: tuple[Path, dict[str, Any], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, result, _ = found
    content = bytearray(Path(result["ticket"]).read_bytes())
    content[-1] ^= 1
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(content)
    assert main(["ticket", "verify", str(broken)]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert main(["ticket", "show", str(broken)]) == 2


def test_an_output_that_cannot_be_written_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("mine")
    for out in (in_the_way, in_the_way / "below"):
        assert main([*SHORT, "--out", str(out)]) == 2
        captured = capsys.readouterr()
        assert "CannotWrite" in captured.err
        assert "level 0" not in captured.err
    assert in_the_way.read_text() == "mine"


def test_a_folder_where_a_file_should_go_leaves_nothing_half_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "result.json").mkdir()
    assert main([*SHORT, "--out", str(tmp_path)]) == 2
    assert "result.json" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"result.json", "store"}


def test_a_disk_that_is_full_at_the_end_is_a_named_error_and_the_verdict_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SHORT, "--out", str(tmp_path)]) == 0
    written = [path for path in tmp_path.iterdir() if path.is_file()]
    before = {path: path.read_bytes() for path in written if path.name != "result.json"}
    for path in written:
        path.unlink()
    capsys.readouterr()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main([*SHORT, "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "No space left" in captured.err
    assert "Verdict:" in captured.out
    assert "Nothing was saved." in captured.out
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    monkeypatch.undo()
    assert main([*SHORT, "--out", str(tmp_path)]) == 0
    assert {path: path.read_bytes() for path in before} == before


def test_a_disk_that_is_full_from_the_start_is_a_named_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main([*SHORT, "--out", str(tmp_path)]) == 2
    assert "No space left" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]


def test_diverged_families_are_named_and_all_diverged_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [word for word in SHORT if word not in ("--lr", "0.003")]
    assert main([*short, "--optimizer", "sgd", "--lr", "1e30", "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "NobodyLeft: no family is left at level 0" in err
    assert "iteration" in err
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_a_polite_kill_ends_it_with_130_and_one_line(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tombola", "find", "--iterations", "100000", "--out", str(tmp_path)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    process.stderr.readline()
    time.sleep(4)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Interrupted" in err
    assert "Traceback" not in err
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_dense_network_that_has_hardly_learned_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["find", "--lr", "1e-9", "--iterations", "2", "--rounds", "1", "--replicates", "1", "--dense-runs", "1"]
    assert main([*words, "--workers", "1", "--controls", "none", "--out", str(tmp_path)]) == 0
    assert "hardly learned says little" in " ".join(capsys.readouterr().out.split())


def one_class_a_hill() -> tuple[torch.Tensor, torch.Tensor]:
    """Give 600 examples of MNIST's shape and classes, which every family learns."""
    y = torch.arange(600) % 10
    return torch.randn(600, 1, 28, 28, generator=torch.Generator().manual_seed(0)) + y[:, None, None, None] / 5, y


LONG = ["find", "--data", "test_find:one_class_a_hill", "--model", "lenet-300-100", "--replicates", "3", "--margin",
        "0.05", "--dense-runs", "1", "--controls", "none"]  # fmt: skip
ENGINES = ["plain", "replicas", pytest.param("sparse", marks=pytest.mark.skipif(missing() is not None, reason="none"))]


def started(words: list[str], out: Path) -> "subprocess.Popen[str]":
    """Start a search in a process group of its own, as a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-m", "tombola", *words, "--out", str(out)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )


def interrupted(process: "subprocess.Popen[str]", until: str, wait: float = 0.0) -> str:
    """Press Ctrl-C after a line of progress; give what is said after it."""
    assert process.stderr is not None
    try:
        while until not in (line := process.stderr.readline()):
            assert line, "the search ended by itself"
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGINT)
        # Two seconds on a free core; generous where others compute.
        out, err = process.communicate(timeout=10)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""
    return err


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_ends_every_engine_and_before_the_dense_level_leaves_no_result(
    engine: str, workers: str, tmp_path: Path
) -> None:
    words = ["--engine", engine, "--workers", workers, "--iterations", "1000000", "--eval-every", "50"]
    err = interrupted(started([*LONG, *words], tmp_path), "lenet-300-100 on", wait=3)
    assert err.endswith("Interrupted. What is finished is kept, and the same command goes on from there.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_keeps_the_levels_that_are_finished_for_judge(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Levels 0 to 2 of sixty: their rows are a table that judge reads, and the same command goes on."""
    words = ["--engine", engine, "--workers", "1", "--iterations", "40", "--rounds", "60", "--rate", "0.05"]
    err = interrupted(started([*LONG, *words], tmp_path), "level 2:")
    assert {path.name for path in tmp_path.iterdir()} == {"results.partial.csv", "store"}
    table = tmp_path / "results.partial.csv"
    found = re.search(r"Interrupted; levels 0 to (\d+) are finished, and in (\S+)\. `tombola judge", err)
    assert found is not None
    assert found[2] == str(table)
    results = read_csv(table)
    assert (len(results.replicates), len(results.levels)) == (3, int(found[1]))
    assert int(found[1]) >= 2
    assert [len(runs) for runs in results.dense] == [1, 1, 1]
    assert main(["judge", str(table), "--margin", "0.05"]) == 0
    assert "Verdict:" in capsys.readouterr().out


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_at_once_it_goes_on_and_ends_in_the_same_bytes(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    words = [*LONG, "--engine", engine, "--workers", "1", "--iterations", "40", "--rounds", "4"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    process = started(words, tmp_path / "killed")
    assert process.stderr is not None
    while "level 1:" not in (line := process.stderr.readline()):
        assert line, "the search ended by itself"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    kept = len(list((tmp_path / "killed/store").glob("units/*/*.json")))
    assert kept >= 6
    assert main([*words, "--out", str(tmp_path / "killed")]) == 0
    capsys.readouterr()
    same_but_for_the_clock(tmp_path / "whole", tmp_path / "killed")


def same_but_for_the_clock(whole: Path, killed: Path) -> None:
    for name in ("ticket.safetensors", "trained.safetensors", "results.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    one, other = (json.loads((folder / "result.json").read_text()) for folder in (whole, killed))
    for body in (one, other):
        for key in ("ticket", "trained"):
            del body[key]
        del body["cost"]["wall"]
    assert one == other


def test_killed_after_an_attempt_an_adaptive_search_goes_on_and_ends_in_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first cut leaves 3 % of a network that has hardly learned, and is given up; the second run knows it again."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    words = [*LONG, "--strategy", "adaptive", "--engine", "plain", "--workers", "1", "--iterations", "40",
             "--rate", "0.5", "--rounds", "5", "--gates", "0.032"]  # fmt: skip
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    runs = json.loads((tmp_path / "whole/result.json").read_text())["cost"]["runs"]
    attempts = [(run["level"], run["toward"], run["replicate"]) for run in runs if run["arm"] == "attempt"]
    assert attempts == [(5, 1, r) for r in range(3)]
    process = started(words, tmp_path / "killed")
    assert process.stderr is not None
    while "level 1:" not in (line := process.stderr.readline()):
        assert line, "the search ended by itself"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert len(list((tmp_path / "killed/store").glob("units/*/*.json"))) >= 3 * 3
    assert main([*words, "--out", str(tmp_path / "killed")]) == 0
    capsys.readouterr()
    same_but_for_the_clock(tmp_path / "whole", tmp_path / "killed")


def slow_step() -> torch.nn.Module:
    """A network whose every step is one long computation, in which Python hears no Ctrl-C."""
    return torch.nn.Sequential(torch.nn.Flatten(), Deaf(), torch.nn.Linear(784, 10))


class Deaf(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            # Sorting is one call, of several seconds for so many numbers.
            (torch.arange(1 << 26) * 2654435761 % 4294967291).sort()
        return x


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_a_computation_that_does_not_hear_it(workers: str, tmp_path: Path) -> None:
    words = [word.replace("lenet-300-100", "test_find:slow_step") for word in LONG]
    words += ["--workers", workers, "--iterations", "100", "--eval-every", "50"]
    err = interrupted(started(words, tmp_path), "slow_step on", wait=6)
    assert "Interrupted." in err
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_mse_is_a_loss_on_the_command_line_and_its_ticket_trains_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["find", "--loss", "mse", "--iterations", "40", "--rounds", "1", "--replicates", "2", "--dense-runs", "1"]
    assert main([*words, "--workers", "1", "--controls", "none", "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["recipe"]["loss"] == "mse"
    assert main(["ticket", "verify", "--retrain", str(tmp_path / "ticket.safetensors")]) == 0
    assert "reproduced exactly" in capsys.readouterr().out


def test_a_recipe_without_a_loss_is_cross_entropy(
    found: tuple[Path, dict[str, Any], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As tickets have it that were written before there was a choice."""
    folder, result, _ = found
    assert "loss" not in result["recipe"]
    assert main(["ticket", "verify", "--retrain", str(folder / "ticket.safetensors")]) == 0
    assert "reproduced exactly" in capsys.readouterr().out
