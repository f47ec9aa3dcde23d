"""The order of the examples, and the stability of every random stream."""

import itertools
from dataclasses import replace

import pytest
import torch
from train_kit import ExtraDraws, mlp, recipe, splits

from tombola import models
from tombola.errors import DataTooSmall, InvalidValue, UnknownName
from tombola.seeds import STREAMS, derive, generator
from tombola.train.order import BatchOrder
from tombola.train.plain import PlainTrainer
from tombola.types import Seed, TrainJob


@pytest.mark.parametrize(("examples", "batch"), [(100, 10), (100, 7), (10, 10), (11, 10), (1, 1), (13, 9)])
def test_every_example_comes_once_an_epoch(examples: int, batch: int) -> None:
    order = BatchOrder(examples, batch, Seed(0))
    drawn = torch.cat([order.at(step) for step in range(3 * examples)])
    assert all(len(order.at(step)) == batch for step in range(5))
    for epoch in drawn.split(examples)[: 3 * batch]:
        assert sorted(epoch.tolist()) == list(range(examples))


def test_epochs_are_shuffled_anew() -> None:
    order = BatchOrder(50, 50, Seed(0))
    epochs = [tuple(order.at(step).tolist()) for step in range(4)]
    assert len(set(epochs)) == 4


def test_any_position_can_be_jumped_to() -> None:
    sequential = BatchOrder(23, 9, Seed(4, 2, 1))
    batches = [sequential.at(step).clone() for step in range(60)]
    jumping = BatchOrder(23, 9, Seed(4, 2, 1))
    for step in (59, 0, 31, 2, 30, 1, 59, 58):
        assert torch.equal(jumping.at(step), batches[step])
        assert torch.equal(BatchOrder(23, 9, Seed(4, 2, 1)).at(step), batches[step])


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(DataTooSmall, match="batch size is 11 and there are 10 training examples"):
        BatchOrder(10, 11, Seed(0))


def test_the_order_follows_root_replicate_and_order() -> None:
    seeds = (Seed(0), Seed(1), Seed(0, 1), Seed(0, 0, 1), Seed(0, 0, 2))
    assert len({tuple(BatchOrder(50, 50, seed).at(0).tolist()) for seed in seeds}) == len(seeds)


@pytest.mark.parametrize(("fraction", "batch"), [(0.5, 10), (0.3, 7), (0.01, 1)])
def test_of_a_share_every_example_comes_once_an_epoch_and_no_other(fraction: float, batch: int) -> None:
    order = BatchOrder(100, batch, Seed(0), fraction)
    assert order.examples == round(100 * fraction)
    epochs = torch.cat([order.at(step) for step in range(3 * order.examples)]).split(order.examples)
    assert all(sorted(epoch.tolist()) == sorted(epochs[0].tolist()) for epoch in epochs[: 3 * batch])
    assert len(set(epochs[0].tolist())) == order.examples


def test_a_family_sees_one_share_in_all_its_orders_and_another_family_another() -> None:
    def seen(seed: Seed) -> list[int]:
        return BatchOrder(100, None, seed, 0.4).at(0).tolist()

    assert sorted(seen(Seed(1))) == sorted(seen(Seed(1, 0, 3)))
    assert seen(Seed(1)) != seen(Seed(1, 0, 3))
    assert sorted(seen(Seed(1))) != sorted(seen(Seed(1, 1)))
    assert torch.equal(BatchOrder(100, 7, Seed(1), 1.0).at(9), BatchOrder(100, 7, Seed(1)).at(9))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InvalidValue, match="above 0 and up to 1"):
        BatchOrder(100, 1, Seed(0), fraction)


def test_a_batch_larger_than_the_share_is_refused() -> None:
    with pytest.raises(DataTooSmall, match=r"batch size is 51 and there are 50 training examples, 0\.5 of 100"):
        BatchOrder(100, 51, Seed(0), 0.5)


def test_further_dense_runs_share_the_initialisation() -> None:
    first, second = (models.initial(mlp, Seed(0, 3, order)) for order in (0, 1))
    assert all(torch.equal(first.params[name], second.params[name]) for name in first.params)
    other = models.initial(mlp, Seed(0, 4))
    assert not torch.equal(first.params["0.weight"], other.params["0.weight"])


PINNED = {
    "split": (1006462977653475610, (0.008595049381256104, 0.22796392440795898)),
    "init": (964566165687934739, (0.5426180958747864, 0.09174966812133789)),
    "order": (4352629775682057831, (0.4134148955345154, 0.15110182762145996)),
    "augment": (5184368558945437418, (0.17391544580459595, 0.36483240127563477)),
    "dropout": (1978503493236968297, (0.36803334951400757, 0.9037991762161255)),
    "prune": (7764482959245214574, (0.4327514171600342, 0.20941191911697388)),
    "control": (5627592977527070293, (0.6822798252105713, 0.9112342596054077)),
}
"""Stream -> the seed and the first two draws for Seed(7, 2, 1), folded with 3. Changing one changes every result."""


@pytest.mark.parametrize("stream", STREAMS)
def test_the_first_draws_of_every_stream_are_pinned(stream: str) -> None:
    number, draws = PINNED[stream]
    assert derive(Seed(7, 2, 1), stream, 3) == number
    assert tuple(torch.rand(2, generator=generator(Seed(7, 2, 1), stream, 3)).tolist()) == draws


def test_the_first_batches_are_pinned() -> None:
    order = BatchOrder(10, 4, Seed(7, 2, 1))
    assert [order.at(step).tolist() for step in range(3)] == [[5, 9, 2, 1], [6, 8, 0, 4], [7, 3, 6, 5]]


def test_streams_are_unlike_each_other() -> None:
    folds = ((), (0,), (1,), ("reinit", 1), ("shuffle", 1))
    seeds = (Seed(0), Seed(1), Seed(0, 1), Seed(0, 11), Seed(1, 1))
    numbers = [derive(s, stream, *fold) for s, stream, fold in itertools.product(seeds, STREAMS, folds)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 2**63 for number in numbers)


def test_only_three_streams_follow_the_data_order() -> None:
    moved = {s for s in STREAMS if derive(Seed(0), s) != derive(replace(Seed(0), order=1), s)}
    assert moved == {"order", "augment", "dropout"}


def test_there_is_no_other_stream() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'dropout'"):
        derive(Seed(0), "dropuot")


def test_a_draw_added_to_one_stream_moves_no_other() -> None:
    """A network that draws in its forward pass, and ignores it, trains like one that does not."""
    seed = Seed(0)
    init = models.initial(mlp, seed)
    inner = replace(init, params={f"inner.{name}": value for name, value in init.params.items()})
    (plain,) = PlainTrainer(mlp, splits, recipe())([TrainJob(init, {}, seed, 30)])
    (drawing,) = PlainTrainer(ExtraDraws, splits, recipe())([TrainJob(inner, {}, seed, 30)])
    assert plain.curve == drawing.curve
    assert all(torch.equal(value, drawing.end.params[f"inner.{name}"]) for name, value in plain.end.params.items())
