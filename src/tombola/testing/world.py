"""What a part shares with everything else in the process, and must leave as it was."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch


@contextmanager
def left_alone(who: str, where: str) -> Iterator[None]:
    """Raise where what runs inside changes the process; put it back either way.

    Args:
        who: what runs inside, such as ``"the criterion"``.
        where: on what, in brackets; the end of the sentence.

    Raises:
        AssertionError: a random generator of the process was drawn from, or grad mode, the default dtype or the number
            of threads is another one afterwards.
    """
    states = torch.random.get_rng_state(), random.getstate(), numpy.random.get_state()
    grad, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    try:
        yield
        after = torch.random.get_rng_state(), random.getstate(), numpy.random.get_state()
        drawn = not torch.equal(states[0], after[0])
        assert not drawn, f"{who} draws from torch's global generator {where}; it is given a generator of its own"
        assert states[1] == after[1], f"{who} draws from Python's global generator {where}"
        assert _same(states[2], after[2]), f"{who} draws from numpy's global generator {where}"
        assert torch.is_grad_enabled() == grad, f"{who} leaves grad mode changed {where}; use it as a context"
        assert torch.get_default_dtype() == dtype, f"{who} leaves the default dtype changed {where}"
        assert torch.get_num_threads() == threads, f"{who} leaves the number of threads changed {where}"
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.random.set_rng_state(states[0])
        random.setstate(states[1])
        numpy.random.set_state(states[2])


def _same(first: Any, second: Any) -> bool:
    """Say whether two states of numpy's generator, tuples with an array at place 1, are equal."""
    return bool(numpy.array_equal(first[1], second[1])) and first[2:] == second[2:]
