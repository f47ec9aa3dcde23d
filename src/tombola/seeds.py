"""Named random streams.

Each kind of randomness draws from a stream of its own, derived from the study's seed and the replicate, so that adding
a draw to one moves no other. No stream is folded with the level: a ticket at level 15 sees the data in the order its
dense network saw it, and rewinding to 0 under an all-ones mask is the dense run again.
"""

import hashlib
from typing import TYPE_CHECKING, Final

from tombola.errors import UnknownName
from tombola.types import Seed

if TYPE_CHECKING:
    import torch

STREAMS: Final = ("split", "init", "order", "augment", "dropout", "prune", "control")
"""What may be drawn: the validation split, start values, batches, augmentation, dropout, ties and random scores,
and the controls (each folded with its own name and the level)."""


def derive(seed: Seed, stream: str, *fold: int | str) -> int:
    """Give the 63-bit seed of a stream.

    Args:
        seed: study seed and replicate. ``seed.order`` counts for the streams ``order``, ``augment`` and ``dropout``
            only: further dense runs of a family share its initialisation and split.
        stream: one of ``STREAMS``.
        fold: anything else the stream depends on, such as the epoch.

    Raises:
        UnknownName: the stream is not in ``STREAMS``.

    Example:
        >>> derive(Seed(0), "init") == derive(Seed(0, order=1), "init")
        True
        >>> derive(Seed(0), "order") == derive(Seed(0, order=1), "order")
        False
    """
    if stream not in STREAMS:
        raise UnknownName.among("random stream", stream, STREAMS)
    order = (seed.order,) if stream in ("order", "augment", "dropout") else ()
    text = "/".join(map(str, ("tombola", 1, seed.root, seed.replicate, stream, *order, *fold)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: Seed, stream: str, *fold: int | str) -> "torch.Generator":
    """Give a CPU generator at the start of a stream; the arguments are those of :func:`derive`."""
    import torch

    return torch.Generator().manual_seed(derive(seed, stream, *fold))
