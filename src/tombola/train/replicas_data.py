"""The data of R replicates on one device: every split once, batches gathered as ``(R, B, ...)``.

Suffixes of tensors: ``R`` replicates, ``B`` examples of a batch.
"""

from collections.abc import Iterator, Sequence
from typing import Final, final

import torch
from torch import Tensor

from tombola.train.order import BatchOrder
from tombola.types import Seed, Step

_STEPS_DRAWN: Final = 64


@final
class Part:
    """One part of the splits (training, validation or test), examples of different splits end to end.

    Attributes:
        x: ``[N, *input_shape]`` on the device, N summed over the splits that differ.
        y: int64 ``[N]``.
        lengths: how many examples each replicate has.
        offsets: int64 ``[R, 1]``, where the examples of each replicate begin.
    """

    def __init__(self, parts: Sequence[tuple[Tensor, Tensor]], device: torch.device) -> None:
        """Put the parts of R replicates on the device; those that are the same tensors are put there once."""
        distinct = {(id(x), id(y)): (x, y) for x, y in parts}
        begins, total = {}, 0
        for key, (_, y) in distinct.items():
            begins[key], total = total, total + len(y)
        xs, ys = zip(*distinct.values(), strict=True)
        self.x = (xs[0] if len(xs) == 1 else torch.cat(xs)).to(device)
        self.y = (ys[0] if len(ys) == 1 else torch.cat(ys)).to(device)
        self.lengths = [len(y) for _, y in parts]
        self.offsets = torch.tensor([[begins[id(x), id(y)]] for x, y in parts], device=device)
        self._shared = len(distinct) == 1

    def gather(self, index_RB: Tensor) -> tuple[Tensor, Tensor]:
        """Give examples by their position in ``x``: ``[R, B, *input_shape]`` and ``[R, B]``."""
        flat = index_RB.reshape(-1)
        x_RB = self.x.index_select(0, flat).view(*index_RB.shape, *self.x.shape[1:])
        return x_RB, self.y.index_select(0, flat).view(index_RB.shape)

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
        """Cut every replicate's part into chunks, in order.

        Yields:
            ``[R, B, *input_shape]``, ``[R, B]``, and how many of the B are each replicate's own: a shorter part is
            filled up with copies of its last example.
        """
        longest, replicas = max(self.lengths), len(self.lengths)
        ends = torch.tensor(self.lengths, device=self.x.device)[:, None] - 1
        for first in range(0, longest, size):
            last = min(first + size, longest)
            own = [min(max(length - first, 0), last - first) for length in self.lengths]
            if self._shared:
                x, y = self.x[first:last], self.y[first:last]
                yield x.expand(replicas, *x.shape), y.expand(replicas, *y.shape), own
            else:
                index = torch.arange(first, last, device=self.x.device).expand(replicas, -1)
                yield *self.gather(torch.minimum(index, ends) + self.offsets), own


@final
class Batches:
    """The batches of R replicates, each in its own :class:`~tombola.train.order.BatchOrder`.

    The order is drawn many steps at a time: as it is one endless sequence cut into equal batches, a batch of k times
    the size is k batches.
    """

    def __init__(self, part: Part, batch_size: int, seeds: Sequence[Seed], fractions: Sequence[float]) -> None:
        """Set the sequences.

        Raises:
            DataTooSmall: a batch is larger than a replicate's data.
        """
        kinds = list(zip(part.lengths, seeds, fractions, strict=True))
        seen = min(BatchOrder(length, batch_size, seed, fraction).examples for length, seed, fraction in kinds)
        self._steps = max(1, min(_STEPS_DRAWN, seen // batch_size))
        size = self._steps * batch_size
        # Replicates with one seed (a ticket and its controls) share what is drawn.
        self._orders = {kind: BatchOrder(kind[0], size, kind[1], kind[2]) for kind in dict.fromkeys(kinds)}
        self._kinds, self._batch, self._offsets = kinds, batch_size, part.offsets
        self._block, self._held = -1, torch.empty(0)

    def at(self, step: Step) -> Tensor:
        """Give the positions of a step's examples in the part: int64 ``[R, B]``, on the part's device."""
        block, within = divmod(step, self._steps)
        if block != self._block:
            drawn = {kind: order.at(block) for kind, order in self._orders.items()}
            rows = torch.stack([drawn[kind] for kind in self._kinds]).to(self._offsets.device) + self._offsets
            self._block = block
            self._held = rows.view(len(rows), self._steps, self._batch).transpose(0, 1).contiguous()
        return self._held[within]
