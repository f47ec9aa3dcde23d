"""A study: searches side by side on one store, each finding what it finds by itself; nothing is trained twice."""

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from study_kit import results, settings, spec

from tombola.errors import CannotWrite, InvalidValue, StoreError, WorkerDied
from tombola.search.find import run as find
from tombola.search.named import prepare
from tombola.study.recalling import recalling
from tombola.study.remembering import Order, Remembering
from tombola.study.running import Observer, Studied, run
from tombola.study.sealed import seal
from tombola.study.spec import Spec
from tombola.study.store import Store
from tombola.train.pool import clean_context
from tombola.types import TrainOutcome

Workers = Callable[[Remembering], AbstractContextManager[tuple[object, Callable[[], None], int]]]


class Counting(Observer):
    """Counts units that were found and units that were trained; stops after so many."""

    def __init__(self, most: int | None = None) -> None:
        self.read = self.trained = 0
        self._most = most

    def found(self, order: Order) -> None:  # noqa: ARG002
        self.read += 1

    def finished(self, number: int, outcome: TrainOutcome) -> None:  # noqa: ARG002
        self.trained += 1

    def stop(self) -> bool:
        return self._most is not None and self.trained >= self._most


@contextmanager
def here(one: Remembering) -> Iterator[tuple[object, Callable[[], None], int]]:
    """Train units in this process."""
    yield one.train_one, lambda: None, 2


def study(folder: Path, what: Spec | None = None, observer: Observer | None = None, **where: Path) -> Studied:
    done = run(what or spec(), folder, where.get("store", folder / "store"), here, observer)  # type: ignore[arg-type]
    done.save(folder)
    return done


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that ran through, in processes of its own."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    run(spec(), folder, folder / "store").save(folder)
    return folder


def test_each_search_finds_what_it_finds_by_itself(whole: Path, tmp_path: Path) -> None:
    for name, one in spec().searches.items():
        find(prepare(one)).save(tmp_path / name)
        there = {file: value for file, value in results(whole).items() if file.startswith(f"{name}/")}
        assert there == {f"{name}/{file}": value for file, value in results(tmp_path / name).items()}
        assert len(there) == 4


def test_units_that_searches_share_are_trained_once(whole: Path) -> None:
    entries = list(Store(whole / "store").entries().values())
    dense = [entry for entry in entries if entry.density == 1.0]
    assert len(dense) == 3 * 2, "three families of two dense runs, for both searches"
    # Level 1 of both is the same cut of the same dense run.
    assert len(entries) == 6 + 3 * 3 + 3 * 3 * 2 + 3 * 2


def test_a_second_run_trains_nothing_and_a_second_study_what_is_new(whole: Path, tmp_path: Path) -> None:
    counting = Counting()
    study(tmp_path / "again", observer=counting, store=whole / "store")
    assert (counting.trained, counting.read > 0) == (0, True)
    assert results(tmp_path / "again") == results(whole)
    more = Spec("more", {"another": settings(controls=("permute",))})
    counting = Counting()
    study(tmp_path / "more", more, counting, store=whole / "store")
    assert counting.trained == 3 * 3, "the control alone"


@pytest.mark.parametrize("most", [1, 7, 20])
def test_stopped_and_gone_on_with_it_ends_alike(whole: Path, tmp_path: Path, most: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "s", observer=Counting(most))
    counting = Counting()
    study(tmp_path / "s", observer=counting)
    assert counting.trained <= 39 - most
    assert results(tmp_path / "s") == results(whole)


def test_a_worker_that_dies_is_replaced(whole: Path, tmp_path: Path) -> None:
    died = set()

    @contextmanager
    def dying(one: Remembering) -> Iterator[tuple[object, Callable[[], None], int]]:
        with here(one) as (attempt, stop, count):

            def sometimes(order: Order, number: int) -> TrainOutcome | None:
                if number % 3 == 0 and number not in died:
                    died.add(number)
                    raise WorkerDied("killed")
                return attempt(order, number)  # type: ignore[operator]

            yield sometimes, stop, count

    run(spec(), tmp_path / "s", tmp_path / "s/store", dying).save(tmp_path / "s")  # type: ignore[arg-type]
    assert len(died) > 5
    assert results(tmp_path / "s") == results(whole)


def test_a_worker_that_always_dies_ends_the_study(tmp_path: Path) -> None:
    @contextmanager
    def dead(_: Remembering) -> Iterator[tuple[object, Callable[[], None], int]]:
        def attempt(*_: object) -> TrainOutcome | None:
            raise WorkerDied("killed")

        yield attempt, lambda: None, 2

    with pytest.raises(WorkerDied, match="killed"):
        run(spec(), tmp_path / "s", tmp_path / "s/store", dead)  # type: ignore[arg-type]


def _study(folder: Path, counted: object) -> None:
    counting = Counting()
    study(folder, observer=counting)
    counted.put(counting.trained)  # type: ignore[attr-defined]


