"""What a search looks at besides weights: a family's network and its training data, when a criterion asks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, final

import torch
from torch import Tensor, nn

from tombola import models
from tombola.analysis.connectivity import path
from tombola.data import Split
from tombola.prune.evidence import Evidence
from tombola.prune.masks import apply
from tombola.prune.structure import Group
from tombola.seeds import generator
from tombola.train.loss import mean_loss
from tombola.train.plain import evaluate, load
from tombola.train.process import undisturbed
from tombola.train.recalibrate import recalibrated
from tombola.types import Masks, Seed, Snapshot

_PER_CLASS: Final = 10
_BATCHES: Final = 10
"""Batches of ten examples of each class: one is what Lee et al. (2019), section 5, look at; curvature wants more."""

Batches = Sequence[tuple[Tensor, Tensor]]


@final
@dataclass(frozen=True)
class AfterCut:
    """What a network is worth right after a cut, its survivors trained as they were and nothing trained since.

    Attributes:
        accuracy: on the validation split, a fraction.
        recalibrated: the same with batch norm's statistics taken anew on training data; ``None`` where not asked for.
    """

    accuracy: float
    recalibrated: float | None = None


@final
class Looking:
    """A family's network and data, loaded when first looked at."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        batches: Callable[[], Batches] | None = None,
        validation: Callable[[], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """Set the sources.

        Args:
            build: makes the network; its values do not count.
            loss: the training loss.
            batches: gives training data, classes in equal number.
            validation: gives the validation split, to say what a cut costs before anything is trained again.
        """
        self._build, self._loss, self._load, self._validation = build, loss, batches, validation
        self._built: nn.Module | None = None
        self._loaded: Batches | None = None

    # No cached_property: Python 3.11's holds one lock for all families while it waits for DRAWING.
    @property
    def _module(self) -> nn.Module:
        with models.DRAWING:
            if self._built is None:
                with torch.random.fork_rng(devices=()):
                    self._built = self._build()
            return self._built

    @property
    def _batches(self) -> Batches | None:
        with models.DRAWING:
            if self._loaded is None and self._load is not None:
                self._loaded = self._load()
            return self._loaded

    def evidence(self, network: Snapshot) -> Evidence:
        """Give everything that a criterion may look at, of the network as it is."""
        seen, batches = models.view(self._module, network), self._batches
        return Evidence(
            buffers=seen.buffers,
            kinds=seen.kinds,
            forward=seen.forward,
            forward_training=seen.forward_training,
            uses=seen.uses,
            stages=seen.stages,
            loss=self._loss,
            batches=batches,
            example=None if batches is None else torch.zeros_like(batches[0][0][:1]),
        )

    def groups(self, kind: str) -> tuple[Group, ...]:
        """Find the units of the network; see :func:`tombola.models.groups`."""
        return models.groups(self._module, kind, self._example())

    def macs(self) -> dict[str, int] | None:
        """Count the multiply-adds of one example, by weight; ``None`` without an example."""
        example = self._example()
        if example is None:
            return None
        with models.DRAWING:
            return models.macs(self._module, tuple(example.shape[1:]))[0]

    def recalibrated(self, network: Snapshot, masks: Masks) -> Snapshot:
        """Take batch norm's statistics anew, of the masked network on training data alone.

        A network that was cut and not trained since is otherwise judged by the statistics of another one.
        """
        if self._batches is None or not network.buffers:
            return network
        with models.DRAWING:
            return recalibrated(self._build, network, masks, [x for x, _ in self._batches])

    def after_cut(self, network: Snapshot, masks: Masks, again: Snapshot | None) -> AfterCut | None:
        """Say what a cut network is worth before it trains; ``again`` is the one with new statistics."""
        if self._validation is None:
            return None
        accuracy = self._accuracy(network, masks)
        return AfterCut(accuracy, None if again is None else self._accuracy(again, masks))

    def barrier(self, first: Snapshot, second: Snapshot) -> float | None:
        """Give the error barrier between two trained networks, on validation; ``None`` without validation data.

        At a quarter, the half and three quarters of the way: a lower bound of the barrier, at a tenth of its cost.
        Batch norm's statistics are taken anew at each point, on training data.
        """
        if self._validation is None:
            return None

        def error(network: Snapshot) -> float:
            return 1 - self._accuracy(network, {})

        def again(network: Snapshot) -> Snapshot:
            return self.recalibrated(network, {})

        return path(first, second, error, points=5, recalibrate=None if self._batches is None else again).barrier

    def _accuracy(self, network: Snapshot, masks: Masks) -> float:
        assert self._validation is not None
        with undisturbed("cpu"):
            module = self._build()
            load(module, Snapshot(network.step, apply(network.params, masks), network.buffers))
            return evaluate(module, *self._validation())[1]

    def _example(self) -> Tensor | None:
        return None if self._batches is None else torch.zeros_like(self._batches[0][0][:1])


def over(build: Callable[[], nn.Module], splits: Callable[[Seed], Split], seed: Seed, loss: str) -> Looking:
    """Look at a data set of ours; ``loss`` is the recipe's."""

    def validation() -> tuple[Tensor, Tensor]:
        split = splits(seed)
        return split.val_x, split.val_y

    return Looking(build, partial(mean_loss, loss), lambda: balanced(splits(seed), seed), validation)


def balanced(split: Split, seed: Seed) -> Batches:
    """Draw batches of training examples with every class in equal number, the same ones for the same seed.

    As many as the smallest class fills: at most ten batches of at most ten examples of each class.
    """
    order = torch.randperm(len(split.train_y), generator=generator(seed, "prune", "batches"))
    labels = split.train_y[order]
    by_class = [order[labels == label] for label in labels.unique()]
    least = min(len(one) for one in by_class)
    each = min(_PER_CLASS, least)
    picks = [
        torch.cat([one[first : first + each] for one in by_class])
        for first in range(0, each * min(_BATCHES, least // each), each)
    ]
    return [(split.train_x[pick], split.train_y[pick]) for pick in picks]
