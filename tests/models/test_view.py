"""A module as pure functions: the same outputs, nothing written, every use recorded."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, hessian, jvp, vmap
from torch.nn.grad import conv2d_weight

from tombola.errors import ShapeMismatch
from tombola.models import View, view
from tombola.types import Params, Snapshot


def conv_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(4, 4, 3, groups=2, bias=False), nn.Tanh(), nn.AdaptiveAvgPool2d(1)),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3),
    )  # fmt: skip


def snapshot(module: nn.Module) -> Snapshot:
    return Snapshot(0, dict(module.named_parameters()), dict(module.named_buffers()))


def seen(module: nn.Module) -> View:
    return view(module, snapshot(module))


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def state(module: nn.Module) -> dict[str, Any]:
    kept = {name: value.detach().clone() for name, value in module.state_dict().items()}
    return {**kept, **{f"{name} training": part.training for name, part in module.named_modules()}}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) if isinstance(value, Tensor) else value == second[name]
        for name, value in first.items()
    )


def test_forward_is_the_module_in_evaluation_mode() -> None:
    net = conv_net()
    net(images())
    want = copy.deepcopy(net).eval()(images())
    assert torch.equal(seen(net).forward({}, images()), want)
    assert torch.equal(seen(net).forward(dict(net.named_parameters()), images()), want)


def test_forward_training_normalises_by_the_batch_and_drops_nothing() -> None:
    net = conv_net()
    want = copy.deepcopy(net).train()
    want[6] = nn.Identity()
    assert torch.allclose(seen(net).forward_training({}, images()), want(images()), atol=1e-6)
    assert not torch.allclose(seen(net).forward({}, images()), want(images()), atol=1e-3)


def test_instance_norm_that_keeps_statistics_uses_those_of_the_instance() -> None:
    net = nn.InstanceNorm1d(2, track_running_stats=True)
    x = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(seen(net).forward_training({}, x), nn.InstanceNorm1d(2)(x), atol=1e-6)
    assert torch.allclose(seen(net).forward({}, x), x, atol=1e-4)


def test_a_pass_in_training_can_be_batched_over_values() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    given, x = seen(net), torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    weights = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(3))
    both = vmap(lambda one: given.forward_training({"0.weight": one}, x))(weights)
    assert torch.allclose(both[1], given.forward_training({"0.weight": weights[1]}, x), atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_module_its_mode_and_the_global_generator_stay_as_they_are(training: bool) -> None:
    net = conv_net().train(training)
    before, drawn, given = state(net), torch.random.get_rng_state(), seen(net)
    buffers = {name: value.clone() for name, value in given.buffers.items()}
    for run in (given.forward, given.forward_training, given.uses):
        run({}, images())
        run(dict(net.named_parameters()), images())
    assert same(state(net), before)
    assert all(torch.equal(given.buffers[name], value) for name, value in buffers.items())
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(value.grad is None for value in net.parameters())
    assert not any(part._forward_hooks for part in net.modules())


class Counting(nn.Module):
    """Writes to a buffer of its own in every mode."""

    calls: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("shift", torch.ones(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.shift


def test_a_module_that_counts_its_calls_counts_none() -> None:
    net = Counting()
    given = view(net, Snapshot(0, {}, {"calls": net.calls}))
    for run in (given.forward, given.forward_training):
        assert torch.equal(run({}, torch.zeros(1, 2)), torch.ones(1, 2))
    assert net.calls == 0
    assert given.buffers["calls"] == 0


def test_the_snapshot_rules_over_the_module_and_values_over_both() -> None:
    net = nn.Linear(1, 1, bias=False)
    given = view(net, Snapshot(0, {"weight": torch.tensor([[3.0]])}))
    assert given.forward({}, torch.ones(1, 1)).item() == 3.0
    assert given.forward({"weight": torch.tensor([[5.0]])}, torch.ones(1, 1)).item() == 5.0


def test_float64_values_make_everything_float64() -> None:
    net = conv_net().eval()
    values = {name: value.detach().double() for name, value in net.named_parameters()}
    want = copy.deepcopy(net).double()(images().double())
    given = seen(net)
    assert torch.equal(given.forward(values, images()), want)
    assert torch.equal(given.forward({"7.bias": values["7.bias"]}, images()), want)
    assert given.forward_training(values, images()).dtype is torch.float64
    assert given.uses(values, images())[0].dtype is torch.float64


def test_an_unknown_name_and_another_shape_are_refused() -> None:
    given = seen(nn.Linear(2, 2))
    with pytest.raises(ShapeMismatch, match="no parameter or buffer of that name"):
        given.forward({"wieght": torch.zeros(2, 2)}, torch.zeros(1, 2))
    with pytest.raises(ShapeMismatch, match=r"has shape \(2, 3\), and the network's has \(2, 2\)"):
        given.forward({"weight": torch.zeros(2, 3)}, torch.zeros(1, 2))


def test_the_first_name_of_a_tied_parameter_rules() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    given = seen(net)
    double = {"0.weight": 2 * torch.eye(2), "1.weight": torch.zeros(2, 2)}
    assert torch.equal(given.forward(double, torch.ones(1, 2)), torch.full((1, 2), 4.0))
    assert [use.weight for use in given.uses({}, torch.ones(1, 2))[1]] == ["0.weight", "0.weight"]
    assert given.stages is not None
    assert [stage.weight for stage in given.stages] == ["0.weight", "0.weight"]


# The first use of forward mode makes torch itself compile by a function that it has deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_transforms_go_through_every_pass() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()
    given, x = seen(net), torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    values = {name: value.detach() for name, value in net.named_parameters()}
    ones = {name: torch.ones_like(value) for name, value in values.items()}
    for run in (given.forward, given.forward_training):

        def total(v: Params, run: Any = run) -> Tensor:
            return run(v, x).square().sum()

        slope, curve = jvp(grad(total), (values,), (ones,))[:2]
        want = jvp(total, (values,), (ones,))[1]
        assert torch.isclose(sum(value.sum() for value in slope.values()), want)
        assert hessian(lambda b, total=total: total({**values, "3.bias": b}))(values["3.bias"]).shape == (2, 2)
        assert all(bool(value.isfinite().all()) for value in curve.values())
    rows = vmap(lambda one: given.forward(values, one[None])[0])(x)
    assert torch.allclose(rows, given.forward(values, x))


def test_uses_are_recorded_in_order_and_give_the_gradients() -> None:
    net = conv_net().eval()
    values = {name: value.detach().requires_grad_() for name, value in net.named_parameters()}
    outputs, uses = seen(net).uses(values, images())
    assert torch.equal(outputs, net(images()))
    assert [(use.weight, use.kind, use.groups) for use in uses] == [
        ("0.weight", "conv", 1), ("4.0.weight", "conv", 2), ("7.weight", "linear", 1)
    ]  # fmt: skip
    assert uses[0].padding == uses[0].stride == uses[0].dilation == (1, 1)
    deltas = torch.autograd.grad(outputs.square().sum(), [use.outputs for use in uses], retain_graph=True)
    wants = torch.autograd.grad(outputs.square().sum(), [values[use.weight] for use in uses])
    for use, delta, want in zip(uses, deltas, wants, strict=True):
        assert torch.allclose(pull(use, want.shape, delta), want, rtol=1e-4, atol=1e-6), use.weight


def pull(use: Any, shape: torch.Size, delta: Tensor) -> Tensor:
    if use.kind == "linear":
        return torch.einsum("...o,...i->oi", delta, use.inputs)
    found: Tensor = conv2d_weight(use.inputs, list(shape), delta, use.stride, use.padding, use.dilation, use.groups)
    return found


def test_each_call_records_its_own_uses() -> None:
    given = seen(conv_net())
    _, first = given.uses({}, images())
    given.uses({}, images())
    given.forward({}, images())
    assert len(first) == 3


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("extra", [{"padding": "same"}, {"padding": 1, "padding_mode": "circular"}])
def test_padding_that_is_not_zeros_at_both_ends_enters_with_the_input(extra: dict[str, Any]) -> None:
    net = nn.Conv2d(2, 3, 2, bias=False, **extra)
    weight = net.weight.detach().requires_grad_()
    outputs, (use,) = seen(net).uses({"weight": weight}, images())
    want = nn.functional.conv2d(use.inputs, weight, None, use.stride, use.padding, use.dilation, use.groups)
    assert use.padding == (0, 0)
    assert torch.allclose(want, outputs)


class InPlace(nn.Module):
    """Overwrites what its layer gave."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(input=x)
        return out.mul_(0.0)


