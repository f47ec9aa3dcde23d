"""The nearest subset sum in torch: what the compiled solver computes, on any device."""

from typing import Final

import torch
from torch import Tensor

_ELEMENTS: Final = 1 << 20
"""Keys in memory at once, for each list."""


def nearest(items: Tensor, targets: Tensor, bits: int) -> Tensor:
    """Find the subset of each row whose sum is nearest to its target.

    Horowitz & Sahni (1974): the sums of one half are looked up among the target minus the sums of the other. Of
    subsets that are equally near the first is taken, going through the sums of the first half in ascending order, and
    for each first to the sum below or the sums not below.

    Args:
        items: int64 ``[rows, n]``, in fixed point.
        targets: int64 ``[rows]``.
        bits: room for the code of the larger half; values times ``2**bits`` must fit into 63 bits.

    Returns:
        int64 ``[rows]``: bit k says that item k is in the subset.
    """
    half = items.shape[1] // 2
    at_once = max(1, _ELEMENTS >> (items.shape[1] - half))
    found = [
        _few(some, wanted, half, bits)
        for some, wanted in zip(items.split(at_once), targets.split(at_once), strict=True)
    ]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64, device=items.device)


def _few(items: Tensor, targets: Tensor, half: int, bits: int) -> Tensor:
    code = (1 << bits) - 1
    a = _sums(torch.zeros_like(targets), items[:, :half], bits).sort(1).values
    b = _sums(targets, -items[:, half:], bits).sort(1).values
    values, others = a >> bits, b >> bits
    above = torch.searchsorted(others, values)
    far = torch.iinfo(torch.int64).max
    below = (above - 1).clamp(min=0)
    above, beyond = above.clamp(max=b.shape[1] - 1), above == b.shape[1]
    down = torch.where(others.gather(1, below) < values, values - others.gather(1, below), far)
    up = torch.where(beyond, far, others.gather(1, above) - values)
    nearer, which = torch.minimum(down, up), torch.where(up < down, above, below)
    best = nearer.min(1, keepdim=True).values
    # argmin does not say which of equal ones it gives.
    first = (nearer == best).to(torch.uint8).argmax(1, keepdim=True)
    chosen = b.gather(1, which.gather(1, first))
    return ((a.gather(1, first) & code) | ((chosen & code) << half)).squeeze(1)


def _sums(start: Tensor, items: Tensor, bits: int) -> Tensor:
    """Give the keys of all subsets, ``[rows, 2**k]``: the value times ``2**bits`` plus the code."""
    keys = (start << bits)[:, None]
    for item in range(items.shape[1]):
        keys = torch.cat([keys, keys + (items[:, item, None] << bits) + (1 << item)], 1)
    return keys
