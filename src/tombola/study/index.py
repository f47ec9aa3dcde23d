"""The index of a store: SQLite, made from the records and made again whenever it is lost."""

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

_COLUMNS: Final = ("key", "name", "replicate", "data_order", "stop", "density", "result", "iterations", "sha256")
_TABLE: Final = """
create table if not exists units (
  key text primary key, name text, replicate integer, data_order integer, stop integer, density real,
  result text, iterations integer, sha256 text
) strict, without rowid
"""


@final
@dataclass(frozen=True)
class Entry:
    """What the index says of one unit.

    Attributes:
        key: of the unit.
        name: what it trained, such as ``ticket``.
        replicate, data_order: of its seed.
        stop: the position after its last iteration.
        density: fraction kept of the weights under its masks; 1.0 without masks.
        result: how it ended.
        iterations: how many were trained.
        sha256: of its record.
    """

    key: str
    name: str
    replicate: int
    data_order: int
    stop: int
    density: float
    result: str
    iterations: int
    sha256: str


@final
class Index:
    """Rows of units. Several processes on one machine may write it; it is never the only place of anything."""

    def __init__(self, path: Path | None) -> None:
        """Open or make it; ``None`` keeps it in memory.

        Raises:
            sqlite3.DatabaseError: the file is no database, or damaged.
        """
        where = ":memory:" if path is None else str(path)
        self._base = sqlite3.connect(where, timeout=60, isolation_level=None)
        try:
            if path is not None:
                self._base.execute("pragma journal_mode = wal")
                if self._base.execute("pragma quick_check").fetchone() != ("ok",):
                    raise sqlite3.DatabaseError("damaged")
            self._base.execute(_TABLE)
            self._base.execute(f"select {', '.join(_COLUMNS)} from units limit 1")
        except sqlite3.Error:
            self._base.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def put(self, entries: Iterable[Entry]) -> None:
        """Write rows, all or none."""
        rows = [tuple(getattr(entry, name) for name in _COLUMNS) for entry in entries]
        self._base.execute("begin immediate")
        try:
            marks = ", ".join("?" * len(_COLUMNS))
            self._base.executemany(f"insert or replace into units ({', '.join(_COLUMNS)}) values ({marks})", rows)
        except BaseException:
            self._base.execute("rollback")
            raise
        self._base.execute("commit")

    def drop(self, keys: Iterable[str]) -> None:
        """Take rows out."""
        self._base.executemany("delete from units where key = ?", [(key,) for key in keys])

    def entries(self) -> Mapping[str, Entry]:
        """Give every row by key, in the order of the keys."""
        rows: list[tuple[Any, ...]] = self._base.execute(
            f"select {', '.join(_COLUMNS)} from units order by key"
        ).fetchall()
        return {row[0]: Entry(*row) for row in rows}


def opened(path: Path) -> Index:
    """Open an index, or a new one in place of what cannot be read; one in memory where the folder is read-only."""
    try:
        return Index(path)
    except sqlite3.OperationalError:
        return Index(None)
    except sqlite3.DatabaseError:
        for one in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            with contextlib.suppress(FileNotFoundError):
                one.unlink()
        return Index(path)
