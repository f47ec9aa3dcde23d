"""What masks must not break in a module, each beside the stock tool that breaks it."""

import copy
import gc
import io
import pickle
import warnings
import weakref
from typing import Any

import pytest
import torch
from attach_kit import backward, batch, conv, graded, gradient_hooks, half, mlp, product_before_forward, revived, stock
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tombola.attach import attach, attached, steps
from tombola.errors import InvalidValue, ShapeMismatch


def test_a_deep_copy_trains_on_its_own() -> None:
    model = mlp()
    masks = half(model)
    handle = attach(model, masks)
    backward(model)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(batch()[0]), model(batch()[0]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        backward(twin)
        assert graded(twin, masks) == 0
        optimizer.step()
    assert revived(twin, masks) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    other = half(model, seed=1)
    assert attached(twin) is not handle
    attached(twin).update(other)
    assert revived(twin, other) == 0
    assert all(torch.equal(mask, masks[name]) for name, mask in handle.masks.items()), "the original's masks changed"
    attached(twin).detach()
    backward(model)
    assert graded(model, masks) == 0


def test_a_deep_copy_of_a_copy_of_one_layer_holds_its_mask() -> None:
    model = mlp()
    masks = half(model)
    handle = attach(model, masks)
    layer = copy.deepcopy(copy.deepcopy(model)[3])
    layer(torch.randn(4, 8)).square().sum().backward()
    assert not layer.weight.grad[~masks["3.weight"]].any()
    assert handle.model is model


def test_stock_pruning_does_not_deep_copy_and_gradient_hooks_get_lost() -> None:  # negative control
    model = mlp()
    masks = half(model)
    stock(model, masks)
    backward(model)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    hooked = mlp()
    held = gradient_hooks(hooked, masks)
    twin = copy.deepcopy(hooked)
    backward(twin)
    assert graded(twin, masks) > 0
    assert held


@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.9)], ids=["swa", "ema"])
def test_averaged_models_have_the_masks_zeros(average: Any) -> None:
    model = mlp()
    masks = half(model)
    attach(model, masks)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    averaged = AveragedModel(model, multi_avg_fn=average)
    for step in range(10):
        optimizer.zero_grad()
        backward(model, batch(seed=step))
        optimizer.step()
        averaged.update_parameters(model)
    for name, mask in masks.items():
        assert torch.equal(averaged.module.get_parameter(name) != 0, mask)
    fewer = {name: mask & half(model, seed=3)[name] for name, mask in masks.items()}
    attached(averaged).update(fewer)
    assert revived(averaged.module, fewer) == 0
    assert attached(averaged).model is averaged.module
    pruned = stock(mlp(), masks)
    backward(pruned)
    with pytest.raises(RuntimeError, match="deepcopy"):
        AveragedModel(pruned)


def test_state_dicts_load_strictly_both_ways() -> None:
    dense, ticket = mlp(), mlp()
    masks = half(ticket)
    handle = attach(ticket, masks)
    assert list(ticket.state_dict()) == list(dense.state_dict())
    dense.load_state_dict(ticket.state_dict())
    assert revived(dense, masks) == 0
    ticket.load_state_dict(mlp().state_dict())
    with pytest.raises(RuntimeError, match="weight_orig"):
        dense.load_state_dict(stock(mlp(), masks).state_dict())
    with pytest.raises(RuntimeError, match="weight_mask"):
        stock(mlp(), masks).load_state_dict(dense.state_dict())
    buffer = io.BytesIO()
    torch.save(ticket.state_dict(), buffer)
    buffer.seek(0)
    dense.load_state_dict(torch.load(buffer, weights_only=True))
    assert handle.fingerprint()


def load(model: nn.Module) -> None:
    model.load_state_dict(mlp().state_dict())


def load_by_assignment(model: nn.Module) -> None:
    model.load_state_dict(mlp().state_dict(), assign=True)


def load_one_layer(model: nn.Module) -> None:
    model[3].load_state_dict(mlp()[3].state_dict())


def load_from_above(model: nn.Module) -> None:
    outer = nn.ModuleDict({"net": model})
    outer.load_state_dict({f"net.{name}": value for name, value in mlp().state_dict().items()})


def step(model: nn.Module) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    backward(model)
    optimizer.step()


STALE = [load, load_by_assignment, load_one_layer, load_from_above, step, nn.Module.double, nn.Module.half,
         lambda model: model.to(torch.bfloat16)]  # fmt: skip


@pytest.mark.parametrize("change", STALE)
def test_a_weight_is_never_stale(change: Any) -> None:
    model = mlp()
    masks = half(model)
    attach(model, masks)
    change(model)
    assert revived(model, masks) == 0
    dtype = next(iter(model.state_dict().values())).dtype
    assert model[0].weight.dtype is dtype
    model.float()
    model.zero_grad()
    backward(model)
    assert graded(model, masks) == 0, "the gradient mask survives"
    assert sum(int(model.get_parameter(n).grad[m].count_nonzero()) for n, m in masks.items()) > 0


