"""A folder of finished units that survives a crash: a unit is either wholly there or not there.

::

    store.json                    the version of this layout
    units/ab/KEY.json             a finished unit: what went in, what came out, the digest of its tensors
    clocks/ab/KEY.json            what it took in seconds and where; apart, so that results compare byte for byte
    objects/ab/DIGEST.safetensors tensors, named by the SHA-256 of the file
    parts/KEY.json, .safetensors  a unit in progress, to be gone on with
    locks/KEY                     held by the process that trains the unit; the system lets go when it dies
    quarantine/                   files that were cut short or altered
    index.sqlite                  made from units/, and made again when it is lost

Every file is written beside its place, flushed and renamed, the record of a unit last. What is read is checked against
its digest; a file that fails is set aside and its unit counts as not done.
"""

import fcntl
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from tombola.errors import CannotWrite, CorruptStore, StoreError
from tombola.files import write_all
from tombola.study.index import Entry, Index, opened
from tombola.study.sealed import seal, unseal

SCHEMA: Final = 1
_IN_USE: Final = ".in-use"


@final
@dataclass(frozen=True)
class Kept:
    """What is kept of a unit.

    Attributes:
        body: plain values.
        tensors: safetensors bytes, or ``None`` where none were kept.
        clock: wall-clock fields; empty for a unit in progress.
    """

    body: Mapping[str, Any]
    tensors: bytes | None
    clock: Mapping[str, Any]


@final
@dataclass(frozen=True)
class Health:
    """What a look at every file found.

    Attributes:
        units: whole ones.
        bytes: of all files but those set aside.
        altered: files that were cut short or altered, now in quarantine; their units will be done again.
        unused: tensors that no unit refers to, and what killed writers left.
    """

    units: int
    bytes: int
    altered: tuple[str, ...]
    unused: tuple[str, ...]


