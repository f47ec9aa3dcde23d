"""The process ends soon after Ctrl-C, wherever it finds it, and leaves nothing for others to complain of."""

import subprocess
import sys

STUCK = """
import os, signal, time
from tombola.cli.interrupting import ends_promptly
from tombola.train.pool import clean_context

if __name__ == "__main__":
    locks = [clean_context().Lock() for _ in range(5)]
    with ends_promptly(130, lambda: "last words"):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(100)
        except KeyboardInterrupt:
            time.sleep(100)
"""


def test_what_does_not_end_by_itself_is_ended_and_nothing_is_said_after_the_last_words() -> None:
    """The locks' semaphores are unlinked: the resource tracker would warn of five that are left."""
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    assert done.stderr == "last words\n"