def test_what_is_done_in_place_to_the_outputs_does_not_change_those_recorded() -> None:
    net = InPlace()
    outputs, (use,) = seen(net).uses({}, torch.ones(1, 2))
    assert torch.equal(outputs, torch.zeros(1, 2))
    assert torch.equal(use.outputs, net.layer(torch.ones(1, 2)))


def test_attention_and_transposed_convolution_have_no_uses() -> None:
    assert seen(nn.ConvTranspose2d(2, 2, 2)).uses({}, images())[1] == []

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.MultiheadAttention(4, 2, batch_first=True)
            self.out = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.out(self.heads(x, x, x, need_weights=False)[0])
            return found

    assert [use.weight for use in seen(Attends()).uses({}, torch.randn(2, 3, 4))[1]] == ["out.weight"]


def test_a_chain_is_the_network() -> None:
    net = conv_net()
    net(images())
    given = seen(net)
    assert given.stages is not None
    assert [stage.kind for stage in given.stages] == [
        "conv", "activation", "activation", "max", "conv", "activation", "average", "reshape", "linear"
    ]  # fmt: skip
    assert [(s.weight, s.bias) for s in given.stages if s.weight] == [
        ("0.weight", "0.bias"), ("4.0.weight", None), ("7.weight", "7.bias")
    ]  # fmt: skip
    for values in ({}, {name: 2 * value.detach().double() for name, value in net.named_parameters()}):
        x = images()
        for stage in given.stages:
            x = stage.apply(values, x if not values else x.double())
        assert torch.allclose(x, given.forward(values, images()))


class Twice(nn.Sequential):
    """A Sequential that is not one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(super().forward(x))


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 2))
    net[0].register_forward_hook(lambda *_: None)
    return net


@pytest.mark.parametrize(
    "net",
    [Twice(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), hooked(),
     nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)), nn.Sequential(nn.Linear(2, 2), nn.Softmax(-1))],
)  # fmt: skip
def test_what_is_no_chain_has_no_stages(net: nn.Module) -> None:
    assert seen(net).stages is None
