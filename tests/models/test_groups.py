"""A network masked by whole units computes what the physically smaller network computes."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tombola.errors import InvalidValue, UnknownName
from tombola.models.groups import groups, heads, units
from tombola.models.kinds import kinds
from tombola.models.registry import registry
from tombola.models.shrink import FewerHeads, shrink
from tombola.models.start import DRAWING
from tombola.prune.masks import apply
from tombola.prune.structure import Group, Slice, alive_units, product_masks, usable


def trained(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic a value of its own, biases far from zero, and evaluation mode."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=rng)
                scale = 1.0 if value.dim() < 2 else value[0].numel() ** -0.5
                value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else scale * drawn)
    return module.double().eval()


def image(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(found: tuple[Group, ...], seed: int = 2) -> dict[str, Tensor]:
    """Keep some units of each group, at least one, and never all."""
    rng = torch.Generator().manual_seed(seed)
    marks = {group.name: torch.rand(group.size, generator=rng) < 0.5 for group in found}
    for mark in marks.values():
        mark[0], mark[-1] = True, False
    return marks


def masked(module: nn.Module, found: tuple[Group, ...], kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the mask of the units on the prunable weights alone: biases and norms keep their values."""
    params = dict(module.named_parameters())
    prunable = [name for name, kind in kinds(module).items() if kind in ("linear", "conv", "attention")]
    dense = {name: torch.ones_like(params[name], dtype=torch.bool) for name in prunable}
    return apply(params, product_masks(found, kept, dense))


