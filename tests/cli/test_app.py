"""The command line as a whole: speed of help, exit codes, one error, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tombola.cli import main


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tombola", *words], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "words",
    [["--help"], ["find", "--help"], ["judge", "--help"], ["ticket", "--help"], ["data"], ["cite"], ["--version"]],
)
def test_what_needs_no_network_imports_no_torch(words: list[str]) -> None:
    code = f"import sys; from tombola.cli import main; main({words!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_wrong_flag_is_refused_before_torch_is_imported() -> None:
    code = (
        "import sys; from tombola.cli import main; code = main(['find', '--density', '1.5']); "
        "sys.exit(0 if code == 2 and 'torch' not in sys.modules else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_python_m_is_the_command() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.strip() == __import__("tombola").__version__


_TINY = ["--rounds", "1", "--replicates", "1", "--dense-runs", "1", "--workers", "1", "--controls", "none"]

WRONG = {
    "unknown command": (["fnd"], "find"),
    "unknown flag": (["find", "--dta", "digits"], "--data"),
    "missing value": (["find", "--data"], "--data"),
    "no number": (["find", "--density", "abc"], "abc"),
    "stray word": (["find", "digits"], "digits"),
    "unknown data": (["find", "--data", "digts"], "digits"),
    "unknown model": (["find", "--model", "lenet"], "lenet-300-100"),
    "unknown strategy": (["find", "--strategy", "impp"], "imp"),
    "unknown criterion": (["find", "--criterion", "magnitud"], "magnitude"),
    "unknown allocation": (["find", "--allocation", "erkk"], "erk"),
    "unknown control": (["find", "--controls", "reinit,shufle"], "shuffle"),
    "unknown optimizer": (["find", "--optimizer", "adm"], "adam"),
    "unknown schedule": (["find", "--schedule", "cosin"], "cosine"),
    "bad milestones": (["find", "--schedule", "step:9,5"], "step:K,K"),
    "bad rewind": (["find", "--rewind", "step:-3"], "step:K"),
    "late rewind": (["find", "--rewind", "step:200"], "200 iterations"),
    "percent for density": (["find", "--density", "20"], "0.2"),
    "density of nothing": (["find", "--density", "0.000001"], "would be left"),
    "rate above one": (["find", "--rate", "1.2"], "between 0 and 1"),
    "rate and density": (["find", "--rate", "0.2", "--density", "0.1"], "one of them"),
    "no rounds": (["find", "--rounds", "0"], "at least 1"),
    "fraction for a count": (["find", "--seed", "1.5"], "not a whole number"),
    "milestones after the end": (["find", "--schedule", "step:500"], "200"),
    "warm-up after the end": (["find", "--warmup", "9999"], "200"),
    "one-shot against itself": (["find", "--strategy", "one-shot", "--controls", "one-shot"], "ticket itself"),
    "a criterion that fails": (["find", "--criterion", "os:getcwd", "--iterations", "2", *_TINY], "TypeError"),
    "data that fail": (["find", "--data", "os:getpgid"], "TypeError"),
    "a model that exits": (["find", "--model", "sys:exit"], "SystemExit"),
    "absurd rounds": (["find", "--rounds", "99999999999999"], "at most 1,000"),
    "no replicates": (["find", "--replicates", "0"], "at least 1"),
    "margin as percent": (["find", "--margin", "2"], "fraction"),
    "alpha": (["find", "--alpha", "0.9"], "0.5"),
    "gates": (["find", "--gates", "a,b"], "fractions with commas"),
    "gate above one": (["find", "--gates", "50,20"], "between 0 and 1"),
    "lr": (["find", "--lr", "nan"], "finite"),
    "momentum of adam": (["find", "--momentum", "0.9"], "sgd"),
    "batch": (["find", "--batch-size", "5000"], "988"),
    "device": (["find", "--device", "tpu"], "cpu"),
    "no such gpu": (["find", "--device", "cuda:99"], "cuda:99"),
    "seed": (["find", "--seed", "-1"], "seed"),
    "finetune rewinds": (["find", "--strategy", "finetune", "--rewind", "step:5"], "finetune"),
    "dotted model": (["find", "--model", "no_such_module:build"], "no_such_module"),
    "missing csv": (["judge", "/nonexistent.csv"], "/nonexistent.csv"),
    "missing ticket": (["ticket", "show", "/nonexistent.safetensors"], "/nonexistent.safetensors"),
    "no ticket to verify": (["ticket", "verify", "/nonexistent.safetensors"], "/nonexistent.safetensors"),
    "a folder to verify": (["ticket", "verify", "/"], "folder"),
    "unknown topic": (["cite", "emp"], "imp"),
    "unknown data to fetch": (["data", "fetch", "mnits"], "mnist"),
}


@pytest.mark.parametrize(("words", "hint"), WRONG.values(), ids=WRONG)
def test_a_wrong_call_gets_one_helpful_error_and_code_2(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert hint in " ".join(captured.err.replace("│", " ").split())
    assert "Traceback" not in captured.err


def test_every_flag_of_the_surface_is_there() -> None:
    """The command line is an interface: a flag that goes or changes its name breaks scripts."""
    shown = run("find", "--help").stdout
    flags = [
        "--data",
        "--model",
        "--strategy",
        "--density",
        "--rounds",
        "--rate",
        "--criterion",
        "--allocation",
        "--scope",
        "--exclude",
        "--min-keep",
        "--rewind",
        "--controls",
        "--replicates",
        "--dense-runs",
        "--gates",
        "--margin",
        "--alpha",
        "--iterations",
        "--batch-size",
        "--lr",
        "--optimizer",
        "--densities",
        "--structure",
        "--extra",
        "--recalibrate",
        "--round-iterations",
        "--round-data",
        "--source",
        "--augment",
        "--momentum",
        "--nesterov",
        "--weight-decay",
        "--schedule",
        "--loss",
        "--warmup",
        "--eval-every",
        "--seed",
        "--engine",
        "--device",
        "--workers",
        "--out",
        "--store",
        "--json",
    ]
    assert [flag for flag in flags if f"{flag} " not in shown] == []
    found = {word for word in shown.split() if word.startswith("--")}
    assert found <= {*flags, "--help"}


def test_cite_prints_bibtex(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cite"]) == 0
    everything = capsys.readouterr().out
    assert main(["cite", "erk"]) == 0
    one = capsys.readouterr().out
    assert "1803.03635" in everything
    assert "1803.03635" not in one
    assert "1911.11134" in one
    assert everything.count("{") == everything.count("}")


def test_data_says_what_is_here_and_how_to_get_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    out = capsys.readouterr().out
    for name in ("digits", "mnist", "fashion-mnist", "cifar-10"):
        assert f"{name}:" in out
    assert "TOMBOLA_DATA" in out


_NETWORKS = """
import numpy, torch
from torch import nn

