"""Masks: which weights are in the subnetwork, and what can be said of two such choices."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.types import Masks, Params


def ones(params: Params, names: Iterable[str]) -> dict[str, Tensor]:
    """Give the dense mask over the named parameters.

    Args:
        params: name -> tensor.
        names: the prunable ones.

    Returns:
        name -> all-true bool tensor, on the parameter's device.
    """
    return {name: torch.ones_like(params[name], dtype=torch.bool) for name in names}


def counts(masks: Masks) -> dict[str, int]:
    """Count the kept weights of each tensor."""
    return {name: _count(mask) for name, mask in masks.items()}


def sizes(masks: Masks) -> dict[str, int]:
    """Give the size of each masked tensor, kept and pruned entries together."""
    return {name: mask.numel() for name, mask in masks.items()}


def kept(masks: Masks) -> int:
    """Count the kept weights of all tensors together."""
    return sum(counts(masks).values())


def total(masks: Masks) -> int:
    """Count the prunable weights of all tensors together."""
    return sum(sizes(masks).values())


def density(masks: Masks) -> float:
    """Give the fraction kept of the prunable weights; 1.0 for a mask over nothing.

    Example:
        >>> density({"w": torch.tensor([True, False, False, False])})
        0.25
    """
    return kept(masks) / total(masks) if total(masks) else 1.0


def apply(params: Params, masks: Masks) -> dict[str, Tensor]:
    """Set the pruned entries to zero and leave everything else as it is.

    A pruned entry that holds NaN or Inf becomes zero as well, which a product with the mask would not do.

    Raises:
        ShapeMismatch: a mask belongs to no parameter, or to one of another shape.
    """
    check(params, masks)
    return {
        name: torch.where(masks[name], value, torch.zeros((), dtype=value.dtype, device=value.device))
        if name in masks
        else value
        for name, value in params.items()
    }


def check(params: Params, masks: Masks) -> None:
    """Raise unless every mask is a bool tensor of its parameter's shape.

    Raises:
        ShapeMismatch: naming the mask, its shape and its parameter's.
        InvalidValue: a mask that is not bool.
    """
    for name, mask in masks.items():
        if name not in params:
            raise ShapeMismatch(
                f"there is a mask for {name!r}, and the network has no such parameter. It has: "
                f"{', '.join(sorted(params))}. Masks belong to the network they were found on."
            )
        if mask.shape != params[name].shape:
            raise ShapeMismatch(
                f"mask {name!r} has shape {tuple(mask.shape)}, its parameter has {tuple(params[name].shape)}. "
                "A mask matches its parameter's shape."
            )
        if mask.dtype is not torch.bool:
            raise InvalidValue(f"mask {name!r} has dtype {mask.dtype}; masks are torch.bool. Use mask.bool().")


def nested(inner: Masks, outer: Masks) -> bool:
    """Say whether every weight that ``inner`` keeps is kept by ``outer`` too.

    A name absent from ``outer`` is dense there; a name absent from ``inner`` is dense there, so ``outer`` must be.

    Raises:
        ShapeMismatch: the two cover one tensor with different shapes.
    """
    check({name: inner.get(name, mask) for name, mask in outer.items()}, outer)
    dense = torch.ones((), dtype=torch.bool)
    return not any(bool((inner.get(name, dense.to(mask.device)) & ~mask).any()) for name, mask in outer.items())


@final
@dataclass(frozen=True)
class Overlap:
    """How much two masks share.

    Attributes:
        shared: weights that both keep.
        first: weights that the first keeps.
        second: weights that the second keeps.
        size: weights there are.
    """

    shared: int
    first: int
    second: int
    size: int

    @property
    def jaccard(self) -> float:
        """Shared over kept by either; 1 for two empty masks."""
        either = self.first + self.second - self.shared
        return self.shared / either if either else 1.0

    @property
    def expected(self) -> float:
        """What two independent masks with these counts share on average (hypergeometric mean)."""
        return self.first * self.second / self.size if self.size else 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation of that count (hypergeometric)."""
        if self.size < 2:
            return 0.0
        rest = (1 - self.first / self.size) * (1 - self.second / self.size)
        return math.sqrt(self.expected * rest * self.size / (self.size - 1))


def overlap(first: Masks, second: Masks) -> dict[str, Overlap]:
    """Compare two masks tensor by tensor.

    Raises:
        ShapeMismatch: they do not cover the same tensors of the same shapes.
        InvalidValue: one of them is not bool.
    """
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise ShapeMismatch(f"only one of the two masks covers {', '.join(odd)}. Compare masks of one network.")
    check(first, second)
    check(second, first)
    return {
        name: Overlap(
            shared=_count(mask & second[name]),
            first=_count(mask),
            second=_count(second[name]),
            size=mask.numel(),
        )
        for name, mask in first.items()
    }


_BIT_VALUES = (128, 64, 32, 16, 8, 4, 2, 1)


def pack(mask: Tensor) -> Tensor:
    """Pack a mask into bits.

    Args:
        mask: bool, any shape.

    Returns:
        uint8, shape ``[ceil(n / 8)]``, on the CPU; row-major, the first entry in the highest bit, zero padding (the
        layout of ``numpy.packbits``).

    Example:
        >>> pack(torch.tensor([True, False, True]))
        tensor([160], dtype=torch.uint8)
    """
    flat = mask.detach().to("cpu", torch.uint8).reshape(-1)
    padded = torch.cat([flat, flat.new_zeros(-flat.numel() % 8)]).reshape(-1, 8)
    return (padded * torch.tensor(_BIT_VALUES, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpack(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo :func:`pack`.

    Raises:
        ShapeMismatch: the number of bytes does not fit the shape, or a padding bit is set.
    """
    size = math.prod(shape)
    if bits.numel() != (size + 7) // 8:
        raise ShapeMismatch(
            f"a mask of shape {tuple(shape)} takes {(size + 7) // 8} bytes of bits, and there are {bits.numel()}."
        )
    values = torch.tensor(_BIT_VALUES, dtype=torch.uint8)
    flat = (bits.reshape(-1, 1) & values).ne(0).reshape(-1)
    if bool(flat[size:].any()):
        raise ShapeMismatch(f"a padding bit of a packed mask of shape {tuple(shape)} is set; it was not packed here.")
    return flat[:size].reshape(shape)


def fingerprint(masks: Masks) -> str:
    """Hash masks: names, shapes and bits, whatever the device and the order of the names.

    Returns:
        64 hexadecimal digits; equal for equal masks.

    Example:
        >>> fingerprint({"w": torch.tensor([True, False])})[:8]
        '86797083'
    """
    digest = hashlib.sha256(b"tombola masks 1\n")
    for name in sorted(masks):
        digest.update(f"{len(name)} {name} {tuple(masks[name].shape)}\n".encode())
        digest.update(pack(masks[name]).numpy().tobytes())
    return digest.hexdigest()


def per_layer(masks: Masks) -> Mapping[str, tuple[int, int]]:
    """Give name -> (kept, size), in the masks' order."""
    return {name: (_count(mask), mask.numel()) for name, mask in masks.items()}


def _count(mask: Tensor) -> int:
    # A sum of bools makes integers of 8 bytes first, and takes a hundred times as long.
    return int(torch.count_nonzero(mask))