@pytest.mark.parametrize("how", ["swap", "overwrite", "by hand"])
def test_replaced_parameters_are_taken_over(how: str) -> None:
    model = mlp()
    masks = half(model)
    attach(model, masks)
    setting = getattr(torch.__future__, f"set_{how}_module_params_on_conversion", None)
    if setting is None:
        model[0].weight = nn.Parameter(torch.randn(8, 6))
    else:
        setting(True)
        try:
            model.double().float()
        finally:
            setting(False)
    backward(model)
    assert graded(model, masks) == 0
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    optimizer.step()
    assert revived(model, masks) == 0
    model[0].weight = nn.Parameter(torch.randn(2, 6))
    with pytest.raises(ShapeMismatch, match=r"replaced by one of shape \(2, 6\), and its mask has \(8, 6\)"):
        model(batch()[0])


def test_stock_weights_are_stale() -> None:  # negative control
    model = stock(mlp(), half(mlp()))
    model.double()
    assert model[0].weight.dtype is torch.float32
    multiplied, masks = mlp(), half(mlp())
    held = product_before_forward(multiplied, masks)
    load(multiplied)
    assert revived(multiplied, masks) > 0
    assert held


def test_order_and_optimiser_state_survive() -> None:
    model = mlp()
    names = [name for name, _ in model.named_parameters()]
    optimizer = torch.optim.Adam(model.parameters())
    backward(model)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    masks = {**half(model), "1.weight": torch.arange(8) < 4}
    attach(model, masks)
    assert [name for name, _ in model.named_parameters()] == names
    later = torch.optim.Adam(model.parameters())
    later.load_state_dict(saved)
    own = [later.state[p]["exp_avg"] for p in model.parameters()]
    assert all(torch.equal(slot, saved["state"][n]["exp_avg"]) for n, slot in enumerate(own))
    pruned = stock(mlp(), masks)
    assert [name for name, _ in pruned.named_parameters()] != names, "negative control"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("grad", [True, False])
def test_what_a_pruned_entry_stores_has_no_effect(bad: float, grad: bool) -> None:
    model, other = mlp(), mlp()
    masks = half(model)
    attach(model, masks)
    stock(other, masks)
    expected = model(batch()[0])
    for name, mask in masks.items():
        model.get_parameter(name).data[~mask] = bad
        path = name.rpartition(".")[0]
        other.get_submodule(path).weight_orig.data[~mask] = bad
    with torch.set_grad_enabled(grad):
        assert torch.equal(model(batch()[0]), expected)
    assert revived(model, masks) == 0
    assert bool(other(batch()[0]).isnan().any()), "negative control"


def test_two_forward_passes_may_wait_for_their_backward_passes() -> None:  # re-masking is no in-place error
    model = mlp()
    masks = half(model)
    attach(model, masks)
    first, second = model(batch()[0]), model(batch(seed=1)[0])
    (first.sum() + second.square().sum()).backward()
    assert graded(model, masks) == 0


def traces(model: nn.Module) -> list[Any]:
    modules = [(type(m), sorted(vars(m)), {k: len(v) for k, v in vars(m).items() if "hooks" in k}, list(m._buffers))
               for m in model.modules()]  # fmt: skip
    tensors = [(type(p), p._backward_hooks, p._post_accumulate_grad_hooks, vars(p)) for p in model.parameters()]
    return [repr(model), modules, tensors, [name for name, _ in model.named_parameters()]]


def test_detach_leaves_nothing() -> None:
    from torch.optim import optimizer as hooks

    gc.collect()
    steps.unwatch_steps()
    model = conv()
    before = traces(model), len(hooks._global_optimizer_post_hooks), len(hooks._global_optimizer_pre_hooks)
    masks = half(model)
    with attach(model, masks) as handle:
        assert repr(model) == before[0][0]
        backward(nn.Sequential(nn.Unflatten(1, (2, 6, 6)), model), batch(72))
        torch.optim.SGD(model.parameters(), 0.1).step()
        values = {name: value.clone() for name, value in model.state_dict().items()}
    assert (traces(model), len(hooks._global_optimizer_post_hooks), len(hooks._global_optimizer_pre_hooks)) == before
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    handle.detach()
    with pytest.raises(InvalidValue, match="detached"):
        handle.update(masks)
    with pytest.raises(InvalidValue, match="no masks are on this Sequential"):
        attached(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(model)
    assert attach(model, masks).masks.keys() == masks.keys()
    pruned = stock(conv(), masks)
    for name in masks:
        prune.remove(pruned.get_submodule(name.rpartition(".")[0]), "weight")
    assert traces(pruned) != before[0], "negative control: prune.remove leaves another parameter order"


def test_a_model_that_is_gone_is_forgotten() -> None:
    model = mlp()
    handle = attach(model, half(model))
    backward(model)
    copied, copy_of = copy.deepcopy(model), attached(model)
    assert copy_of is handle
    gone = [weakref.ref(thing) for thing in (model, model[0].weight, copied, handle)]
    gc.disable()
    try:
        del model, handle, copied, copy_of
        assert [ref() for ref in gone] == [None] * 4, "no cycle keeps a model alive"
    finally:
        gc.enable()


def test_pickles_carry_masks() -> None:
    model = mlp()
    masks = half(model)
    handle = attach(model, masks)
    other = pickle.loads(pickle.dumps(model))
    assert attached(other).fingerprint() == handle.fingerprint()
    step(other)
    assert revived(other, masks) == graded(other, masks) == 0