@final
class Store:
    """A store in a folder. Any number of threads and processes may use it at once."""

    def __init__(self, folder: Path | str) -> None:
        """Open or begin a store.

        Raises:
            StoreError: the folder is something else, or a newer version wrote it.
            CannotWrite: it cannot be made.
        """
        # Workers elsewhere stand in other folders.
        self.folder = Path(folder).absolute()
        self._index_lock = threading.Lock()
        self._open()

    def get(self, key: str) -> Kept | None:
        """Read a finished unit, every byte of it checked; ``None`` where it is not there or not whole."""
        body = self._record(self._unit(key), key)
        clock = self._record(self._clock(key), key) if body is not None else None
        if body is None or clock is None:
            return None
        if body["tensors"] is None:
            return Kept(body, None, clock)
        tensors = self._object(body["tensors"])
        return None if tensors is None else Kept(body, tensors, clock)

    def put(self, key: str, body: Mapping[str, Any], tensors: bytes | None, clock: Mapping[str, Any]) -> None:
        """Keep a finished unit; what there was of it in progress is taken away.

        Raises:
            CannotWrite: the disk is full or read-only; nothing that was kept before is lost.
        """
        files: dict[Path, bytes] = {}
        digest = None
        if tensors is not None:
            digest = hashlib.sha256(tensors).hexdigest()
            files[self._tensors(digest)] = tensors
        files[self._clock(key)] = seal({**clock, "key": key})
        files[self._unit(key)] = seal({**body, "key": key, "tensors": digest})
        write_all(files)
        self.drop_part(key)

    def part(self, key: str) -> Kept | None:
        """Read a unit in progress, checked; ``None`` where there is none or it is not whole."""
        body = self._record(self._part(key), key)
        if body is None:
            return None
        path = self._part_tensors(key, body["tensors"])
        tensors = self._read(path)
        if tensors is None or hashlib.sha256(tensors).hexdigest() != body["tensors"]:
            self._set_aside(path)
            return None
        return Kept(body, tensors, {})

    def put_part(self, key: str, body: Mapping[str, Any], tensors: bytes) -> None:
        """Keep a unit in progress, in place of what was kept of it before.

        Raises:
            CannotWrite: as in :meth:`put`.
        """
        digest = hashlib.sha256(tensors).hexdigest()
        mine = self._part_tensors(key, digest)
        write_all({mine: tensors, self._part(key): seal({**body, "key": key, "tensors": digest})})
        for old in self.folder.glob(f"parts/{key}.*.safetensors"):
            if old != mine:
                _remove(old)

    def drop_part(self, key: str) -> None:
        """Take away what was kept of a unit in progress."""
        for old in self.folder.glob(f"parts/{key}.*"):
            _remove(old)

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Hold a unit, so that no other process trains it meanwhile; gives whether nobody else held it."""
        with _locked(self.folder / "locks" / key, fcntl.LOCK_EX) as got:
            yield got

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Say for as long as the context lasts that a study is running here.

        Raises:
            StoreError: the store is being cleaned.
        """
        with _locked(self.folder / "locks" / _IN_USE, fcntl.LOCK_SH) as got:
            if not got:
                raise StoreError(f"{self.folder} is being cleaned by another process. Try again when it is done.")
            yield

    def entries(self) -> Mapping[str, Entry]:
        """Give the index, brought up to date with the records: what other processes wrote is read once."""
        with self._index_lock:
            try:
                return self._brought_up(opened(self.folder / "index.sqlite"))
            except sqlite3.Error:
                # A full or read-only disk: the records say as much.
                return self._brought_up(Index(None))

    def _brought_up(self, index: Index) -> Mapping[str, Entry]:
        with closing(index):
            known, there = index.entries(), set(self.keys())
            new = {key: self._record(self._unit(key), key) for key in sorted(there - known.keys())}
            index.drop(known.keys() - there)
            index.put(_entry(key, body) for key, body in new.items() if body is not None)
            return index.entries()

    def keys(self) -> Iterator[str]:
        """Give the keys of the records, whole or not."""
        return (path.stem for path in self.folder.glob("units/*/*.json"))

    def check(self) -> Health:
        """Read every file, set aside what is not whole, and make the index again."""
        before = set(self.folder.glob("quarantine/*"))
        whole, used = [], set()
        for key in sorted(self.keys()):
            if (kept := self.get(key)) is not None:
                whole.append(key)
                used.add(kept.body["tensors"])
        for path in self.folder.glob("objects/*/*"):
            self._object(path.stem)
        for path in self.folder.glob("parts/*.json"):
            self.part(path.stem)
        for path in self.folder.glob("index.sqlite*"):
            _remove(path)
        self.entries()
        altered = sorted(path.name for path in set(self.folder.glob("quarantine/*")) - before)
        size = sum(path.stat().st_size for path in self._files() if path.parent.name != "quarantine")
        return Health(len(whole), size, tuple(altered), tuple(sorted(map(str, self._unused(used)))))

    def clean(self, *, rehearse: bool = False) -> tuple[int, int]:
        """Delete what is set aside, what no unit refers to and the torn files of killed writers.

        Units in progress are kept, however old: the search that left them goes on with them.

        Args:
            rehearse: count and delete nothing.

        Returns:
            how many files, and their bytes.

        Raises:
            StoreError: a study is running on this store.
        """
        with _locked(self.folder / "locks" / _IN_USE, fcntl.LOCK_EX) as got:
            if not got:
                raise StoreError(f"a study is running on {self.folder}. Clean it when that is done.")
            self.check()
            bodies = (self._record(self._unit(key), key) for key in sorted(self.keys()))
            used = {body["tensors"] for body in bodies if body is not None}
            waste = [*self._unused(used), *self.folder.glob("quarantine/*")]
            size = sum(path.stat().st_size for path in waste)
            if not rehearse:
                for path in waste:
                    _remove(path)
            return len(waste), size

    def _open(self) -> None:
        path = self.folder / "store.json"
        names = self._names()
        begun = all(name.startswith(".store.json.") for name in names)
        if not begun and not {"store.json", "units"} & names:
            raise StoreError(f"{self.folder} holds other things and no store. Choose a folder of its own.")
        try:
            version = unseal(path.read_bytes(), str(path))["schema"]
        except (CorruptStore, KeyError):
            self._set_aside(path)
            write_all({path: seal({"schema": SCHEMA})})
            return
        except FileNotFoundError:
            write_all({path: seal({"schema": SCHEMA})})
            return
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}. Give a folder that you may read.") from error
        if not isinstance(version, int) or version > SCHEMA:
            raise StoreError(
                f"{self.folder} was written by a newer version of tombola, in layout {version}; this one knows "
                f"{SCHEMA}. Update tombola, or use another folder."
            )

    def _names(self) -> set[str]:
        try:
            return set(os.listdir(self.folder))
        except FileNotFoundError:
            return set()
        except NotADirectoryError as error:
            raise StoreError(
                f"{self.folder} is a file or lies in one, and a store is a folder. Choose another path."
            ) from error
        except OSError as error:
            raise StoreError(
                f"{self.folder} cannot be read: {error.strerror}. Choose another path, or look at its permissions."
            ) from error

    def _record(self, path: Path, key: str) -> dict[str, Any] | None:
        data = self._read(path)
        if data is None:
            return None
        with suppress(CorruptStore, KeyError):
            body = unseal(data, str(path))
            if body["key"] == key:
                return body
        self._set_aside(path)
        return None

    def _object(self, digest: str) -> bytes | None:
        path = self._tensors(digest)
        data = self._read(path)
        if data is not None and hashlib.sha256(data).hexdigest() != digest:
            self._set_aside(path)
            return None
        return data

    def _read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            self._set_aside(path)
            return None
        except OSError as error:
            raise StoreError(
                f"{path} cannot be read: {error.strerror}. Look at its disk and its permissions."
            ) from error

    def _set_aside(self, path: Path) -> None:
        try:
            folder = self.folder / "quarantine"
            folder.mkdir(exist_ok=True)
            number = 0
            while (to := folder / f"{path.name}.{number}").exists():
                number += 1
            os.replace(path, to)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise CannotWrite(
                f"{path} is altered and cannot be set aside: {error.strerror}. Make the store writable, then run again."
            ) from error

    def _files(self) -> Iterator[Path]:
        return (path for path in self.folder.rglob("*") if path.is_file())

    def _unused(self, used: set[str | None]) -> list[Path]:
        lost = [path for path in self.folder.glob("objects/*/*") if path.stem not in used]
        done = {path.stem for path in self.folder.glob("units/*/*.json")}
        clocks = [path for path in self.folder.glob("clocks/*/*") if path.stem not in done]
        torn = [path for path in self._files() if path.name.startswith(".") and path.suffix == ".tmp"]
        parts = [path for path in self.folder.glob("parts/*") if path.name.partition(".")[0] in done]
        return sorted({*lost, *clocks, *torn, *parts})

    def _unit(self, key: str) -> Path:
        return self.folder / "units" / key[:2] / f"{key}.json"

    def _clock(self, key: str) -> Path:
        return self.folder / "clocks" / key[:2] / f"{key}.json"

    def _tensors(self, digest: str) -> Path:
        return self.folder / "objects" / digest[:2] / f"{digest}.safetensors"

    def _part(self, key: str) -> Path:
        return self.folder / "parts" / f"{key}.json"

    def _part_tensors(self, key: str, digest: str) -> Path:
        return self.folder / "parts" / f"{key}.{digest[:16]}.safetensors"


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[bool]:
    """Hold a lock that the system lets go when this process dies; gives whether it was free."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}. Choose a folder that you may write to.") from error
    while True:
        try:
            handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise CannotWrite(
                f"cannot write {path}: {error.strerror}. Choose a folder that you may write to."
            ) from error
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        except OSError as error:
            os.close(handle)
            raise CannotWrite(
                f"{path} cannot be locked: {error.strerror}. Keep the store on a file system with locks."
            ) from error
        if not free:
            os.close(handle)
            yield False
            return
        # The holder before may have taken the file away between the two calls.
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(handle).st_ino:
                break
        os.close(handle)
    try:
        yield True
    finally:
        if kind == fcntl.LOCK_EX:
            _remove(path)
        os.close(handle)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _entry(key: str, body: Mapping[str, Any]) -> Entry:
    unit, outcome = body["unit"], body["outcome"]
    return Entry(
        key=key,
        name=body["name"],
        replicate=unit["seed"][1],
        data_order=unit["seed"][2],
        stop=unit["stop"],
        density=body["density"],
        result=outcome["result"],
        iterations=outcome["iterations"],
        sha256=hashlib.sha256(seal(body)).hexdigest(),
    )
