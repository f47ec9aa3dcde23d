"""Files that are either wholly there or not there."""

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tombola.errors import CannotWrite

_IN_THE_WAY: Final = "A file, or a link that leads nowhere, stands where a folder is needed. Choose another path."
_ADVICE: Final = {
    errno.ENOSPC: "Free some space, or choose a path on another disk.",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write several files so that a crash or a full disk leaves no part of any behind.

    Every file goes to a temporary neighbour first and is flushed to the disk; only when all of them are safe are they
    renamed into place.

    Raises:
        CannotWrite: a folder cannot be made or written, a folder stands where a file should go, or the disk is full.
            Nothing is left half-written.
    """
    waiting: dict[Path, Path] = {}
    target = Path()
    try:
        for target, content in files.items():
            if target.is_dir():
                raise CannotWrite(f"{target} is a folder, and a file should be written there. Choose another path.")
            temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
            try:
                handle = _begin(temporary)
            except FileNotFoundError:
                # Somebody took the folder away since it was made.
                handle = _begin(temporary)
            waiting[temporary] = target
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for temporary, target in list(waiting.items()):
            os.replace(temporary, target)
            del waiting[temporary]
    except OSError as error:
        raise CannotWrite(f"cannot write {target}: {error.strerror or error}. {_advice(error)}") from error
    finally:
        for temporary in waiting:
            with contextlib.suppress(OSError):
                temporary.unlink()


def check_writable(folder: Path) -> None:
    """Find out before a long computation whether ``folder`` can be made and written; nothing is made.

    Raises:
        CannotWrite: it cannot.
    """
    try:
        nearest = _nearest(folder)
        if not nearest.is_dir():
            raise CannotWrite(
                f"cannot write into {folder}: {nearest} is a file or a link that leads nowhere, and a folder is "
                "expected. Choose another path."
            )
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise CannotWrite(f"cannot write into {folder}: {error.strerror or error}. {_advice(error)}") from error


def _begin(file: Path) -> int:
    file.parent.mkdir(parents=True, exist_ok=True)
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _nearest(folder: Path) -> Path:
    """Give the folder, or the nearest of those above it that is there."""
    for part in (folder, *folder.parents):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            part.lstat()
            return part
    return folder


def _advice(error: OSError) -> str:
    return _ADVICE.get(error.errno or 0, "Choose a folder that you may write to.")
