"""Blocks: rectangles of a weight matrix that are kept or pruned whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import pad

from tombola.errors import InvalidValue
from tombola.prune.allocation.base import Allocation
from tombola.prune.counting import Counts, Cut, Shapes, size_of
from tombola.prune.select import keep_top
from tombola.prune.structure.pooling import check_pool, pooled, terms
from tombola.prune.structure.shares import Shares, rows_and_columns
from tombola.types import Masks, Scores


@final
@dataclass(frozen=True)
class Blocks:
    """Keep or prune whole rectangles of ``rows`` outputs and ``columns`` inputs.

    Narang et al. (2017), section 3 (block-sparse weights). A tensor is read as a matrix: its first axis, and all the
    others together (``in * height * width`` of a convolution). Blocks that do not fit at the right and lower edge are
    smaller. So that the counts are known before the scores are, full blocks and those of each edge keep the same
    fraction of theirs and compete among themselves, where no block is the larger one.

    The allocation's count of each tensor is rounded to the nearest count of whole blocks. Under a rate that is done
    again in every round: a tensor of very few blocks may stop losing any, and another block size serves it better.

    Attributes:
        rows: of a block, at least 1.
        columns: of a block, at least 1.
        pool: makes a block's score of its weights'; one of ``POOLS``.

    Raises:
        InvalidValue: a side below 1.
        UnknownName: no such pool.
    """

    rows: int
    columns: int
    pool: str = "sum"

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise InvalidValue(f"blocks of {self.rows}x{self.columns} have no weights. Both sides are at least 1.")
        check_pool(self.pool)

    @property
    def name(self) -> str:
        """``block:RxC``."""
        return f"block:{self.rows}x{self.columns}"

    def plan(self, shapes: Shapes, planned_before: Counts, cut: Cut, allocation: Allocation) -> dict[str, int]:
        """Round the allocation's counts to whole blocks; see :class:`~tombola.prune.structure.base.Structure`.

        Raises:
            ImpossibleDensity: more is asked for than is left.
        """
        sizes = {name: size_of(shape) for name, shape in shapes.items()}
        # A density counts from the sizes, so that the rounding of the levels before does not add to this one's.
        wanted = allocation.plan(shapes, planned_before if cut.rate is not None else sizes, cut)
        found = {name: self._nearest(shapes[name], wanted[name]) for name in shapes}
        alive = sum(planned_before.values())
        # Each tensor may have been rounded down, by at most half of four blocks: one of each kind.
        if sum(wanted.values()) > alive + sum(min(size, 2 * self.rows * self.columns + 1) for size in sizes.values()):
            cut.total(sum(sizes.values()), alive)
        return {name: min(count, planned_before[name]) for name, count in found.items()}

    def choose(
        self, scores: Scores, masks: Masks, planned: Counts, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Keep the best blocks of each size, by their pooled scores; see the contract.

        Raises:
            InvalidValue: a planned count that whole blocks do not have.
            ImpossibleDensity: fewer blocks are left than are kept.
            InvalidScores: negative scores under the pool ``l2``.
        """
        return {
            name: self._choose(name, score, masks[name], planned[name], generator) for name, score in scores.items()
        }

    def _choose(
        self, name: str, score: Tensor, mask: Tensor, planned: int, generator: torch.Generator | None
    ) -> Tensor:
        shape = tuple(score.shape)
        kinds = self._kinds(shape)
        kept = Shares(tuple(count for count, _ in kinds)).with_total(_weigh(kinds), planned)
        if kept is None:
            raise InvalidValue(
                f"{planned} weights are to be kept of {name!r}, of shape {shape}, and whole blocks of {self.rows}x"
                f"{self.columns} do not add up to that. Take the counts that this structure plans."
            )
        total = self._sums(terms(score, mask, self.pool, name))
        found = pooled(total, self._sums(mask.double()), self.pool)
        marks = torch.zeros_like(found, dtype=torch.bool)
        for (down, right), count in zip(self._areas(shape), kept, strict=True):
            area = found[down, right]
            marks[down, right] = keep_top(area.reshape(-1), count, generator, name).reshape(area.shape)
        tall, wide = rows_and_columns(shape)
        whole = marks.repeat_interleave(self.rows, 0)[:tall].repeat_interleave(self.columns, 1)[:, :wide]
        return whole.reshape(shape) & mask

    def _nearest(self, shape: tuple[int, ...], wanted: int) -> int:
        kinds = self._kinds(shape)
        shares, weigh = Shares(tuple(count for count, _ in kinds)), _weigh(kinds)
        step = shares.last(weigh, wanted)
        below = weigh(shares.at(step))
        above = weigh(shares.at(min(step + 1, shares.steps)))
        return above if above - wanted < wanted - below else below

    def _kinds(self, shape: tuple[int, ...]) -> list[tuple[int, int]]:
        """Give how many blocks there are of each size, and the size: full, right edge, lower edge, corner."""
        (down, low), (right, side) = self._cuts(shape)
        sizes = ((down, self.rows), (1, low)), ((right, self.columns), (1, side))
        return [(a * b, r * c) for a, r in sizes[0] for b, c in sizes[1] if a * b * r * c]

    def _areas(self, shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
        """Give where the blocks of each of the sizes are, in units of blocks."""
        (down, low), (right, side) = self._cuts(shape)
        tops = [slice(0, down)] * bool(down) + [slice(down, down + 1)] * bool(low)
        lefts = [slice(0, right)] * bool(right) + [slice(right, right + 1)] * bool(side)
        return [(top, left) for top in tops for left in lefts]

    def _cuts(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        tall, wide = rows_and_columns(shape)
        return divmod(tall, self.rows), divmod(wide, self.columns)

    def _sums(self, values: Tensor) -> Tensor:
        """Add up each block of a tensor."""
        tall, wide = rows_and_columns(tuple(values.shape))
        matrix = pad(values.reshape(tall, wide), (0, -wide % self.columns, 0, -tall % self.rows))
        down, right = matrix.shape[0] // self.rows, matrix.shape[1] // self.columns
        return matrix.reshape(down, self.rows, right, self.columns).sum((1, 3))


def _weigh(kinds: Sequence[tuple[int, int]]) -> Callable[[Sequence[int]], int]:
    return lambda vector: sum(kept * size for kept, (_, size) in zip(vector, kinds, strict=True))
