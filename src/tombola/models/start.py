"""The values a network starts from."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from tombola.errors import InvalidValue
from tombola.models.state import state_buffers
from tombola.seeds import derive
from tombola.types import Seed, Snapshot

DRAWING: Final = threading.RLock()
"""Held by whoever seeds torch's global generator, of which a process has one, or draws from it; and by whoever traces a
network, or runs one where another thread may be tracing."""


def initial(build: Callable[[], nn.Module], seed: Seed) -> Snapshot:
    r"""Draw the start values of a network, the same ones for the same seed.

    This is :math:`\theta_0 \sim D_\theta` of Frankle & Carbin (2019), section 1. The network is built with torch's
    global generator (and numpy's and Python's) seeded from the stream ``init``, so any module's own initialiser is
    replayed; the caller's generators are left as they were.

    Args:
        build: makes the network; its random numbers come from torch's global generator. One that draws on a GPU is
            replayed when CUDA is already in use.
        seed: study seed and replicate; ``seed.order`` makes no difference.

    Returns:
        A snapshot at step 0 with a fresh optimiser: detached copies of ``named_parameters`` (a tied parameter once,
        under its first name) and of the buffers that a state dict has, on the device ``build`` chose.

    Raises:
        InvalidValue: ``build`` returns no module, or one whose parameters have no values yet.

    Example:
        >>> a, b = (initial(lambda: nn.Linear(2, 2), Seed(0)) for _ in range(2))
        >>> bool((a.params["weight"] == b.params["weight"]).all())
        True
    """
    cuda_in_use: Callable[[], bool] = torch.cuda.is_initialized
    devices = range(torch.cuda.device_count()) if cuda_in_use() else ()
    with DRAWING, torch.random.fork_rng(devices=devices):
        number = derive(seed, "init")
        # torch.manual_seed would also seed a GPU that fork_rng cannot restore because it is not in use yet.
        torch.default_generator.manual_seed(number)
        if devices:
            torch.cuda.manual_seed_all(number)
        with _seeded_elsewhere(number):
            module = build()
    if not isinstance(module, nn.Module):
        raise InvalidValue(
            f"the model factory returned a {type(module).__name__}, expected a torch.nn.Module. Let it return the "
            "network."
        )
    for name, parameter in module.named_parameters():
        if is_lazy(parameter) or parameter.is_meta:
            raise InvalidValue(
                f"parameter {name!r} has no values yet: it is lazy or on the meta device. Start values are drawn when "
                "the network is built; let the factory run one example through it, or build it on the CPU."
            )
    return Snapshot(
        step=0,
        params={name: parameter.detach().clone() for name, parameter in module.named_parameters()},
        buffers={name: buffer.detach().clone() for name, buffer in state_buffers(module).items()},
    )


@contextmanager
def _seeded_elsewhere(number: int) -> Iterator[None]:
    """Seed numpy's and Python's own global generators too, for initialisers that draw from them; both are put back."""
    ours, theirs = random.getstate(), numpy.random.get_state()
    random.seed(number)
    numpy.random.seed(number % 2**32)
    try:
        yield
    finally:
        random.setstate(ours)
        numpy.random.set_state(theirs)
