"""The order of the examples: a function of the seed and the position, so that any position can be rewound to."""

from typing import final

import torch
from torch import Tensor

from tombola.errors import DataTooSmall
from tombola.seeds import generator
from tombola.types import Seed, Step


@final
class BatchOrder:
    """An endless sequence of batches: one permutation of the data after another, cut into equal batches.

    Every example comes once an epoch, and a batch that crosses the end of an epoch takes its rest from the next one.
    """

    def __init__(self, examples: int, batch_size: int, seed: Seed) -> None:
        """Set the sequence.

        Args:
            examples: how many there are.
            batch_size: examples in a batch.
            seed: its ``order`` stream, folded with the epoch, draws the permutations.

        Raises:
            DataTooSmall: a batch is larger than the data.
        """
        if batch_size > examples:
            raise DataTooSmall(
                f"the batch size is {batch_size} and there are {examples} training examples. "
                "Use a smaller --batch-size or more data."
            )
        self._examples, self._batch, self._seed = examples, batch_size, seed
        self._epochs: dict[int, Tensor] = {}

    def at(self, step: Step) -> Tensor:
        """Give the example numbers of a batch: int64, shape ``[batch_size]``."""
        first, last = step * self._batch, (step + 1) * self._batch - 1
        epochs = range(first // self._examples, last // self._examples + 1)
        self._epochs = {e: self._epochs[e] if e in self._epochs else self._draw(e) for e in epochs}
        offset = first - epochs[0] * self._examples
        if len(epochs) == 1:
            return self._epochs[epochs[0]][offset : offset + self._batch]
        return torch.cat(list(self._epochs.values()))[offset : offset + self._batch]

    def _draw(self, epoch: int) -> Tensor:
        return torch.randperm(self._examples, generator=generator(self._seed, "order", epoch))
