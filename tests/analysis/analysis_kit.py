"""Families that seek nothing, families that do, and small masks to compare."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tombola.analysis.family import Observed
from tombola.analysis.null import without_seeking

SHAPES: Mapping[str, tuple[int, ...]] = {"fc1.weight": (24, 40), "fc2.weight": (12, 24)}
COUNTS = {"fc1.weight": 200, "fc2.weight": 60}


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(seed: int) -> dict[str, Tensor]:
    """Glorot normal weights."""
    draw = rng(seed)
    return {n: torch.randn(s, generator=draw) * (2 / (s[0] + s[1])) ** 0.5 for n, s in SHAPES.items()}


def trained(theta_0: Mapping[str, Tensor], seed: int, seeking: float = 0.0) -> dict[str, Tensor]:
    """Move weights by inputs of unlike strength, one in eight dead; with ``seeking`` outwards where |w_0| is large.

    The displacement is then permuted over the outputs within each input where nothing is sought.
    """
    draw = rng(10_000 + seed)
    ends = {}
    for name, w in theta_0.items():
        strength = torch.rand(w.shape[1], generator=draw) * (torch.arange(w.shape[1]) % 8 > 0)
        step = 0.2 * torch.randn(w.shape, generator=draw) * strength
        ends[name] = w + step + seeking * w * w.abs() / w.abs().mean() * strength
    return ends if seeking else without_seeking(theta_0, ends, list(theta_0), draw)


def family(replicate: int, seed: int, *, runs: int = 2, seeking: float = 0.0) -> Observed:
    theta_0 = start(1000 * seed + replicate)
    ends = tuple(trained(theta_0, 1000 * seed + 100 * run + replicate, seeking) for run in range(runs))
    return Observed(replicate, theta_0, ends, tuple(SHAPES))


def mask(text: str) -> Tensor:
    """Write a mask as rows of 1 and 0."""
    return torch.tensor([[char == "1" for char in row] for row in text.split()])
