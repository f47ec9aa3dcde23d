"""The same study through a Ray cluster of two workers: the same bits, and nothing is lost by what is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from study_kit import results, settings, spec

from tombola.cli import main
from tombola.errors import DataMissing, InvalidValue
from tombola.study import sweeping
from tombola.study.remembering import Remembering
from tombola.study.remote import LOCAL, _begin, _folder, _settings, on_ray
from tombola.study.running import Observer, run
from tombola.study.sealed import unseal
from tombola.study.spec import Spec
from tombola.study.store import Store
from tombola.train.watch import Unwatched, Watcher

# Ray reads them when it is imported.
for _name, _value in _settings(LOCAL).items():
    os.environ.setdefault(_name, _value)
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'tombola[ray]'")

KIT = str(Path(__file__).parent)
PATIENCE = 90.0
"""Seconds, for what takes a few."""
PROC = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not show its processes in /proc")


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    """Begin a cluster of two workers on this machine; what is run at ``local`` uses it."""
    with pytest.MonkeyPatch.context() as patch, _folder() as options:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [KIT, os.environ.get("PYTHONPATH")])))
        _begin(ray, LOCAL, {"num_cpus": 2, **options})
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study by the local runner."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    run(spec(), folder, folder / "store").save(folder)
    return folder


def long() -> Spec:
    """Give a study of one family, one dense run and no control: one unit is in progress at a time, for a second."""
    recipe = {"iterations": 2500, "eval_every": 100}
    return Spec("long", {"one": settings(rounds=1, controls=(), replicates=1, dense_runs=1, recipe=recipe)})


@pytest.fixture(scope="module")
def long_whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The long study by the local runner."""
    folder = tmp_path_factory.mktemp("long") / "study"
    run(long(), folder, folder / "store").save(folder)
    return folder


class Told(Observer):
    """Writes down what it is told of each unit."""

    def __init__(self) -> None:
        self.steps: dict[int, list[int]] = {}

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:  # noqa: ARG002
        self.steps.setdefault(job, []).append(step)


@pytest.mark.usefixtures("_cluster")
def test_a_cluster_gives_the_bits_of_the_local_runner(whole: Path, tmp_path: Path) -> None:
    told = Told()
    run(spec(), tmp_path / "s", tmp_path / "s/store", on_ray("local"), told).save(tmp_path / "s")
    assert results(tmp_path / "s") == results(whole)
    assert Store(tmp_path / "s/store").entries().keys() == Store(whole / "store").entries().keys()
    assert list(told.steps.values()) == [[6, 12, 18, 24, 30]] * 39, "every evaluation of every unit is heard of"


class Killing(Told):
    """Kills the worker that trains the first unit that is some way on."""

    def __init__(self, store: Path, parts: bool) -> None:
        super().__init__()
        self._store, self._parts = store, parts
        self.killed: int | None = None

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:
        super().evaluated(job, step, loss, accuracy)
        if self.killed is None and _evaluated(self._store) == self._parts:
            for process in _training(self._store):
                os.kill(process, signal.SIGKILL)
                self.killed = job


def _evaluated(store: Path) -> bool:
    """Whether what is kept of a unit in progress is behind its first evaluation."""
    for path in store.glob("parts/*.json"):
        with suppress(FileNotFoundError):
            return bool(unseal(path.read_bytes(), str(path))["curve"]["steps"])
    return False


def _training(store: Path) -> list[int]:
    """Find the processes that hold a unit's lock, and so are training it."""
    inodes = {str(path.stat().st_ino) for path in (store / "locks").iterdir() if len(path.name) == 64}
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [int(line[4]) for line in lines if line[1] == "FLOCK" and line[5].rpartition(":")[2] in inodes]


@PROC
@pytest.mark.parametrize("kept", [False, True], ids=["trained again", "gone on with"])
@pytest.mark.usefixtures("_cluster")
def test_a_worker_killed_in_a_unit_is_survived(tmp_path: Path, long_whole: Path, kept: bool) -> None:
    folder = tmp_path / "s"

    def workers(given: Remembering) -> AbstractContextManager[Any]:
        return on_ray("local")(replace(given, every=0.1 if kept else 1e9))

    told = Killing(folder / "store", kept)
    run(long(), folder, folder / "store", workers, told).save(folder)
    assert told.killed is not None
    steps = told.steps[told.killed]
    assert steps.count(100) == (1 if kept else 2), "once more from the start, or on from what was kept"
    assert steps[-1] == 2500
    assert results(folder) == results(long_whole)