def check_equal(module: nn.Module, found: tuple[Group, ...], *inputs: Tensor, **more: Any) -> nn.Module:
    kept = drawn(found)
    before = functional_call(copy.deepcopy(module), masked(module, found, kept), inputs, more)
    small = shrink(module, found, kept)
    after = small(*inputs, **more)
    for one, other in zip(*(x if isinstance(x, tuple) else (x,) for x in (before, after)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    sizes = [sum(p.numel() for p in net.parameters()) for net in (module, small)]
    assert sizes[1] < sizes[0]
    dense = module(*inputs, **more)
    first = dense[0] if isinstance(dense, tuple) else dense
    assert not torch.allclose(first, after[0] if isinstance(after, tuple) else after), "the units made a difference"
    return small


class Residual(nn.Module):
    """Convolutions, a stream that two layers write, depthwise weights, a mean, and methods for functions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.deep = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.back = nn.Conv2d(12, 6, 1)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.PReLU(6)
        self.out = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 3, h, w) to (batch, 4)."""
        x = self.stem(x).relu()
        x = self.act(self.norm(x + self.back(torch.tanh(self.deep(x)))))
        return self.out(x.mean(dim=(2, 3)))


class Perceptron(nn.Module):
    """A transformer's hidden layer, with a stream of fixed width under layer norm, tokens and a taken token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 2, stride=2)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)
        self.up, self.down = nn.Linear(8, 10), nn.Linear(10, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 3, h, w) to (batch, 3)."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        return self.head(x[:, 0])


def flattened() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Conv2d(5, 4, 2), nn.GELU(),
        nn.Flatten(), nn.Linear(16, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3),
    )  # fmt: skip


def of(name: str, shape: tuple[int, ...]) -> Callable[[], nn.Module]:
    return lambda: registry()[name].factory(shape, 4)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "lenet-300-100": (of("lenet-300-100", (1, 5, 5)), (1, 5, 5), 2),
    "conv-2": (of("conv-2", (3, 6, 6)), (3, 6, 6), 4),
    "resnet-20": (of("resnet-20", (3, 8, 8)), (3, 8, 8), 12),
    "flattened": (flattened, (3, 8, 8), 3),
    "residual and depthwise": (Residual, (3, 5, 5), 1),
    "perceptron": (Perceptron, (3, 4, 4), 1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_masked_network_is_the_smaller_network(name: str) -> None:
    factory, shape, count = NETWORKS[name]
    module = trained(factory())
    found = units(module, image(1, *shape))
    assert len(found) == count
    check_equal(module, found, image(3, *shape))


def test_everything_that_a_unit_of_the_stream_has_dies_with_it() -> None:
    (group,) = units(trained(Residual()), image(1, 3, 5, 5))
    assert (group.name, group.size) == ("stem", 6)
    assert set(group.slices) == {
        Slice("stem.weight", 0), Slice("stem.bias", 0), Slice("deep.weight", 0, 2), Slice("deep.bias", 0, 2),
        Slice("back.weight", 1, 2), Slice("back.weight", 0), Slice("back.bias", 0), Slice("norm.weight", 0),
        Slice("norm.bias", 0), Slice("norm.running_mean", 0), Slice("norm.running_var", 0), Slice("act.weight", 0),
        Slice("out.weight", 1),
    }  # fmt: skip


def test_residual_streams_are_one_group_each_with_shortcuts() -> None:
    found = {group.name: group for group in units(of("resnet-20", (3, 8, 8))(), torch.zeros(1, 3, 8, 8))}
    assert sorted(group.size for group in found.values()) == [16] * 4 + [32] * 4 + [64] * 4
    stream = {(one.name, one.axis) for one in found["stage2.0.conv2"].slices}
    for block in range(3):
        assert (f"stage2.{block}.conv2.weight", 0) in stream
    assert {("stage2.0.shortcut.conv.weight", 0), ("stage3.0.shortcut.conv.weight", 1)} <= stream
    assert ("stage2.0.shortcut.conv.weight", 1) in {(one.name, one.axis) for one in found["conv"].slices}


def test_a_channel_is_as_many_columns_as_it_has_places() -> None:
    found = units(of("conv-2", (3, 6, 6))(), torch.zeros(1, 3, 6, 6))
    assert next(one for one in found[1].slices if one.name == "fc1.weight") == Slice("fc1.weight", 1, 9)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_attention_with_dead_heads_is_attention_with_fewer(same: bool, batch_first: bool, bias: bool) -> None:
    more = {} if same else {"kdim": 5, "vdim": 6}
    module = trained(nn.MultiheadAttention(8, 4, batch_first=batch_first, bias=bias, **more))
    (group,) = heads(module)
    assert (group.name, group.size) == ("attention", 4)
    inputs = (image(3, 2, 8), image(3, 2, 8 if same else 5, seed=3), image(3, 2, 8 if same else 6, seed=4))
    small = check_equal(module, (group,), *inputs, need_weights=False)
    assert isinstance(small, FewerHeads)
    whole = FewerHeads(module)
    length = 2 if batch_first else 3
    above = torch.ones(length, length, dtype=torch.bool).triu(1)
    for mask in ({}, {"attn_mask": above}, {"attn_mask": image(length, length)}):
        for average in (True, False):
            for one, other in zip(
                module(*inputs, average_attn_weights=average, **mask),
                whole(*inputs, average_attn_weights=average, **mask),
                strict=True,
            ):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    padding = torch.zeros(5 - length, length, dtype=torch.bool)
    padding[0, -1] = True
    torch.testing.assert_close(
        module(*inputs, key_padding_mask=padding)[0], whole(*inputs, key_padding_mask=padding)[0]
    )


def test_heads_of_an_encoder_layer_and_its_hidden_neurons() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=6, batch_first=True)
    module = trained(nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 3)))
    hidden = units(module, image(1, 4, 5))
    assert [(group.name, group.size) for group in hidden] == [("1.linear1", 6)]
    check_equal(module, (*heads(module), *hidden), image(2, 4, 5))


def test_layers_that_mix_units_keep_them() -> None:
    for mixing in (nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.Softmax(1)):
        net = nn.Sequential(nn.Linear(4, 6), mixing, nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
        assert [group.name for group in units(net, torch.zeros(2, 4))] == ["2"]
    net = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 5))
    with pytest.raises(InvalidValue, match="'0' stays: a LayerNorm mixes them"):
        units(net, torch.zeros(2, 4))
    grouped = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 3, 1), nn.Conv2d(3, 2, 1))
    assert [group.name for group in units(grouped, torch.zeros(1, 3, 2, 2))] == ["2"]


class Telling(nn.Module):
    """Gives its first hidden layer besides its output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (batch, 4) to (batch, 2) and (batch, 6)."""
        hidden = self.first(x)
        return {"out": self.last(self.second(hidden.relu()).relu()), "hidden": hidden}


def test_what_the_network_gives_stays_even_if_it_is_read_inside() -> None:
    assert [group.name for group in units(Telling(), torch.zeros(1, 4))] == ["second"]


def test_a_shared_layer_is_one_group_and_keeps_its_mask_in_both_places() -> None:
    shared = nn.Linear(6, 6)
    net = trained(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(6, 2)))
    found = units(net, image(1, 4))
    assert [group.size for group in found] == [6]
    check_equal(net, found, image(3, 4))


class Odd(nn.Module):
    """One operation between two linear layers."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.operation = nn.Linear(4, 6), nn.Linear(6, 2), operation

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return self.last(self.operation(self.first(x)))


@pytest.mark.parametrize(
    ("operation", "what"),
    [
        (lambda x: x.flip(1), "'flip'"),
        (nn.PixelShuffle(1), "PixelShuffle"),
        (lambda x: x if x.sum() > 0 else -x, "cannot be followed"),
        (lambda x: x * torch.arange(6.0), "'first' stays"),
        (lambda x: x[:, [1, 0, 2, 3, 4, 5]], "'first' stays"),
        (lambda x: torch.cat([x[:, :3], x[:, 3:]], 1), "'first' stays"),
        (lambda x: x.view(-1, 2, 3).transpose(1, 2).reshape(-1, 6), "'first' stays"),
    ],
)
def test_what_is_not_known_is_named(operation: Callable[[Tensor], Tensor], what: str) -> None:
    net = Odd(operation) if not isinstance(operation, nn.Module) else nn.Sequential(
        nn.Conv2d(3, 4, 1), operation, nn.Conv2d(4, 2, 1)
    )  # fmt: skip
    example = torch.zeros(2, 4) if isinstance(net, Odd) else torch.zeros(1, 3, 2, 2)
    with pytest.raises(InvalidValue, match=what):
        units(net, example)


class Sneaky(nn.Linear):
    """A linear layer that reads what it does not own: the kind of thing that following misses."""

    other: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Apply another weight."""
        return nn.functional.linear(x, self.other)


def test_groups_that_do_not_hold_are_found_out_by_running_the_network() -> None:
    last = Sneaky(6, 2)
    last.other = torch.ones(2, 6)
    # What is in torch's own module is not looked into.
    Sneaky.__module__ = "torch.nn.sneaky"
    with pytest.raises(InvalidValue, match="not all of what reads"):
        units(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), last), torch.ones(2, 4))


def test_finding_changes_nothing() -> None:
    net = of("resnet-20", (3, 8, 8))().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    first = units(net, torch.ones(2, 3, 8, 8))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert units(net, torch.ones(2, 3, 8, 8)) == first
    shrink(net, first, drawn(first))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_kinds_of_unit_and_what_they_need() -> None:
    net = of("lenet-300-100", (4,))()
    assert groups(net, "neurons", torch.zeros(1, 4)) == units(net, torch.zeros(1, 4))
    assert groups(nn.MultiheadAttention(4, 2), "heads") == heads(nn.MultiheadAttention(4, 2))
    for wrong in (lambda: groups(net, "neurons"), lambda: groups(net, "heads")):
        with pytest.raises(InvalidValue):
            wrong()
    with pytest.raises(UnknownName):
        groups(net, "layers")
    with pytest.raises(InvalidValue, match="add_bias_kv"):
        heads(nn.MultiheadAttention(4, 2, add_bias_kv=True))
    with pytest.raises(InvalidValue, match="does not take the example"):
        units(net, torch.zeros(1, 5))


def test_shrinking_keeps_one_unit_and_takes_a_mark_for_each() -> None:
    net = of("lenet-300-100", (4,))()
    found = units(net, torch.zeros(1, 4))
    for wrong in (torch.zeros(300, dtype=torch.bool), torch.ones(299, dtype=torch.bool)):
        with pytest.raises(InvalidValue, match="at least one"):
            shrink(net, found, {"fc1": wrong})


def test_the_units_alive_are_those_that_were_kept() -> None:
    net = of("conv-2", (3, 6, 6))()
    found = units(net, torch.zeros(1, 3, 6, 6))
    kept = drawn(found)
    dense = {n: torch.ones_like(p, dtype=torch.bool) for n, p in net.named_parameters() if p.dim() > 1}
    usable(found, {n: tuple(mask.shape) for n, mask in dense.items()})
    alive = alive_units(found, product_masks(found, kept, dense))
    assert all(torch.equal(alive[name], kept[name]) for name in kept)


def test_networks_may_run_in_other_threads_while_one_is_traced() -> None:
    net, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(1, 4)
    failed: list[BaseException] = []
    stop = threading.Event()

    def runs() -> None:
        other = nn.Linear(3, 3)
        while not stop.is_set():
            try:
                with DRAWING:
                    other(torch.zeros(1, 3))
            except BaseException as error:
                failed.append(error)

    threads = [threading.Thread(target=runs) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        units(net, x)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed


def test_threads_find_groups_side_by_side() -> None:
    """While one traces, torch sends every module's call through the tracer: the others must not run theirs then."""
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: groups(net, "neurons", torch.zeros(2, 6)), range(200)))
    assert all(one == found[0] for one in found)
