"""What is trained: a network, its data, and its masks by magnitude."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Final, final

import torch
from torch import Tensor, nn

from tombola import data, models
from tombola.data import Split
from tombola.errors import DataMissing
from tombola.prune.allocation import LayerRates
from tombola.prune.evidence import Evidence
from tombola.prune.pruner import imp, one_shot
from tombola.seeds import generator
from tombola.train.recipe import Recipe
from tombola.types import Seed, Snapshot, TrainJob

LR: Final = 1.2e-3
CLASSES: Final = 10
_FEW: Final = 60
_SEED: Final = Seed(0)


@final
@dataclass(frozen=True, eq=False)
class Workload:
    """What every way of training is given.

    Attributes:
        name: of the network.
        build: makes it; picklable.
        split: the data; its test part is small, for nobody asks how good the network is.
        splits: seed -> the same data; picklable, and read once in a process.
        batch: examples of an iteration.
        data: what the data are, in words.
    """

    name: str
    build: Callable[[], nn.Module]
    split: Split
    splits: Callable[[Seed], Split]
    batch: int
    data: str

    @property
    def features(self) -> int:
        """How many numbers an example is."""
        return self.split.train_x[0].numel()

    def start(self, seed: Seed = _SEED) -> Snapshot:
        """Give the start values."""
        return models.initial(self.build, seed)

    def recipe(self, iterations: int, eval_every: int) -> Recipe:
        """Give the recipe: Adam at LeNet's rate."""
        return Recipe(
            iterations=iterations, batch_size=self.batch, lr=LR, eval_every=max(1, min(eval_every, iterations))
        )

    def masks(self, density: float, seed: Seed = _SEED) -> dict[str, Tensor]:
        """Keep the largest start values, layer by layer as ``tombola find`` does; no masks at density 1."""
        if density == 1:
            return {}
        start = self.start(seed)
        pruner = one_shot(density, allocation=self._allocation())
        draw = generator(seed, "prune")
        return pruner.prune_dense(1, start.params, self.weights(start), Evidence(generator=draw))

    def ladder(self, level: int) -> dict[str, Tensor]:
        """Give the masks of a level of the paper's ladder, which keeps 80 % of the level before."""
        if level == 0:
            return {}
        start = self.start()
        draw = generator(_SEED, "prune")
        pruner = imp(allocation=self._allocation())
        return pruner.prune_dense(level, start.params, self.weights(start), Evidence(generator=draw))

    def kept(self, masks: dict[str, Tensor]) -> list[int]:
        """Count the surviving weights of each layer, in order."""
        start = self.start()
        return [int(masks[n].sum()) if n in masks else start.params[n].numel() for n in self.weights(start)]

    def density(self, masks: dict[str, Tensor]) -> float:
        """Give the fraction of the weights that is left."""
        return sum(self.kept(masks)) / sum(self.kept({}))

    def weights(self, start: Snapshot) -> list[str]:
        """Name the weight matrices, in order."""
        return [name for name, value in start.params.items() if value.dim() > 1]

    def job(self, masks: dict[str, Tensor], iterations: int, seed: Seed = _SEED) -> TrainJob:
        """Give the work of one trainer."""
        return TrainJob(self.start(seed), masks, seed, iterations, with_optimizer=False)

    def cut(self, train: int, val: int) -> "Workload":
        """Give the same with less data; it stays in this process."""
        few = replace(
            self.split,
            train_x=self.split.train_x[:train],
            train_y=self.split.train_y[:train],
            val_x=self.split.val_x[:val],
            val_y=self.split.val_y[:val],
        )
        return replace(self, split=few, splits=lambda _: few)

    def _allocation(self) -> LayerRates:
        return LayerRates(models.layer_multipliers(self.name, self.build()))


def workload(name: str) -> Workload:
    """Make a workload of a name of :data:`tombola.bench.settings.MODELS`."""
    split, words = _data(name)
    build = mlp if name.startswith("mlp") else partial(models.build, "lenet-300-100", _SHAPES[name], CLASSES)
    return Workload(name, build, split, partial(split_of, name), 128 if name.startswith("mlp") else 60, words)


def mlp() -> nn.Module:
    """Two hidden layers of 1024 units on 3072 inputs, with PyTorch's own start values."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3072, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, CLASSES)
    )


def split_of(name: str, _: Seed) -> Split:
    """Give a workload's data, in whichever process."""
    return _data(name)[0]


_SHAPES: Final[dict[str, tuple[int, ...]]] = {
    "64-300-100-10": (64,),
    "lenet-300-100": (1, 28, 28),
    "mlp-3072-1024-1024-10": (3, 32, 32),
}
_EXAMPLES: Final = {
    "64-300-100-10": (988, 270),
    "lenet-300-100": (55_000, 5_000),
    "mlp-3072-1024-1024-10": (20_000, 5_000),
}


@cache
def _data(name: str) -> tuple[Split, str]:
    if name == "lenet-300-100":
        try:
            found = data.split(data.load("mnist"), _SEED)
            few = replace(found, test_x=found.test_x[:_FEW], test_y=found.test_y[:_FEW])
            return few, f"MNIST, {len(found.train_y):,} training and {len(found.val_y):,} validation examples"
        except DataMissing:
            pass
    # Random labels: a loss that reaches zero makes moments that are denormal numbers, which take ten times as long.
    draw = torch.Generator().manual_seed(0)
    train, val = _EXAMPLES[name]
    shape = _SHAPES[name]
    parts = ((torch.randn(n, *shape, generator=draw), torch.randint(CLASSES, (n,), generator=draw)) for n in
             (train, val, _FEW))  # fmt: skip
    size = " x ".join(map(str, shape))
    split = Split(*(tensor for part in parts for tensor in part))
    return split, f"random, {train:,} training and {val:,} validation examples of {size} float32"
