"""The command line as a whole: commands, errors and exit codes."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TextIO

from cyclopts import App, CycloptsError

import tombola
from tombola.cli.interrupting import forget_interrupt, leave
from tombola.errors import TombolaError
from tombola.saying import say

WRONG_CALL = 2
"""Exit code of a wrong flag, value, data set or file."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def make_app() -> App:
    """Put the commands together."""
    from tombola.cli import analyze, bench, cite, data, find, judge, store, strong, study, ticket

    app = App(
        name="tombola",
        version=tombola.__version__,
        help="Find, prove and ship winning lottery tickets: sparse subnetworks that, trained in isolation from their "
        "initial values, match the dense network.",
        help_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    app.command(find.find, help_epilogue=find.METHODS)
    app.command(judge.judge)
    app.command(analyze.analyze)
    app.command(study.app)
    app.command(strong.app)
    app.command(store.app)
    app.command(ticket.app)
    app.command(data.app)
    app.command(bench.bench)
    app.command(cite.cite)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words after ``tombola``; those of the process by default.

    Returns:
        The exit code: 0, 1 for a ticket that does not verify, 2 for a wrong call, 130 after Ctrl-C.
    """
    _prepare_streams()
    code = _main(arguments)
    _let_go(sys.stderr)
    if code == INTERRUPTED and arguments is None:
        leave(code)
    return code


def _main(arguments: Sequence[str] | None) -> int:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        result = make_app()(
            sys.argv[1:] if arguments is None else list(arguments),
            exit_on_error=False,
            print_error=True,
            result_action="return_value",
        )
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except CycloptsError:
        return WRONG_CALL
    except TombolaError as error:
        say(f"{type(error).__name__}: {error}")
        return WRONG_CALL
    except KeyboardInterrupt:
        forget_interrupt()
        say("Interrupted; nothing was written.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone.
        _let_go(sys.stdout)
        return WRONG_CALL
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        say(f"CannotWrite: standard output: {error.strerror}. Send it somewhere with space.")
        _let_go(sys.stdout)
        return WRONG_CALL


def _prepare_streams() -> None:
    """Let no print end a command: without a stream it goes nowhere, and what the stream lacks becomes ``?``."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _let_go(stream: TextIO) -> None:
    """Turn a stream that cannot be written away, so that it is not tried again at exit and changes the exit code."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _terminate(_: int, __: object) -> None:
    """A polite kill ends a search as Ctrl-C does: workers stopped, nothing half-written."""
    raise KeyboardInterrupt
