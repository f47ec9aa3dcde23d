"""What a person is told while a computation runs, on standard error."""

import sys
from contextlib import suppress


def say(text: str) -> None:
    """Print a line on standard error, or nowhere when that is full or closed: no search ends for want of a listener."""
    # Given no stream at all, print would take standard output.
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)
