"""One digest per set of tensors, beside the one text per JSON value."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from tombola.canonical import dumps, loads

__all__ = ["digest", "dumps", "loads", "same"]


def digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """Give the SHA-256 over tensors and a text, in hexadecimal.

    Over, for every tensor in the order of the names: ``["name","dtype",[shape]]`` and a line feed, then its bytes in
    row-major order; and at last the text.

    Example:
        >>> digest({"a": torch.zeros(2)}, "{}")[:8]
        '5efc954a'
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        heading = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        total.update(f"{dumps(heading)}\n".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    total.update(text.encode())
    return total.hexdigest()


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors have one dtype, one shape and the same bits; or are both ``None``.

    Bits, not values: -0.0 equals 0.0, and NaN equals nothing.

    Example:
        >>> same(torch.tensor([0.0]), torch.tensor([-0.0])), same(None, None)
        (False, True)
    """
    if a is None or b is None:
        return a is b
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return torch.equal(*(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for x in (a, b)))
