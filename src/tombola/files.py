"""Files that are either wholly there or not there."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tombola.errors import CannotWrite


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
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
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
    """Find out before a long computation whether ``folder`` can be made and written.

    Raises:
        CannotWrite: it cannot. A folder that was made to find out is taken away again.
    """
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    if folder.is_file():
        raise CannotWrite(f"cannot write into {folder}: it is a file, and a folder is expected. Choose another path.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for part in made:
            part.rmdir()
    except OSError as error:
        raise CannotWrite(f"cannot write into {folder}: {error.strerror or error}. {_advice(error)}") from error


def _advice(error: OSError) -> str:
    if error.errno == 28:
        return "Free some space, or choose a path on another disk."
    return "Choose a folder that you may write to."
