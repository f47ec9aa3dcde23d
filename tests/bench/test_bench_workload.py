"""What is trained: MNIST where it is found, random numbers of its shape elsewhere; the masks of ``tombola find``."""

import pytest
import torch
from bench_kit import small

from tombola.bench import workload as room
from tombola.data import Dataset
from tombola.errors import DataMissing


@pytest.fixture
def _fresh() -> None:
    room._data.cache_clear()


def few() -> Dataset:
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 10
    x = torch.rand(200, 1, 28, 28, generator=draw)
    return Dataset("few", x, y, x[:80], y[:80], classes=10, margin=0.01)


@pytest.mark.usefixtures("_fresh")
def test_mnist_where_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(name: str) -> Dataset:
        asked.append(name)
        return few()

    monkeypatch.setattr(room.data, "load", load, raising=False)
    work = room.workload("lenet-300-100")
    room._data.cache_clear()
    assert asked == ["mnist"]
    assert work.data == "MNIST, 180 training and 20 validation examples"
    assert work.features == 784
    assert len(work.split.test_y) == 60


@pytest.mark.usefixtures("_fresh")
def test_random_numbers_of_its_shape_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Dataset:
        raise DataMissing(name)

    monkeypatch.setattr(room.data, "load", load, raising=False)
    work = room.workload("lenet-300-100")
    room._data.cache_clear()
    assert work.data.startswith("random, 55,000 training and 5,000 validation examples of 1 x 28 x 28")
    assert (work.split.train_x.shape, work.split.train_x.dtype) == ((55_000, 1, 28, 28), torch.float32)
    assert work.kept({}) == [235_200, 30_000, 1_000]


@pytest.mark.parametrize("density", [0.5, 0.1])
def test_masks_keep_the_density_and_the_largest(density: float) -> None:
    work = small()
    masks, start = work.masks(density), work.start()
    assert abs(work.density(masks) - density) < 1e-4
    for name, mask in masks.items():
        size = start.params[name].abs()
        assert size[mask].min() >= size[~mask].max()


def test_the_ladder_nests() -> None:
    """A level keeps 80 % of the level before, and 90 % in the output layer, of the same weights."""
    before, masks = small().ladder(3), small().ladder(4)
    for name, mask in masks.items():
        rate = 1 if name.startswith("output") else 2
        assert not (mask & ~before[name]).any()
        alive = int(before[name].sum())
        assert int(mask.sum()) == alive - (rate * alive + 5) // 10
