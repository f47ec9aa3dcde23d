"""Alignment by permutation symmetry: the function stays, and a permuted copy is recovered exactly."""

from collections.abc import Callable

import pytest
import torch
from analysis_kit import rng
from torch import nn

from tombola.analysis.alignment import align, permuted
from tombola.errors import ShapeMismatch
from tombola.models import build, groups, initial, view
from tombola.prune.structure import Group, Slice
from tombola.types import Seed, Snapshot


def conv_bn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 6), nn.ReLU(),
        nn.Linear(6, 3),
    )  # fmt: skip


class Residual(nn.Module):
    """A stream that two layers write to and two read, so its units are on both sides of what they share."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.up, self.down, self.leave = (nn.Linear(a, b) for a, b in ((64, 8), (8, 12), (12, 8), (8, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.enter(x.flatten(1)))
        return self.leave(torch.relu(x + self.down(torch.relu(self.up(x)))))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet-300-100": (lambda: build("lenet-300-100", (1, 8, 8), 10), (1, 8, 8)),
    "conv-2": (lambda: build("conv-2", (1, 4, 4), 10), (1, 4, 4)),
    "lenet-5": (lambda: build("lenet-5", (1, 8, 8), 10), (1, 8, 8)),
    "batch norm": (conv_bn, (1, 8, 8)),
    "residual": (Residual, (1, 8, 8)),
}


def case(which: str, seed: int = 0) -> tuple[nn.Module, Snapshot, tuple[Group, ...], torch.Tensor]:
    make, shape = NETS[which]
    x = torch.randn(5, *shape, generator=rng(9))
    start = initial(make, Seed(seed))
    draw = rng(seed + 50)
    noisy = {n: v + 0.05 * torch.rand(v.shape, generator=draw) for n, v in start.params.items()}
    moved = {
        n: v + torch.rand(v.shape, generator=draw) if v.is_floating_point() else v for n, v in start.buffers.items()
    }
    module = make()
    return module, Snapshot(0, noisy, moved), groups(module, "neurons", x), x


def shuffled(found: tuple[Group, ...], seed: int) -> dict[str, torch.Tensor]:
    draw = rng(seed)
    return {group.name: torch.randperm(group.size, generator=draw) for group in found}


@pytest.mark.parametrize("which", NETS)
def test_the_order_of_hidden_units_does_not_change_the_function(which: str) -> None:
    module, snapshot, found, x = case(which)
    assert found
    other = permuted({**snapshot.params, **snapshot.buffers}, found, shuffled(found, 1))
    outputs = view(module, snapshot).forward
    assert any(not torch.equal(other[name], value) for name, value in snapshot.params.items())
    torch.testing.assert_close(outputs(other, x), outputs({}, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", NETS)
def test_aligning_to_another_network_keeps_the_function_and_gains(which: str) -> None:
    module, first, found, x = case(which)
    second = case(which, seed=1)[1]
    order = align(first.params, second.params, found, rng(0))
    aligned = permuted({**second.params, **second.buffers}, found, order)
    outputs = view(module, second).forward
    torch.testing.assert_close(outputs(aligned, x), outputs({}, x), rtol=1e-4, atol=1e-5)

    def apart(params: dict[str, torch.Tensor]) -> float:
        return sum(float((params[name] - value).square().sum()) for name, value in first.params.items())

    assert apart(aligned) < apart(dict(second.params))


@pytest.mark.parametrize("which", NETS)
def test_a_permuted_copy_is_recovered_and_its_mask_with_it(which: str) -> None:
    _, snapshot, found, _ = case(which)
    copy = permuted(snapshot.params, found, shuffled(found, 2))
    masks = {name: value > 0 for name, value in snapshot.params.items()}
    moved = permuted(masks, found, shuffled(found, 2))
    order = align(snapshot.params, copy, found, rng(0))
    assert all(torch.equal(value, snapshot.params[n]) for n, value in permuted(copy, found, order).items())
    assert all(torch.equal(value, masks[n]) for n, value in permuted(moved, found, order).items())
    itself = align(snapshot.params, snapshot.params, found, rng(0))
    assert all(torch.equal(itself[group.name], torch.arange(group.size)) for group in found)


@pytest.mark.parametrize("seed", range(10))
def test_a_copy_is_recovered_where_the_first_layer_says_little(seed: int) -> None:
    """Matching both sides of a unit at once would follow the large weights behind it, whose order is not known yet."""
    net = nn.Sequential(*(nn.Linear(a, b) for a, b in ((3, 12), (12, 12), (12, 12), (12, 2))))
    draw = rng(seed)
    params = {n: torch.randn(p.shape, generator=draw) * 10 ** int(n[0]) for n, p in net.named_parameters()}
    found = groups(net, "neurons", torch.zeros(1, 3))
    copy = permuted(params, found, shuffled(found, seed))
    order = align(params, copy, found, rng(0))
    assert all(torch.equal(value, params[name]) for name, value in permuted(copy, found, order).items())


def test_turns_come_from_the_generator_alone() -> None:
    _, first, found, _ = case("lenet-5")
    second = case("lenet-5", seed=1)[1]
    one, other = (align(first.params, second.params, found, rng(3)) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_does_not_fit_is_named() -> None:
    hidden = [Group("h", 3, (Slice("w", 0),))]
    w = {"w": torch.ones(3, 2)}
    with pytest.raises(ShapeMismatch, match=r"'w' has shape \(3, 2\) in the first network and \(2, 2\)"):
        align(w, {"w": torch.ones(2, 2)}, hidden, rng(0))
    with pytest.raises(ShapeMismatch, match="and no value in the second"):
        align(w, {}, hidden, rng(0))
    with pytest.raises(ShapeMismatch, match="the 4 units of 'h' do not fit axis 0 of 'w'"):
        align(w, w, [Group("h", 4, (Slice("w", 0),))], rng(0))
    with pytest.raises(ShapeMismatch, match="is no permutation of its 3 units"):
        permuted(w, hidden, {"h": torch.tensor([0, 0, 1])})