class Foreign(Exception):
    """Cannot be made again from what Python pickles of it."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


@dataclass
class Raising:
    """Stands in for what trains units, and fails in the worker."""

    store: Path
    error: str
    trainers: Mapping[str, Any] = field(default_factory=dict)
    watcher: Watcher = field(default_factory=Unwatched)

    def train_one(self, order: Any, number: int) -> None:  # noqa: ARG002
        match self.error:
            case "ours":
                raise DataMissing("mnist is not on this machine")
            case "foreign":
                raise ZeroDivisionError("in the user's network")
            case "odd":
                raise Foreign("this", "that")


@pytest.mark.parametrize(
    ("error", "arrives", "says"),
    [
        ("ours", DataMissing, "^mnist is not on this machine$"),
        ("foreign", ZeroDivisionError, "in the user's network"),
        ("odd", RuntimeError, "^Foreign: this and that"),
    ],
)
@pytest.mark.usefixtures("_cluster")
def test_an_error_of_a_worker_arrives(tmp_path: Path, error: str, arrives: type[Exception], says: str) -> None:
    Store(tmp_path)
    with on_ray("local")(Raising(tmp_path, error)) as (attempt, _, count):  # type: ignore[arg-type]
        assert count == 2, "as many at once as the cluster has processors"
        with pytest.raises(arrives, match=says) as caught:
            attempt(None, 0)  # type: ignore[arg-type]
    where = "".join(getattr(caught.value, "__notes__", ()))
    assert ("in train_one" in where) == (error != "ours"), "a foreign error says where it was raised"


@pytest.mark.usefixtures("_cluster")
def test_a_folder_that_workers_do_not_see_is_refused(tmp_path: Path) -> None:
    with (
        on_ray("local")(Raising(tmp_path, "none")) as (attempt, _, _),  # type: ignore[arg-type]
        pytest.raises(InvalidValue, match="does not see the study's store"),
    ):
        attempt(None, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "nothing answers at '127.0.0.1:1'"),
        ("ray://nowhere:1", "no address of a Ray cluster"),
        ("nonsense", "no address of a Ray cluster"),
        ("localhost:99999", "no address of a Ray cluster"),
    ],
)
def test_a_wrong_address_is_refused_beforehand(
    address: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "run", "lenet-mnist", "--ray", address, "--out", str(tmp_path / "s")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "s").exists()


def test_a_cluster_that_is_not_there_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any, **__: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nMore words.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nowhere)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(InvalidValue, match=r"cannot be used at 'auto': Could not find any running Ray instance\. Beg"):
        run(spec(), tmp_path / "s", tmp_path / "s/store", on_ray("auto"))


def test_without_ray_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["study", "run", "lenet-mnist", "--ray", "local", "--out", str(tmp_path / "s")]) == 2
    assert "pip install 'tombola[ray]'" in capsys.readouterr().err


@PROC
def test_a_polite_kill_leaves_a_study_to_go_on_with_and_no_process(tmp_path: Path, whole: Path) -> None:
    (tmp_path / "tiny.toml").write_text(spec().to_toml())
    study, mark = tmp_path / "s", ("TOMBOLA_TEST_FOLDER", str(tmp_path))
    words = ["study", "run", "tiny.toml", "--out", str(study), "--ray", "local"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    started = subprocess.Popen(
        [sys.executable, "-m", "tombola", *words],
        cwd=tmp_path,
        env={**env, mark[0]: mark[1], "PYTHONPATH": os.pathsep.join(filter(None, [KIT, env.get("PYTHONPATH")]))},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _until(lambda: started.poll() is not None or any(study.glob("store/units/*/*.json")), "a unit was finished")
        started.send_signal(signal.SIGTERM)
        _, said = started.communicate(timeout=PATIENCE)
    finally:
        started.kill()
    assert started.returncode == 130, said
    assert said.splitlines()[-1] == f"Interrupted; what is finished is kept. Go on with: tombola study resume {study}"
    _until(lambda: not sweeping.marked(*mark), "every process had ended")
    run(spec(), study, study / "store").save(study)
    assert results(study) == results(whole)


def _until(holds: Any, what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, f"{PATIENCE:.0f} seconds passed before {what}"
        time.sleep(0.05)


@PROC
def test_what_was_started_ends_with_the_study_that_started_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        subprocess.Popen(sleep, env={**os.environ, sweeping.MARK: str(folder)}) as mine,
        subprocess.Popen(sleep, env={**os.environ, sweeping.MARK: f"{folder}er"}) as other,
    ):
        try:
            _until(lambda: sweeping.marked(sweeping.MARK, str(folder)) == [mine.pid], "the process was seen")
            command = [sys.executable, "-I", "-S", sweeping.__file__, str(folder)]
            subprocess.run(command, input=b"", timeout=PATIENCE, check=True)
            assert mine.wait(PATIENCE) == -signal.SIGKILL
            assert other.poll() is None
            assert not folder.exists()
        finally:
            mine.kill()
            other.kill()
