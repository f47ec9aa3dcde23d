"""What training does to the process that it runs in: threads, and torch's global generators."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tombola.models import DRAWING


@contextmanager
def undisturbed(device: str) -> Iterator[None]:
    """Train on one intra-op thread, and leave the caller's thread count and generators as they were.

    One thread of a process at a time: training seeds the global generator again and again.

    Sums over several threads are taken in another order, so on a CPU bits would depend on how many there are.

    Args:
        device: ``cpu`` or ``cuda[:n]``.
    """
    cuda = [torch.device(device)] if device.startswith("cuda") else []
    with DRAWING, torch.random.fork_rng(devices=cuda):
        before = torch.get_num_threads()
        if not cuda:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if not cuda:
                torch.set_num_threads(before)


def seed_global(seed: int, device: torch.device) -> None:
    """Seed the generator that modules draw from on a device; on CUDA the CPU's too."""
    # torch.manual_seed would also seed GPUs that nobody puts back.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
