"""The order of the examples: a function of the seed and the position, so that any position can be rewound to."""

from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from tombola.errors import DataTooSmall, InvalidValue
from tombola.seeds import generator
from tombola.types import Seed, Step


@final
class BatchOrder:
    """An endless sequence of batches: one permutation of the data after another, cut into equal batches.

    Every example comes once an epoch, and a batch that crosses the end of an epoch takes its rest from the next one.
    """

    def __init__(self, examples: int, batch_size: int | None, seed: Seed, fraction: float = 1.0) -> None:
        """Set the sequence.

        Args:
            examples: how many there are.
            batch_size: examples in a batch; ``None`` for as many as are seen, so that a batch is an epoch.
            seed: its ``order`` stream, folded with the epoch, draws the permutations.
            fraction: share of the examples that are seen at all, in (0, 1]: a plain random choice of the family's,
                the same for all its data orders.

        Raises:
            InvalidValue: a fraction out of range.
            DataTooSmall: a batch is larger than the data.
        """
        if not 0 < fraction <= 1:
            raise InvalidValue(f"the fraction of the examples is {fraction:g}; it is above 0 and up to 1.")
        self.examples = max(1, round(fraction * examples))
        if batch_size is not None and batch_size > self.examples:
            of = f", {fraction:g} of {examples:,}" if fraction < 1 else ""
            raise DataTooSmall(
                f"the batch size is {batch_size} and there are {self.examples} training examples{of}. "
                "Use a smaller --batch-size or more data."
            )
        self._batch, self._seed = self.examples if batch_size is None else batch_size, seed
        self._seen: Tensor | None = None
        if fraction < 1:
            choice = generator(replace(seed, order=0), "order", "seen", str(fraction))
            self._seen = torch.randperm(examples, generator=choice)[: self.examples]
        self._epochs: dict[int, Tensor] = {}

    def at(self, step: Step) -> Tensor:
        """Give the example numbers of a batch: int64, shape ``[batch_size]``."""
        first, last = step * self._batch, (step + 1) * self._batch - 1
        epochs = range(first // self.examples, last // self.examples + 1)
        self._epochs = {e: self._epochs[e] if e in self._epochs else self._draw(e) for e in epochs}
        offset = first - epochs[0] * self.examples
        if len(epochs) == 1:
            return self._epochs[epochs[0]][offset : offset + self._batch]
        return torch.cat(list(self._epochs.values()))[offset : offset + self._batch]

    def _draw(self, epoch: int) -> Tensor:
        drawn = torch.randperm(self.examples, generator=generator(self._seed, "order", epoch))
        return drawn if self._seen is None else self._seen[drawn]
