"""Ctrl-C, heard in the middle of one long computation too."""

import atexit
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import util
from typing import Final

_PATIENCE: Final = 1.5
"""Seconds that the computation is given to come to its end by itself."""

_SHOW_CURSOR: Final = "\x1b[?25h"


@contextmanager
def ends_promptly(code: int, last_words: Callable[[], str]) -> Iterator[None]:
    """End the process soon after Ctrl-C or a polite kill, wherever it finds it.

    Python raises KeyboardInterrupt between two of its own instructions, and one of them may be the backward pass of a
    large network. Where the context is not left in time, another thread says the last words and ends the process;
    training processes end with it.

    Args:
        code: the exit code then.
        last_words: what is printed on standard error then; it may save something first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    left = threading.Event()

    def watch() -> None:
        with reader:
            while told := reader.recv(1):
                if told[0] in (signal.SIGINT, signal.SIGTERM):
                    if not left.wait(_PATIENCE):
                        _end(code, last_words)
                    return

    threading.Thread(target=watch, daemon=True).start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        writer.close()


def forget_interrupt() -> None:
    """Let the process end by its exit code after a KeyboardInterrupt that was dealt with.

    CPython ends itself by SIGINT where one has passed through code run from a string, as dataclasses have it when they
    are made; running any other such code takes that back.
    """
    exec("")


def leave(code: int) -> None:
    """End this process without taking its modules apart, which with torch takes most of a second."""
    # What is registered ends child processes, and takes back semaphores.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    _end_server()
    os._exit(code)


def _end(code: int, last_words: Callable[[], str]) -> None:
    try:
        if sys.stderr.isatty():
            sys.stderr.write(_SHOW_CURSOR)
        print(last_words(), file=sys.stderr, flush=True)
    finally:
        _take_back_semaphores()
        _end_server()
        os._exit(code)


def _take_back_semaphores() -> None:
    """Unlink what the pool's locks are called; else the resource tracker does it, with a warning after the last words.

    Of what is registered for the end of the process only this never waits.
    """
    synchronize = sys.modules.get("multiprocessing.synchronize")
    if synchronize is None:
        return
    for finalizer in list(getattr(util, "_finalizer_registry", {}).values()):
        if finalizer is not None and finalizer._callback is synchronize.SemLock._cleanup:
            with suppress(OSError):
                finalizer()


def _end_server() -> None:
    """End the process that forks the others: while it imports torch it does not see that this one is gone."""
    module = sys.modules.get("multiprocessing.forkserver")
    pid = None if module is None else module._forkserver._forkserver_pid
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
