"""Files are wholly there or not there, whatever instant the process dies at."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tombola.errors import CannotWrite
from tombola.files import check_writable, write_all

_WRITER = """
import os, signal, sys
from pathlib import Path
from tombola.files import write_all

kill_at, folder = int(sys.argv[1]), Path(sys.argv[2])
calls = 0

def counting(function):
    def counted(*arguments, **keywords):
        global calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **keywords)
    return counted

for name in ("fsync", "replace"):
    setattr(os, name, counting(getattr(os, name)))
write_all({folder / "a": b"new a" * 1000, folder / "b": b"new b" * 1000})
"""


def test_all_files_are_written(tmp_path: Path) -> None:
    write_all({tmp_path / "x" / "a": b"1", tmp_path / "b": b"2"})
    assert (tmp_path / "x" / "a").read_bytes() == b"1"
    assert (tmp_path / "b").read_bytes() == b"2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "x"]


def test_results_have_the_ordinary_mode(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_all({tmp_path / "a": b""})
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("kill_at", [1, 2, 3, 4])
def test_a_kill_at_any_step_leaves_old_or_new_and_never_a_part(tmp_path: Path, kill_at: int) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", _WRITER, str(kill_at), str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    for name in ("a", "b"):
        assert (tmp_path / name).read_bytes() in (b"old", f"new {name}".encode() * 1000)


def test_without_the_kill_the_writer_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _WRITER, "99", str(tmp_path)], check=True, timeout=60)
    assert (tmp_path / "b").read_bytes() == b"new b" * 1000


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(CannotWrite, match=r"No space left on device.*Free some space"):
        write_all({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(CannotWrite, match="is a folder"):
        write_all({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_check_writable(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deeper")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("file", "file/inside", "link", "link/inside"):
        with pytest.raises(CannotWrite, match="is a file or a link that leads nowhere"):
            check_writable(tmp_path / name)
        with pytest.raises(CannotWrite, match="stands where a folder is needed"):
            write_all({tmp_path / name / "inside": b""})
    with pytest.raises(CannotWrite, match=r"File name too long\. Choose a shorter name"):
        check_writable(tmp_path / ("x" * 300) / "inside")


def test_to_find_out_whether_a_folder_can_be_written_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour may be at work in it."""
    made = list[object]()
    monkeypatch.setattr(os, "mkdir", lambda *arguments: made.append(arguments))
    monkeypatch.setattr(os, "rmdir", lambda *arguments: made.append(arguments))
    check_writable(tmp_path / "new" / "deeper")
    assert made == []


def test_a_folder_that_somebody_takes_away_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, folder = os.open, tmp_path / "x"

    def after_a_neighbour(*arguments: object) -> int:
        monkeypatch.setattr(os, "open", opened)
        folder.rmdir()
        return opened(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", after_a_neighbour)
    write_all({folder / "a": b"1"})
    assert (folder / "a").read_bytes() == b"1"