def fixed(classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

shared_network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def shared():
    return shared_network

def numpy_draws(classes):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    with torch.no_grad():
        network[1].weight.copy_(torch.from_numpy(numpy.random.randn(classes, 64) / 8))
    return network

def unseeded():
    return numpy.random.rand(80, 4), numpy.arange(80) % 2

def fails(params, masks, evidence):
    raise KeyError("mine")
"""


def test_what_would_make_families_no_replicates_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_networks.py").write_text(_NETWORKS)
    monkeypatch.chdir(tmp_path)
    short = ["--iterations", "4", "--batch-size", "8", *_TINY]
    for factory, hint in (("fixed", "same initial values"), ("shared", "same parameters every time")):
        assert main(["find", "--model", f"own_networks:{factory}", *short]) == 2
        assert hint in capsys.readouterr().err
    assert main(["find", "--criterion", "own_networks:fails", *short]) == 2
    assert "KeyError: 'mine'" in capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, "-m", "tombola", "find", "--data", "own_networks:unseeded", "--iterations", "4",
         "--batch-size", "8", "--rounds", "1", "--replicates", "2", "--dense-runs", "1", "--workers", "2",
         "--controls", "none"], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )  # fmt: skip
    assert done.returncode == 2
    assert "not the same data in every process" in done.stderr


def test_an_initialiser_that_draws_from_numpy_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy_networks.py").write_text(_NETWORKS)
    monkeypatch.chdir(tmp_path)
    digests = []
    for workers in ("1", "2"):
        words = ["find", "--model", "numpy_networks:numpy_draws", "--iterations", "20", "--rounds", "1",
                 "--replicates", "2", "--dense-runs", "1", "--workers", workers, "--out", workers]  # fmt: skip
        subprocess.run([sys.executable, "-m", "tombola", *words], check=True, capture_output=True, timeout=120)
        digests.append((tmp_path / workers / "ticket.safetensors").read_bytes())
    assert digests[0] == digests[1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_or_closed_standard_output_is_no_traceback() -> None:
    done = subprocess.run(f"{sys.executable} -m tombola cite > /dev/full", shell=True, capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    done = subprocess.run(f"{sys.executable} -m tombola cite >&-", shell=True, capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("where", ["/dev/full", "&-"])
def test_a_full_or_closed_standard_error_changes_no_result(tmp_path: Path, where: str) -> None:
    def shell(words: str) -> subprocess.CompletedProcess[str]:
        command = f"{sys.executable} -m tombola {words} 2>{where}"
        return subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True, timeout=120, check=False)

    done = shell(f"find --iterations 5 --json --out {tmp_path / 'f'} {' '.join(_TINY)}")
    assert (done.returncode, done.stdout[:1]) == (0, "{")
    assert (tmp_path / "f/ticket.safetensors").is_file()
    for wrong in ("cite emp", "fnd"):
        done = shell(wrong)
        assert (done.returncode, done.stdout) == (2, "")


def test_what_the_terminal_cannot_show_ends_nothing() -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    code = "import sys, tombola.cli; tombola.cli.main(['--version']); print('97.1 \u00b1 0.3')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "97.1 ? 0.3"), done.stderr


_INTERRUPTS = """
import sys

class Interrupts:
    def find_spec(self, name, *_):
        if name == "cyclopts":
            exec("raise KeyboardInterrupt")

sys.meta_path.insert(0, Interrupts())
"""


def test_ctrl_c_while_the_command_is_imported_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_INTERRUPTS)
    done = subprocess.run([sys.executable, "-m", "tombola", "--help"], capture_output=True, text=True, timeout=60,
                          check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)})  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_the_help_of_gc_says_what_stays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "gc", "--help"]) == 0
    assert "Units in progress are kept" in " ".join(capsys.readouterr().out.split())


def test_a_name_that_no_folder_can_have_is_no_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "ls", "s" * 300]) == 2
    assert "there is no store in" in capsys.readouterr().err
