"""The random network: every weight from U[-1, 1), drawn from a seed alone, the same on every machine."""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from tombola.seeds import derive
from tombola.types import Seed

LAW: Final = "uniform-1"
"""What is drawn, by name: multiples of 2^-23 in [-1, 1), by Philox 4x64, a stream for each group of each layer."""


def draw(seed: int, layer: int, part: str, group: int, count: int) -> Tensor:
    """Draw weights of the random network.

    The generator's own bits are taken, 24 for each number: its counter makes the same ones everywhere, and no
    library's way from bits to numbers comes in between.

    Args:
        seed: of the network.
        layer: its number, from 0.
        part: a name for what is drawn.
        group: the stream within the part.
        count: how many.

    Returns:
        float32 ``[count]``.

    Example:
        >>> first = draw(0, 0, "v", 0, 4)
        >>> bool(torch.equal(first, draw(0, 0, "v", 0, 9)[:4])), bool((first.abs() <= 1).all())
        (True, True)
    """
    key = derive(Seed(seed), "init", "strong", LAW, layer, part, group)
    words = np.random.Philox(key=key).random_raw((count + 1) // 2)
    halves = np.ascontiguousarray(words, dtype="<u8").view("<u4")[:count]
    return torch.from_numpy((halves >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1))
