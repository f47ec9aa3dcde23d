"""A unit is either wholly there or not there, whatever happens to the process or to a file."""

import hashlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tombola.errors import CannotWrite, CorruptStore, StoreError
from tombola.study import tensors
from tombola.study.sealed import seal, unseal
from tombola.study.store import Store
from tombola.train.pool import clean_context
from tombola.types import Snapshot

KEYS = ["a" * 64, "b" * 64, "c" * 64]


def body(iterations: int = 3) -> dict[str, Any]:
    return {
        "unit": {"seed": [0, 1, 0], "stop": 3},
        "name": "ticket",
        "density": 0.5,
        "outcome": {"result": "finished", "iterations": iterations},
    }


def filled(folder: Path) -> Store:
    store = Store(folder)
    for number, key in enumerate(KEYS[:2]):
        store.put(key, body(number), bytes([number]) * 100, {"seconds": 1.5})
    store.put_part(KEYS[2], {"step": 7}, b"half" * 30)
    store.entries()
    return store


def test_what_is_put_is_got(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    kept = Store(tmp_path / "s").get(KEYS[1])
    assert kept is not None
    assert kept.tensors == b"\x01" * 100
    assert kept.body["outcome"] == body(1)["outcome"]
    assert kept.clock["seconds"] == 1.5
    part = store.part(KEYS[2])
    assert part is not None
    assert part.tensors == b"half" * 30
    assert store.get(KEYS[2]) is None


def test_a_finished_unit_takes_its_part_away(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    store.put_part(KEYS[2], {"step": 8}, b"more" * 30)
    assert len(list((tmp_path / "s/parts").iterdir())) == 2
    store.put(KEYS[2], body(), None, {})
    assert store.part(KEYS[2]) is None
    assert list((tmp_path / "s/parts").iterdir()) == []


def test_equal_tensors_are_kept_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    for key in KEYS:
        store.put(key, body(), b"same", {})
    assert len(list((tmp_path / "s").glob("objects/*/*"))) == 1


FILES = ["units/aa/*.json", "clocks/aa/*.json", "objects/*/*", "parts/*.json", "parts/*.safetensors", "index.sqlite"]


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
@pytest.mark.parametrize("pattern", FILES)
def test_an_altered_file_is_set_aside_and_its_unit_not_done(tmp_path: Path, pattern: str, harm: str) -> None:
    filled(tmp_path / "s")
    for path in sorted((tmp_path / "s").glob(pattern)):
        data = path.read_bytes()
        at = len(data) // 2
        spoilt = {"flip": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], "cut": data[:at], "empty": b""}[harm]
        path.write_bytes(spoilt)
    store = Store(tmp_path / "s")
    found = [key for key in KEYS[:2] if store.get(key) is not None]
    whole = {"units": [KEYS[1]], "clocks": [KEYS[1]], "objects": []}.get(pattern.partition("/")[0], KEYS[:2])
    assert found == whole
    assert (store.part(KEYS[2]) is None) == pattern.startswith("parts")
    # Done again, everything is there again and nothing of the altered file is left in place.
    for number, key in enumerate(KEYS[:2]):
        store.put(key, body(number), bytes([number]) * 100, {"seconds": 1.5})
    assert store.check().altered == ()
    assert set(store.entries()) == set(KEYS[:2])


def test_every_bit_of_a_record_is_covered() -> None:
    data = seal({"key": "k", "numbers": [0.1, 1e300, -5, None, True], "text": "ä"})
    for at in range(len(data)):
        for bit in (1, 4, 32, 128):
            spoilt = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            with pytest.raises(CorruptStore):
                unseal(spoilt, "here")
    assert unseal(data, "here")["numbers"] == [0.1, 1e300, -5, None, True]


def test_a_lost_index_is_made_again_and_a_lost_record_leaves_it(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    before = store.entries()
    assert [entry.iterations for entry in before.values()] == [0, 1]
    for path in (tmp_path / "s").glob("index.sqlite*"):
        path.unlink()
    assert store.entries() == before
    next((tmp_path / "s").glob("units/aa/*")).unlink()
    assert list(store.entries()) == [KEYS[1]]


def test_a_newer_layout_is_refused_and_left_alone(tmp_path: Path) -> None:
    filled(tmp_path / "s")
    (tmp_path / "s/store.json").write_bytes(seal({"schema": 99}))
    with pytest.raises(StoreError, match="newer version of tombola, in layout 99"):
        Store(tmp_path / "s")
    assert len(list((tmp_path / "s").glob("units/*/*"))) == 2


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(StoreError, match="no store"):
        Store(tmp_path)
    for inside in ("thesis.tex", "thesis.tex/store"):
        with pytest.raises(StoreError, match="is a file"):
            Store(tmp_path / inside)


def test_a_name_that_no_folder_can_have_and_a_link_to_nowhere_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be read: File name too long. Choose another path"):
        Store(tmp_path / ("s" * 300))
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for folder in (tmp_path / "link", tmp_path / "link/store"):
        with pytest.raises(CannotWrite, match="a link that leads nowhere, stands where a folder is needed"):
            Store(folder)


def _begin_and_die(folder: Path, at: int) -> None:
    calls = 0

    def deadly(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in ("fsync", "replace", "mkdir", "open"):
        setattr(os, name, deadly(getattr(os, name)))
    Store(folder)
    os._exit(0)


def test_killed_while_it_is_begun_a_store_can_be_begun_again(tmp_path: Path) -> None:
    context = clean_context()
    ended, at = None, 0
    while ended != 0:
        at += 1
        child = context.Process(target=_begin_and_die, args=(tmp_path / str(at), at))
        child.start()
        child.join(60)
        ended = child.exitcode
        Store(tmp_path / str(at)).put(KEYS[0], body(), b"x", {})
        assert Store(tmp_path / str(at)).get(KEYS[0]) is not None
    assert at > 3


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "s"), Store(tmp_path / "s")
    with one.claim(KEYS[0]) as mine:
        assert mine
        with other.claim(KEYS[0]) as theirs:
            assert not theirs
        with other.claim(KEYS[1]) as another:
            assert another
    with other.claim(KEYS[0]) as free:
        assert free


def _hold(folder: Path, ready: Any) -> None:
    with Store(folder).claim(KEYS[0]):
        ready.set()
        signal.pause()


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    context = clean_context()
    ready = context.Event()
    child = context.Process(target=_hold, args=(tmp_path / "s", ready))
    child.start()
    assert ready.wait(30)
    with Store(tmp_path / "s").claim(KEYS[0]) as got:
        assert not got
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    with Store(tmp_path / "s").claim(KEYS[0]) as got:
        assert got


def test_threads_write_one_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    keys = [f"{number:064x}" for number in range(24)]

    def write(some: list[str]) -> None:
        for key in some:
            with store.claim(key) as got:
                assert got
                store.put(key, body(), key.encode(), {})
            store.entries()

    threads = [threading.Thread(target=write, args=(keys[k::4],)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(store.entries()) == keys


def test_cleaning_takes_what_nothing_refers_to(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    digest = hashlib.sha256(b"lost").hexdigest()
    lost = tmp_path / f"s/objects/{digest[:2]}/{digest}.safetensors"
    lost.parent.mkdir(exist_ok=True)
    lost.write_bytes(b"lost")
    (tmp_path / "s/units/aa/.x.json.abc.tmp").write_bytes(b"torn")
    assert store.clean(rehearse=True)[0] >= 2
    assert lost.exists()
    store.clean()
    assert not lost.exists()
    assert not list((tmp_path / "s").rglob("*.tmp"))
    assert not list((tmp_path / "s").glob("quarantine/*"))
    assert store.get(KEYS[0]) is not None
    assert store.part(KEYS[2]) is not None
    with store.in_use(), pytest.raises(StoreError, match="is running"):
        store.clean()


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path / "s")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match="No space left"):
        store.put(KEYS[2], body(), b"x", {})
    monkeypatch.undo()
    assert store.get(KEYS[2]) is None
    assert store.get(KEYS[0]) is not None
    assert store.part(KEYS[2]) is not None


def _put_and_die(folder: Path, at: int) -> None:
    """Die at the n-th call that changes the disk."""
    calls = 0

    def deadly(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in ("fsync", "replace", "unlink", "mkdir", "open"):
        setattr(os, name, deadly(getattr(os, name)))
    store = Store(folder)
    with store.claim(KEYS[2]):
        store.put_part(KEYS[2], {"step": 8}, b"more" * 30)
        store.put(KEYS[2], body(9), b"nine" * 20, {"seconds": 2.0})
    os._exit(0)


def test_killed_at_every_write_a_unit_is_wholly_there_or_not_there(tmp_path: Path) -> None:
    context = clean_context()
    ended, at = None, 0
    while ended != 0:
        at += 1
        folder = tmp_path / str(at)
        filled(folder)
        child = context.Process(target=_put_and_die, args=(folder, at))
        child.start()
        child.join(60)
        ended = child.exitcode
        store = Store(folder)
        kept, part = store.get(KEYS[2]), store.part(KEYS[2])
        assert kept is None or (kept.tensors == b"nine" * 20 and kept.body["outcome"]["iterations"] == 9)
        assert kept is not None or part is not None
        assert part is None or part.tensors in (b"half" * 30, b"more" * 30)
        assert store.check().altered == ()
        with store.claim(KEYS[2]) as got:
            assert got
        store.put(KEYS[2], body(9), b"nine" * 20, {"seconds": 2.0})
        store.clean()
        assert sorted(store.entries()) == KEYS
        assert not list(folder.rglob("*.tmp"))
    assert at > 10


def test_snapshots_come_back_in_every_bit() -> None:
    mask = torch.rand(5, 7) < 0.3
    odd = torch.where(mask, torch.randn(5, 7), torch.tensor(-0.0))
    plain = torch.randn(5, 7) * mask + 0.0
    one = Snapshot(
        step=3,
        params={"z": plain, "a": torch.randn(4), "m": odd},
        buffers={"count": torch.tensor(5), "z": torch.randn(2)},
        optimizer={"z": {"step": torch.tensor(3.0), "exp_avg": torch.randn(5, 7).mul_(mask)}, "a": {}},
    )
    two = Snapshot(step=0, params={}, buffers={})
    found = tensors.read(tensors.write({"end": one, "at 0": two}, {"z": mask, "m": mask}), "here")
    assert found.keys() == {"end", "at 0"}
    end = found["end"]
    assert list(end.params) == ["z", "a", "m"]
    assert end.step == 3
    for kind in ("params", "buffers"):
        for name, value in getattr(one, kind).items():
            got = getattr(end, kind)[name]
            assert got.dtype == value.dtype
            assert got.numpy().tobytes() == value.numpy().tobytes(), name
    assert end.optimizer is not None
    assert one.optimizer is not None
    assert list(end.optimizer["z"]) == ["step", "exp_avg"]
    assert torch.equal(end.optimizer["z"]["exp_avg"], one.optimizer["z"]["exp_avg"])
    assert found["at 0"].optimizer is None


def test_what_is_pruned_takes_no_room() -> None:
    mask = torch.zeros(1000, 100, dtype=torch.bool)
    mask[:10] = True
    one = Snapshot(step=0, params={"w": torch.randn(1000, 100).mul_(mask).add_(0.0)})
    assert len(tensors.write({"end": one}, {"w": mask})) < 4 * 1000 + 100_000 / 8 + 2000


@pytest.mark.parametrize("data", [b"", b"nonsense", json.dumps({}).encode()])
def test_bytes_that_are_no_snapshots_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptStore):
        tensors.read(data, "here")
