"""The front door: words to functions.

Each file is one command: it reads its flags, calls one library function and prints the result. Nothing here imports
torch before a command needs it. ``tests/cli`` and ``tests/golden`` prove it.
"""

from tombola.cli.app import main

__all__ = ["main"]
