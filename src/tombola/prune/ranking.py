"""The k-th largest of very many scores, in little memory: exact, and the same on every device."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final, final

import torch
from torch import Tensor

_CHUNK: Final = 1 << 14
"""Entries looked at together. A pass over all at once would need several times the scores' bytes: ``kthvalue`` copies
them and makes an index of 8 bytes for each, a comparison or a boolean index as much again. So few stay in the cache,
and torch does not share them among threads, which on a busy machine takes far longer than the work."""

_WIDTH: Final = 8
_INTEGERS: Final = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@final
class Pool:
    """Vectors of scores that are ranked together, as if they were one.

    Neither concatenated nor copied. Scores of several dtypes are compared in the one that holds them all.

    Attributes:
        vectors: float, shape ``[n_i]``; at least one.
    """

    def __init__(self, vectors: Sequence[Tensor]) -> None:
        self.vectors = tuple(vectors)
        self.dtype = self.vectors[0].dtype
        for vector in self.vectors:
            self.dtype = torch.promote_types(self.dtype, vector.dtype)

    def nans(self) -> int:
        """Count the entries that are NaN."""
        return sum(_count(chunk.isnan()) for chunk in self._chunks())

    def left(self) -> int:
        """Count the entries above ``-inf``: those that are not pruned."""
        return sum(_count(chunk > -torch.inf) for chunk in self._chunks())

    def size(self) -> int:
        """Count all entries."""
        return sum(vector.numel() for vector in self.vectors)

    def largest(self, count: int) -> Tensor:
        """Give the ``count``-th largest entry, a scalar on the CPU; there is no NaN.

        Radix selection: floats are ordered as their bits are, read as integers, negative ones backwards. A histogram
        of the leading bits says which of them the entry has, and another, over the entries that have these, which come
        next.
        """
        width, last = _WIDTH, (1 << _WIDTH) - 1
        top = 8 * self.dtype.itemsize - width
        found = 0
        for shift in range(top, -1, -width):
            counted = torch.zeros(last + 1, dtype=torch.int64)
            for chunk in self._chunks():
                keys = self._keys(chunk)
                if shift == top:
                    # The leading digit has the sign.
                    digits = (keys >> shift).int().add_((last + 1) // 2)
                else:
                    keys = keys[(keys >> (shift + width)) == found]
                    digits = (keys >> shift).bitwise_and_(last)
                counted += torch.bincount(digits, minlength=last + 1).cpu()
            above = counted.flip(0).cumsum(0)
            place = int(torch.count_nonzero(above < count))
            count -= int(above[place - 1]) if place else 0
            digit = last - place
            found = digit - (last + 1) // 2 if shift == top else (found << width) + digit
        key = torch.tensor([found], dtype=_INTEGERS[self.dtype.itemsize])
        return _ordered(key).view(self.dtype)[0]

    def best(self, count: int, generator: torch.Generator | None) -> Iterator[Iterator[Tensor]]:
        """Mark the ``count`` largest entries; of those equal to the last of them, the first or some drawn at random.

        Args:
            count: at least 1, and at most as many as there are.
            generator: a CPU generator; drawn from only where there are ties to break.

        Yields:
            For each vector, bool tensors that together have its shape; to be taken in order.
        """
        threshold = self.largest(count)
        missing = count - sum(_count(chunk > threshold) for chunk in self._chunks())
        tied = sum(_count(chunk == threshold) for chunk in self._chunks())
        drawn = None if generator is None or missing == tied else _drawn(tied, missing, generator)
        seen = 0

        def marked(vector: Tensor) -> Iterator[Tensor]:
            nonlocal seen
            for chunk in self._chunks_of(vector):
                keep, equal = chunk > threshold, chunk == threshold
                here = _count(equal)
                if drawn is not None:
                    keep.masked_scatter_(equal, drawn[seen : seen + here].to(keep.device))
                elif seen + here <= missing:
                    keep |= equal
                elif seen < missing:
                    keep[equal.nonzero().reshape(-1)[: missing - seen]] = True
                seen += here
                yield keep

        return (marked(vector) for vector in self.vectors)

    def _chunks(self) -> Iterator[Tensor]:
        return chain.from_iterable(map(self._chunks_of, self.vectors))

    def _chunks_of(self, vector: Tensor) -> Iterator[Tensor]:
        return (chunk.to(self.dtype) for chunk in vector.split(_CHUNK))

    def _keys(self, chunk: Tensor) -> Tensor:
        # The sum makes -0 +0, which is equal to it and has other bits; it is a copy as well.
        return _ordered((chunk + 0.0).view(_INTEGERS[self.dtype.itemsize]))


def _ordered(bits: Tensor) -> Tensor:
    """Turn the bits of floats into integers of the same order, and back, in place."""
    return bits.bitwise_xor_((bits >> (8 * bits.element_size() - 1)).bitwise_and_(torch.iinfo(bits.dtype).max))


def _drawn(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Mark ``count`` of ``size`` entries at random."""
    # Half the bytes where the numbers fit; the draws are the same.
    dtype = torch.int32 if size <= torch.iinfo(torch.int32).max else torch.int64
    order = torch.randperm(size, generator=generator, dtype=dtype)
    found = torch.zeros(size, dtype=torch.bool)
    for chunk in order[:count].split(_CHUNK):
        found[chunk.long()] = True
    return found


def _count(flags: Tensor) -> int:
    # A sum would make integers of 8 bytes first.
    return int(torch.count_nonzero(flags))
