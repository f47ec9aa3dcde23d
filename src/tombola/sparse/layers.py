"""What is left of a linear layer: compact, laid out for the kernels, and back again."""

import math
from collections.abc import Sequence
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from tombola.sparse.kernels import library
from tombola.sparse.kernels.library import LANES, PANEL, Floats, Indices, padded, pointer, zeros

DENSE_FROM: Final = 0.72
"""The density from which a layer runs on the dense kernels.

A constant and not a measurement: the two add up a gradient in another order, so a threshold found by the clock would
let a busy machine change the bits of a result. The two break even between 0.7 and 0.8, in a small network and in a
large one (``benchmarks/crossover.py``).
"""

_FIRST_CACHE: Final = 28 * 1024
_SECOND_CACHE: Final = 512 * 1024
_LANES_AT_ONCE: Final = 128
_SURVIVORS_WORTH_A_BLOCK: Final = 20


def live_features(masks: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.intp]]:
    """Find the features that some output depends on: those that go into each layer, and all outputs of the last.

    Args:
        masks: bool ``[outputs, inputs]`` for each linear layer in order.
    """
    live = [np.arange(masks[-1].shape[0])]
    for mask in reversed(masks):
        live.insert(0, np.flatnonzero(mask[live[0]].any(axis=0)))
    return live


@final
class Survivors:
    """Entries of one dense tensor and the optimiser's state of them, in an order of their own.

    Attributes:
        position: int64, where each entry is in the flattened tensor; -1 is padding and stays zero.
        value, first, second: float32, aligned, padded to a multiple of 16.
    """

    def __init__(self, position: NDArray[np.int64], slots: int) -> None:
        self.position = position
        self._real = position >= 0
        self._from = position[self._real]
        self.value = zeros(len(position))
        self.state = [zeros(len(position)) for _ in range(slots)]

    def take(self, dense: NDArray[np.float32], into: Floats) -> None:
        """Copy the entries out of a dense tensor."""
        into[: len(self.position)][self._real] = dense.reshape(-1)[self._from]

    def give(self, source: Floats, dense: NDArray[np.float32]) -> None:
        """Copy the entries into a dense tensor."""
        dense.reshape(-1)[self._from] = source[: len(self.position)][self._real]

    def entries(self) -> library.Entries:
        """Give the arrays to the kernels."""
        first, second = (*map(pointer, self.state), None, None)[:2]
        return library.Entries(pointer(self.value), first, second, len(self.position))


