"""Run as a script beside a study with a Ray cluster of its own: when the study ends, in whatever way, so does that.

Ray ends what it has started, but not all of it where its start is cut short or the study is killed. Nothing but the
standard library is imported, so that this is there at once.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

MARK = "TOMBOLA_RAY_FOLDER"
"""The environment variable that the cluster's processes have, and inherit from each other."""

_PASSES = 20
_BETWEEN_SECONDS = 0.1


def main(folder: str) -> None:
    """Wait for the end of standard input; then end every process that is marked with a folder, and remove that."""
    sys.stdin.buffer.read()
    for _ in range(_PASSES):
        found = marked(MARK, folder)
        for process in found:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        if not found and not os.path.exists(folder):
            return
        time.sleep(_BETWEEN_SECONDS)


def marked(name: str, value: str) -> list[int]:
    """Find the processes that were started with a value of an environment variable; none where ``/proc`` is none."""
    mark, found = f"{name}={value}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    main(sys.argv[1])
