"""The front door: words to functions.

Each file is one command: it reads its flags, calls one library function and prints the result. Nothing here imports
torch before a command needs it. ``tests/cli`` and ``tests/golden`` prove it.
"""

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, as :func:`tombola.cli.app.main`; Ctrl-C while that is imported ends in one line too."""
    try:
        from tombola.cli.app import main as run

        return run(arguments)
    except KeyboardInterrupt:
        from tombola.cli.interrupting import forget_interrupt
        from tombola.saying import say

        forget_interrupt()
        say("Interrupted.")
        return 130
