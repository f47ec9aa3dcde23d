"""Recalibration: the statistics of the data given, nothing else touched, and worth it after one-shot pruning."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tombola import models
from tombola.data import load as load_data
from tombola.errors import DataTooSmall, ShapeMismatch
from tombola.prune.rewinding import masked
from tombola.prune.select import keep_top
from tombola.train.order import BatchOrder
from tombola.train.plain import PlainTrainer, evaluate, load
from tombola.train.recalibrate import recalibrate, recalibrated, training_batches
from tombola.train.recipe import Recipe
from tombola.train.source import Splits
from tombola.types import Seed, Snapshot, TrainJob


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def test_the_statistics_by_hand() -> None:
    """Batches of means 2 and 14, and of unbiased variances 2 and 16, count alike whatever their size."""
    norm = nn.BatchNorm1d(1)
    recalibrate(norm, [torch.tensor([[1.0], [3.0]]), torch.tensor([[10.0], [14.0], [18.0]])])
    assert norm.running_mean.tolist() == [8.0]
    assert norm.running_var.tolist() == [9.0]
    assert int(norm.num_batches_tracked) == 2


@pytest.mark.parametrize("momentum", [0.1, 0.9, None])
def test_what_was_measured_before_counts_for_nothing(momentum: float | None) -> None:
    norm = nn.BatchNorm2d(3, momentum=momentum)
    norm(torch.randn(4, 3, 2, 2) + 100)
    x = torch.randn(6, 3, 4, 5)
    recalibrate(norm, [x])
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, x.transpose(0, 1).flatten(1).var(1))
    assert norm.momentum == momentum


def test_a_later_norm_is_given_what_it_is_given_in_training() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2), nn.BatchNorm1d(2))
    batches = [torch.randn(7, 3), torch.randn(7, 3) + 1]
    recalibrate(net, batches)
    means = []
    for x in batches:
        inner = net[0](x)
        inner = (inner - inner.mean(0)) / (inner.var(0, unbiased=False) + 1e-5).sqrt()
        means.append(net[3](inner.clamp(min=0)).mean(0))
    torch.testing.assert_close(net[4].running_mean, torch.stack(means).mean(0).detach())


def test_nothing_else_is_touched() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2), nn.LayerNorm(2))
    net[3].eval()
    net[2].eval()
    modes = [part.training for part in net.modules()]
    x = torch.randn(9, 3)
    before, drawn = state(net), torch.get_rng_state()
    recalibrate(net, iter([x]))
    assert changed(net, before) == {"2.running_mean", "2.running_var", "2.num_batches_tracked"}
    assert [part.training for part in net.modules()] == modes
    assert net[2].momentum == 0.1
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), drawn)
    # Dropout is off, as it is where the statistics are used.
    torch.testing.assert_close(net[2].running_mean, net[0](x).mean(0).detach())


def unread() -> Iterator[Tensor]:
    raise AssertionError("a batch was read")
    yield torch.zeros(1)


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.BatchNorm1d(4, track_running_stats=False)])
def test_a_network_without_statistics_is_left_alone(norm: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(3, 4), norm).eval()
    before = state(net)
    recalibrate(net, unread())
    assert changed(net, before) == set()


def breaking() -> Iterator[Tensor]:
    yield torch.randn(5, 3)
    raise RuntimeError("the disk is gone")


@pytest.mark.parametrize(
    ("batches", "error", "says"),
    [
        ([], DataTooSmall, "at least one is needed"),
        ([torch.randn(5, 3), torch.randn(1, 3)], DataTooSmall, r"shape \(1, 3\)"),
        (breaking(), RuntimeError, "the disk is gone"),
    ],
)
def test_where_it_fails_all_is_as_it_was(batches: list[Tensor], error: type[Exception], says: str) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    net(torch.randn(8, 3))
    before = state(net)
    with pytest.raises(error, match=says):
        recalibrate(net, batches)
    assert changed(net, before) == set()
    assert net.training
    assert net[1].training
    assert net[1].momentum == 0.1


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip


SPLITS = Splits(partial(load_data, "digits"))


def wide() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 200, bias=False), nn.BatchNorm1d(200), nn.ReLU(),
        nn.Linear(200, 200, bias=False), nn.BatchNorm1d(200), nn.ReLU(), nn.Linear(200, 10),
    )  # fmt: skip


def deep() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10),
    )  # fmt: skip


def largest(snapshot: Snapshot, density: float) -> dict[str, Tensor]:
    """Keep the largest weights of all layers together."""
    weights = {name: value.abs() for name, value in snapshot.params.items() if value.dim() > 1}
    every = torch.cat([value.flatten() for value in weights.values()])
    kept = keep_top(every, round(density * len(every))).split([value.numel() for value in weights.values()])
    return {name: part.reshape(weights[name].shape) for name, part in zip(weights, kept, strict=True)}


@pytest.mark.parametrize("replicate", range(3))
@pytest.mark.parametrize(("build", "gain"), [(wide, 0.5), (deep, 0.0)])
def test_it_gives_accuracy_back_after_one_shot_pruning(
    build: Callable[[], nn.Module], gain: float, replicate: int
) -> None:
    seed = Seed(0, replicate)
    how = Recipe(iterations=100, batch_size=50, lr=3e-3, eval_every=50)
    (run,) = PlainTrainer(build, SPLITS, how)([TrainJob(models.initial(build, seed), {}, seed, 100)])
    masks, split = largest(run.end, 0.1), SPLITS(seed)
    stale = masked(run.end, masks)
    fresh = recalibrated(build, run.end, masks, training_batches(split.train_x, 50, seed))
    net = build()
    accuracy = []
    for one in (stale, fresh):
        load(net, one)
        accuracy.append(evaluate(net, split.test_x, split.test_y)[1])
    assert accuracy[1] > accuracy[0] + gain
    # What was pruned is pruned, and what was kept is what it was.
    assert all(torch.equal(value, fresh.params[name]) for name, value in stale.params.items())
    assert fresh.step == run.end.step


def snapshot_of(net: nn.Module) -> Snapshot:
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    return Snapshot(3, {name: p.detach().clone() for name, p in net.named_parameters()}, buffers)


def test_a_copy_is_measured_in_the_networks_place() -> None:
    net = small()
    before = state(net)
    x = torch.rand(20, 1, 8, 8)
    snapshot = snapshot_of(small())
    drawn = torch.get_rng_state()
    by_module, by_build = recalibrated(net, snapshot, {}, [x]), recalibrated(small, snapshot, {}, [x])
    assert torch.equal(torch.get_rng_state(), drawn)
    assert changed(net, before) == set()
    load(net, snapshot)
    recalibrate(net, [x])
    for found in (by_module, by_build):
        assert all(torch.equal(value, net.state_dict()[name]) for name, value in found.buffers.items())
        assert all(torch.equal(value, snapshot.params[name]) for name, value in found.params.items())
    assert snapshot.buffers["1.num_batches_tracked"] == 0


def test_the_statistics_are_those_of_the_subnetwork_even_of_an_emptied_channel() -> None:
    snapshot = snapshot_of(small())
    masks = {"0.weight": torch.ones(12, 1, 3, 3, dtype=torch.bool)}
    masks["0.weight"][4] = False
    x = torch.rand(20, 1, 8, 8)
    found = recalibrated(small, snapshot, masks, [x])
    assert float(found.buffers["1.running_mean"][4]) == float(found.buffers["1.running_var"][4]) == 0
    assert bool((found.buffers["1.running_var"][torch.arange(12) != 4] > 0).all())
    net = small().eval()
    load(net, found)
    assert bool(net(x).isfinite().all())


def test_a_snapshot_without_statistics_comes_back_as_it_was() -> None:
    net = nn.Linear(3, 2)
    snapshot = snapshot_of(net)
    found = recalibrated(net, snapshot, {}, unread())
    assert found.buffers == {}
    assert found.step == 3
    assert all(torch.equal(value, snapshot.params[name]) for name, value in found.params.items())


def test_the_snapshot_of_another_network_is_refused() -> None:
    with pytest.raises(ShapeMismatch, match="in one only"):
        recalibrated(small, snapshot_of(nn.Linear(3, 2)), {}, [torch.rand(4, 1, 8, 8)])


def test_training_batches_are_the_first_of_the_run() -> None:
    x = torch.arange(23.0).reshape(23, 1)
    order = BatchOrder(23, 5, Seed(4, 1))
    found = list(training_batches(x, 5, Seed(4, 1)))
    assert [one.shape for one in found] == [(5, 1)] * 4
    assert all(torch.equal(one, x[order.at(step)]) for step, one in enumerate(found))
    # No example twice.
    assert len(torch.cat(found).unique()) == 20
    with pytest.raises(DataTooSmall):
        list(training_batches(x, 24, Seed(0)))