@final
class Lines:
    """One way through a sparse matrix, as ``rows.h`` has it.

    Attributes:
        order: where each survivor of the way was in the lists that were given.
        line, across: int32, of each survivor in the order of the way.
    """

    def __init__(self, line: Indices, across: Indices, shape: tuple[int, int], block: int) -> None:
        """Find the way: blocks of ``block`` across, in each its lines, in each line the survivors by their place."""
        self.count, width = shape
        self.blocks = max(1, -(-width // block))
        segment = (across // block).astype(np.int64) * self.count + line
        self.order = np.lexsort((across, segment))
        self.line, self.across = line[self.order], across[self.order]
        sizes = np.bincount(segment, minlength=self.blocks * self.count)
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)

    def structure(self) -> library.Lines:
        """Give the arrays to the kernels; they live as long as this object."""
        return library.Lines(self.count, self.blocks, pointer(self._starts), pointer(self.across))


@final
class RowsLayout:
    """The survivors of a matrix, both ways.

    Attributes:
        row, column: int32, of each survivor in the order of the values.
    """

    def __init__(self, mask: NDArray[np.bool_], batch: int, *, block: int | None = None) -> None:
        """Lay them out.

        Args:
            mask: bool ``[outputs, inputs]``.
            batch: lanes of the batch, a multiple of 16.
            block: columns, and rows for the way back, in a block; by default chosen from the batch and the density.
        """
        self.outputs, self.inputs = mask.shape
        row, column = (axis.astype(np.int32) for axis in np.nonzero(mask))
        block = block or _block(len(row) / max(1, mask.size), batch)
        self._forth = Lines(row, column, mask.shape, block)
        self.row, self.column = self._forth.line, self._forth.across
        self._back = Lines(self.column, self.row, mask.shape[::-1], block)
        self._at = self._back.order.astype(np.int32)

    @property
    def blocks(self) -> int:
        """How many blocks the columns are cut into."""
        return self._forth.blocks

    def structure(self) -> library.Rows:
        """Give the arrays to the kernels; they live as long as this object."""
        return library.Rows(self._forth.structure(), self._back.structure(), pointer(self._at))


def _block(density: float, batch: int) -> int:
    """Choose how many features keep their activations in a cache while all lines pass over them."""
    # A line that meets few survivors in a block waits for its sums longer than it would for the next cache.
    worth = math.ceil(_SURVIVORS_WORTH_A_BLOCK / max(density, 1e-9))
    feature = 4 * min(batch, _LANES_AT_ONCE)
    return max(1, _FIRST_CACHE // feature, min(worth, _SECOND_CACHE // feature))


def dense_positions(outputs: int, inputs: int) -> NDArray[np.int64]:
    """Give the place in a row-major ``[outputs, inputs]`` matrix of each value in panels; -1 for padding."""
    grid = np.full((outputs, padded(inputs)), -1, dtype=np.int64)
    grid[:, :inputs] = np.arange(outputs * inputs).reshape(outputs, inputs)
    return np.concatenate([grid[:, first : first + PANEL].reshape(-1) for first in range(0, padded(inputs), PANEL)])


def bits(kept: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Pack sixteen to a word, the first in the lowest bit; the length is a multiple of 16."""
    weights = (1 << np.arange(LANES)).astype(np.uint16)
    packed: NDArray[np.uint16] = (kept.reshape(-1, LANES) * weights).sum(axis=1, dtype=np.uint16)
    return packed


@final
class LinearPart:
    """What is left of one linear layer.

    Attributes:
        inputs, outputs: numbers of its live features.
        weight, bias: what outputs of the network depend on.
        idle_weight, idle_bias: left by the mask, but no output depends on them.
        dense: whether the dense kernels run it.
    """

    def __init__(
        self,
        mask: NDArray[np.bool_],
        *,
        bias: NDArray[np.bool_] | None,
        live: tuple[NDArray[np.intp], NDArray[np.intp]],
        batch: int,
        slots: int,
    ) -> None:
        """Lay it out.

        Args:
            mask: bool ``[outputs, inputs]``.
            bias: the bias's mask, bool ``[outputs]``; ``None`` where the layer has none.
            live: the live features that go in, and those that come out.
            batch: lanes of the batch, a multiple of 16.
            slots: how many tensors the optimiser keeps for each parameter.
        """
        into, out = live
        self.inputs, self.outputs = len(into), len(out)
        here = mask[np.ix_(out, into)]
        places = out[:, None].astype(np.int64) * mask.shape[1] + into
        self.dense = bool(here.size and here.mean() >= DENSE_FROM)
        self._layout = RowsLayout(np.zeros_like(here) if self.dense else here, batch)
        self._kept: NDArray[np.uint16] | None = None
        if self.dense:
            at = dense_positions(self.outputs, self.inputs)
            if not here.all():
                self._kept = bits((at >= 0) & here.reshape(-1)[at])
            position = np.where(at >= 0, places.reshape(-1)[at], -1)
        else:
            position = places[self._layout.row, self._layout.column]
        dead = np.ones(mask.shape[0], dtype=bool)
        dead[out] = False
        self.weight = Survivors(position, slots)
        self.idle_weight = Survivors(np.flatnonzero(mask & dead[:, None]).astype(np.int64), slots)
        self.bias = Survivors(out.astype(np.int64) if bias is not None else np.empty(0, np.int64), slots)
        self.idle_bias = Survivors(np.flatnonzero(dead if bias is not None else dead[:0]).astype(np.int64), slots)
        if bias is None:
            self.bias.value = zeros(self.outputs)
        self._factor = None if bias is None or bias.all() else bias[out].astype(np.float32)
        self.weight_step = self.bias_step = 0

    def structure(self) -> library.Linear:
        """Give the layer to the kernels; the arrays live as long as this object."""
        return library.Linear(
            self._layout.structure(),
            self.weight.entries(),
            self.bias.entries(),
            self.idle_weight.entries(),
            self.idle_bias.entries(),
            pointer(self._factor),
            pointer(self._kept),
            self.weight_step,
            self.bias_step,
            self.dense,
        )