def test_two_processes_finish_one_study_together(whole: Path, tmp_path: Path) -> None:
    context = clean_context()
    counted = context.SimpleQueue()
    both = [context.Process(target=_study, args=(tmp_path / "s", counted)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert results(tmp_path / "s") == results(whole)
    assert len(Store(tmp_path / "s/store").entries()) == 39


def test_one_of_two_is_killed_and_the_other_goes_on(whole: Path, tmp_path: Path) -> None:
    context = clean_context()
    counted = context.SimpleQueue()
    one, other = (context.Process(target=_study, args=(tmp_path / "s", counted)) for _ in range(2))
    one.start()
    other.start()
    store = tmp_path / "s/store"
    until = time.monotonic() + 120
    while len(list(store.glob("units/*/*.json"))) < 8:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert one.pid is not None
    os.kill(one.pid, signal.SIGKILL)
    other.join(120)
    assert other.exitcode == 0
    one.join()
    assert results(tmp_path / "s") == results(whole)


def test_any_altered_file_is_healed(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study(folder)
    files = sorted(path for path in (folder / "store").rglob("*") if path.is_file())
    for number, path in enumerate(files):
        data = path.read_bytes()
        if not data:
            continue
        at = (7 * number) % len(data)
        path.write_bytes(data[:at] if number % 2 else data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    counting = Counting()
    study(folder, observer=counting)
    assert counting.trained == 39
    assert results(folder) == results(whole)
    assert Store(folder / "store").check().altered == ()
    assert len(Store(folder / "store").entries()) == 39


def test_another_study_in_the_folder_is_refused(tmp_path: Path) -> None:
    study(tmp_path / "s", Spec("one", {"a": settings(replicates=1, rounds=1, controls=())}))
    with pytest.raises(InvalidValue, match="with other settings"):
        study(tmp_path / "s")


def test_a_search_that_cannot_be_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"searches\.bad: .*nosuch"):
        study(tmp_path / "s", Spec("x", {"bad": settings(model="nosuch")}))
    with pytest.raises(InvalidValue, match="replicas"):
        study(tmp_path / "s", Spec("x", {"bad": settings(engine="replicas")}))
    assert not (tmp_path / "s").exists()


def test_a_search_that_diverges_leaves_the_others_their_results(tmp_path: Path) -> None:
    recipe = {"optimizer": "sgd", "lr": 1e30}
    both = {"good": settings(rounds=1, controls=()), "bad": settings(rounds=1, controls=(), recipe=recipe)}
    done = study(tmp_path / "s", Spec("x", both))
    assert set(done.findings) == {"good"}
    assert "no family is left" in done.failed["bad"]
    assert json.loads((tmp_path / "s/result.json").read_text())["failed"].keys() == {"bad"}


def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s/store").mkdir(parents=True)
    (tmp_path / "s/store/store.json").write_bytes(seal({"schema": 99}))
    with pytest.raises(StoreError, match="newer version"):
        study(tmp_path / "s")


def test_a_full_disk_loses_nothing(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, fsync = 0, os.fsync

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match="No space left"):
        study(tmp_path / "s").save(tmp_path / "s")
    monkeypatch.undo()
    counting = Counting()
    study(tmp_path / "s", observer=counting)
    assert counting.read > 0
    assert results(tmp_path / "s") == results(whole)


def test_a_search_on_a_store_is_gone_on_with(tmp_path: Path) -> None:
    one = settings(controls=("reinit",), workers=1)
    find(prepare(one)).save(tmp_path / "plain")
    store = tmp_path / "store"

    class Stopping(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.left = 400

        def stop(self) -> bool:
            self.left -= 1
            return self.left < 0

        def planned(self, *_: object) -> None: ...
        def training(self, *_: object) -> None: ...
        def level_done(self, *_: object) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        find(recalling(prepare(one), store), Stopping())  # type: ignore[arg-type]
    kept = len(Store(store).entries())
    assert 0 < kept < 6 + 3 * 3 + 3 * 3
    for again in ("first", "second"):
        find(recalling(prepare(one), store)).save(tmp_path / again)
        assert results(tmp_path / again) == results(tmp_path / "plain")
    replicas = replace(one, engine="replicas", rounds=1)
    for again in ("r1", "r2"):
        find(recalling(prepare(replicas), store)).save(tmp_path / again)
    assert results(tmp_path / "r1") == results(tmp_path / "r2")


def test_runs_kept_from_another_version_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = settings(controls=(), rounds=1, workers=1)
    with monkeypatch.context() as older:
        older.setattr("tombola.__version__", "0.0.9")
        before = find(recalling(prepare(one), tmp_path / "s"))
        assert not [note for note in before.notes if "kept from before" in note]
    (note,) = [note for note in find(recalling(prepare(one), tmp_path / "s")).notes if "kept from before" in note]
    assert note.startswith("9 of 9 runs were kept from before and trained by tombola 0.0.9 torch ")


def test_a_read_only_store_is_a_named_error(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in (whole / "store").rglob("*") if path.is_file()}
    opened = os.open

    def refusing(path: object, flags: int, *rest: object, **options: object) -> int:
        if str(path).startswith(str(whole)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system", str(path))
        return opened(path, flags, *rest, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(CannotWrite, match=r"cannot write .*/store/.*Read-only file system"):
        study(tmp_path / "s", store=whole / "store")
    assert {path: path.read_bytes() for path in before} == before


def test_a_clock_that_jumps_changes_nothing(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backwards by years and forwards by as many, at every look; file times go with it."""
    looks = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1e9 * (1 + next(looks) % 2))
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "s", observer=Counting(9))
    for number, path in enumerate(sorted((tmp_path / "s").rglob("*"))):
        os.utime(path, (3e9 if number % 2 else 1.0,) * 2)
    counting = Counting()
    study(tmp_path / "s", observer=counting)
    assert counting.trained <= 39 - 9
    assert results(tmp_path / "s") == results(whole)
    assert Store(tmp_path / "s/store").check().altered == ()
