"""Optimiser hygiene: pruned weights stay at zero whatever was built up before, and nothing global sees them."""

import copy
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from attach_kit import backward, batch, graded, gradient_hooks, half, mlp, product_before_forward, revived, train
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, prune

from tombola.attach import attach, attached
from tombola.attach.pinned import Pinned

optim = torch.optim


class Lion(optim.Optimizer):
    """A rule that torch does not have: the sign of an interpolation, decoupled decay."""

    def __init__(self, params: Iterable[nn.Parameter]) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # noqa: ARG002
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.mul_(0.99).sub_(m.lerp(p.grad, 0.1).sign(), alpha=0.01)
                m.lerp_(p.grad, 0.01)


class Noisy(optim.SGD):
    """Adds noise to gradients, as private training does, and to weights."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # noqa: ARG002
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(torch.randn_like(p), alpha=0.01)


RULES: dict[str, Callable[[Iterable[nn.Parameter]], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    "sgd nesterov foreach": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, foreach=True),
    "sgd fused": lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "adam": lambda p: optim.Adam(p, 0.01, weight_decay=0.1),
    "adam amsgrad": lambda p: optim.Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, 0.01, weight_decay=0.1),
    "adamw foreach": lambda p: optim.AdamW(p, 0.01, foreach=True),
    "adamw fused": lambda p: optim.AdamW(p, 0.01, fused=True),
    "nadam": lambda p: optim.NAdam(p, 0.01),
    "radam": lambda p: optim.RAdam(p, 0.01),
    "adamax": lambda p: optim.Adamax(p, 0.01),
    "adadelta": lambda p: optim.Adadelta(p, 1.0),
    "adagrad": lambda p: optim.Adagrad(p, 0.1, initial_accumulator_value=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "rprop": lambda p: optim.Rprop(p, 0.01),
    "asgd": lambda p: optim.ASGD(p, 0.1),
    "adafactor": lambda p: optim.Adafactor(p, 0.01),
    "lbfgs": lambda p: optim.LBFGS(p, 0.1, max_iter=3),
    "lbfgs wolfe": lambda p: optim.LBFGS(p, max_iter=4, line_search_fn="strong_wolfe"),
    "lion": Lion,
    "noisy": lambda p: Noisy(p, 0.1, momentum=0.9),
}


@pytest.mark.parametrize("before", [True, False], ids=["made before", "made after"])
@pytest.mark.parametrize("rule", RULES)
def test_pruned_weights_stay_at_zero(rule: str, before: bool) -> None:
    model = mlp()
    optimizer = RULES[rule](model.parameters())
    train(model, optimizer, 5)
    masks = half(model)
    held = optimizer.state_dict()
    with attach(model, masks):
        if not before:
            optimizer = RULES[rule](model.parameters())
            optimizer.load_state_dict(held)
        train(model, optimizer, 100 if "lbfgs" not in rule else 20, after=lambda: _all_zero(model, masks))
        assert all(model.get_parameter(name)[mask].any() for name, mask in masks.items())
        for name, mask in masks.items():
            for slot, value in optimizer.state[model.get_parameter(name)].items():
                fits = isinstance(value, Tensor) and value.shape == mask.shape
                # Adamax keeps at least its eps and Rprop at least its smallest step size, as for any zero gradient.
                assert not fits or value[~mask].abs().max() <= 1e-6, slot


def _all_zero(model: nn.Module, masks: Any) -> None:
    assert revived(model, masks) == 0


def test_muon_too() -> None:
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))
    masks = half(model)
    optimizer = optim.Muon(model.parameters(), 0.1)
    train(model, optimizer, 5)
    alone = copy.deepcopy(model)
    held = gradient_hooks(alone, masks)
    train(alone, optim.Muon(alone.parameters(), 0.1), 2)
    assert held
    assert revived(alone, masks) > 0, "negative control: a masked gradient is not enough"
    attach(model, masks)
    train(model, optimizer, 100, after=lambda: _all_zero(model, masks))
    for name, mask in masks.items():
        assert not optimizer.state[model.get_parameter(name)]["momentum_buffer"][~mask].any()


@pytest.mark.parametrize("rule", ["sgd", "adam", "adamw"])
def test_stock_tools_revive_pruned_weights(rule: str) -> None:  # negative control
    model = mlp()
    optimizer = RULES[rule](model.parameters())
    train(model, optimizer, 5)
    masks = half(model)
    hooked = copy.deepcopy(model)
    later = RULES[rule](hooked.parameters())
    later.load_state_dict(optimizer.state_dict())
    held = gradient_hooks(hooked, masks)
    train(hooked, later, 1)
    assert revived(hooked, masks) > 0.9 * sum(int((~mask).sum()) for mask in masks.values())
    for name, mask in masks.items():
        module = model.get_submodule(name.rpartition(".")[0])
        prune.custom_from_mask(module, "weight", mask)
        prune.remove(module, "weight")
    train(model, optimizer, 1)
    assert revived(model, masks) > 0
    assert held


class Handmade:
    """No ``torch.optim.Optimizer``: heavy-ball steps on ``data``."""

    def __init__(self, model: nn.Module) -> None:
        self.params, self.buffers = list(model.parameters()), [torch.randn_like(p) for p in model.parameters()]

    def step(self) -> None:
        for p, buffer in zip(self.params, self.buffers, strict=True):
            p.data -= 0.1 * buffer.mul_(0.9).add_(p.grad)


def test_a_foreign_optimiser_takes_one_call() -> None:
    model = mlp()
    masks = half(model)
    handle, optimizer = attach(model, masks), Handmade(model)
    for step in range(100):
        model.zero_grad()
        backward(model, batch(seed=step))
        optimizer.step()
        assert step or revived(model, masks) > 0, "nobody sees a foreign step"
        handle.reapply()
        assert revived(model, masks) == 0


def test_moments_of_an_optimiser_state_loaded_later_are_erased() -> None:
    model = mlp()
    optimizer = optim.Adam(model.parameters(), 0.01)
    train(model, optimizer, 5)
    dense = copy.deepcopy(optimizer.state_dict())
    masks = half(model)
    attach(model, masks)
    train(model, optimizer, 1)
    optimizer.load_state_dict(dense)
    train(model, optimizer, 1)
    assert not any(optimizer.state[model.get_parameter(n)]["exp_avg"][~m].any() for n, m in masks.items())


FILLED = {"adam": 2, "adamw": 2, "adamw foreach": 2, "nadam": 2, "radam": 2, "adam amsgrad": 0, "adamw fused": 0}


@pytest.mark.parametrize("rule", FILLED)
def test_no_roots_of_zeros_are_taken_and_nobody_sees_it(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Second moments are filled in for the time of a step where the root of zero is slow; by hand it is the same."""
    model, plain = mlp(), mlp()
    masks = half(model)
    attach(model, masks)
    plain.load_state_dict(model.state_dict())
    filled = []
    real = Pinned.fill
    monkeypatch.setattr(Pinned, "fill", lambda self, squares: (real(self, squares), filled.append(squares.clone())))
    ours, by_hand = RULES[rule](model.parameters()), RULES[rule](plain.parameters())
    for step in range(3):
        train(model, ours, 1)
        by_hand.zero_grad()
        backward(plain, batch())
        for name, mask in masks.items():
            plain.get_parameter(name).grad.mul_(mask)
        by_hand.step()
        for (name, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
            assert torch.equal(a, b), f"{name} after step {step}"
            assert all(torch.equal(value, by_hand.state[b][slot]) for slot, value in ours.state[a].items())
    # The first step of all makes the moments.
    assert len(filled) == (2 * FILLED[rule] if torch.backends.mkl.is_available() else 0)
    for squares, mask in zip(filled, 2 * list(masks.values()), strict=False):
        assert (squares[~mask] >= 1).all()
        assert (squares[mask] < 1).all()


def test_with_a_closure_moments_are_left_alone() -> None:
    model = mlp()
    masks = half(model)
    attach(model, masks)
    optimizer = optim.Adam(model.parameters(), 0.01)
    train(model, optimizer, 1)

    def closure() -> None:
        for name, mask in masks.items():
            assert not optimizer.state[model.get_parameter(name)]["exp_avg_sq"][~mask].any()
        raise KeyError("a closure that fails")

    with pytest.raises(KeyError):
        optimizer.step(closure)
    assert all(not optimizer.state[model.get_parameter(n)]["exp_avg_sq"][~m].any() for n, m in masks.items())


def test_weight_decay_neither_moves_nor_counts() -> None:
    model, plain = mlp(), mlp()
    masks = half(model)
    prune.custom_from_mask(plain[0], "weight", masks["0.weight"])
    before = plain[0].weight_orig.detach().clone()
    attach(model, masks)
    for net in (model, plain):
        train(net, optim.AdamW(net.parameters(), 0.01, weight_decay=0.1), 3)
    assert revived(model, masks) == 0
    moved = (plain[0].weight_orig != before)[~masks["0.weight"]]
    assert moved.all(), "negative control: AdamW moves what is stored"


def test_gradient_norms_count_what_is_alive() -> None:
    model, plain = mlp(), mlp()
    masks = half(model)
    attach(model, masks)
    held = product_before_forward(plain, masks)
    for net in (model, plain):
        backward(net, scale=10)
    alive = [p.grad[masks[n]] if n in masks else p.grad.reshape(-1) for n, p in model.named_parameters()]
    by_hand = torch.cat(alive).double().square().sum().sqrt()
    found = clip_grad_norm_(model.parameters(), 1.0)
    assert torch.allclose(found.double(), by_hand, rtol=1e-6)
    assert clip_grad_norm_(plain.parameters(), 1.0) > 1.01 * found, "negative control"
    clip_grad_value_(model.parameters(), 1e-3)
    assert graded(model, masks) == 0
    assert held


def test_exactly_the_alive_weights_train() -> None:
    for density in (1.0, 0.5):
        model = mlp()
        masks = half(model, density=density)
        attach(model, masks)
        before = {n: model.get_parameter(n).detach().clone() for n in masks}
        backward(model, scale=100)
        gradients = {n: model.get_parameter(n).grad.clone() for n in masks}
        optim.SGD(model.parameters(), 0.1).step()
        for name, mask in masks.items():
            moved = model.get_parameter(name) != before[name]
            assert torch.equal(moved, gradients[name] != 0)
            assert not moved[~mask].any()
            assert (moved & (before[name] < 0)).any()


def test_bfloat16_autocast() -> None:
    model = mlp()
    masks = half(model)
    handle = attach(model, masks)
    optimizer = optim.AdamW(model.parameters(), 0.01)
    for step in range(5):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            x, y = batch(seed=step)
            loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        assert graded(model, masks) == 0
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        assert revived(model, masks) == 0
    assert all(torch.equal(mask, masks[name]) for name, mask in handle.masks.items())


def _scaled_steps(device: str) -> None:
    model = mlp().to(device)
    masks = half(model)
    attach(model, masks)
    optimizer, scaler = (
        optim.SGD(model.parameters(), 0.1, momentum=0.9),
        torch.amp.GradScaler(device, init_scale=2.0**4),
    )
    before = model[0].weight.detach().clone()
    for step in range(4):
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):
            x, y = (part.to(device) for part in batch(seed=step))
            loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        if step == 0:
            model[0].bias.grad[0] = float("inf")
        scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        assert step or torch.equal(model[0].weight, before), "the step was skipped"
        assert revived(model, masks) == graded(model, masks) == 0
    assert not torch.equal(model[0].weight, before)


def test_a_scaled_step_that_is_skipped() -> None:
    _scaled_steps("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_float16_on_a_gpu() -> None:
    _scaled_steps("cuda")


def test_accumulation_equals_one_big_batch() -> None:
    whole, parts = mlp(), mlp()
    masks = half(whole)
    x, y = batch(size=16)
    for net in (whole, parts):
        attach(net, masks)
    for _ in range(3):
        for net, size in ((whole, 16), (parts, 4)):
            optimizer = optim.SGD(net.parameters(), 0.1)
            net.zero_grad()
            for at in range(0, 16, size):
                backward(net, (x[at : at + size], y[at : at + size]), scale=size / 16)
                assert graded(net, masks) == 0
            optimizer.step()
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6, rtol=0)


def test_a_weight_that_grows_again_has_no_past() -> None:
    model = mlp()
    masks = half(model)
    optimizer = optim.Adam(model.parameters(), 0.01)
    train(model, optimizer, 3)
    handle = attach(model, masks)
    train(model, optimizer, 3)
    new = half(model, seed=9)
    moments = optimizer.state[model[0].weight]["exp_avg"]
    moments.data[~masks["0.weight"]] = 7.0  # what a careless rule left there
    handle.update(new)
    grown = new["0.weight"] & ~masks["0.weight"]
    assert not model[0].weight[grown].any(), "grown weights start at zero"
    model.zero_grad()
    backward(model)
    gradient = model[0].weight.grad.clone()
    optimizer.step()
    moments = optimizer.state[model[0].weight]["exp_avg"]
    assert torch.allclose(moments[grown], 0.1 * gradient[grown])
    assert not moments[~new["0.weight"]].any()
    assert model[0].weight[grown].any()
    assert revived(model, new) == 0


def test_update_may_add_and_free_tensors() -> None:
    model = mlp()
    masks = half(model)
    handle = attach(model, {"0.weight": masks["0.weight"]})
    handle.update({"3.weight": masks["3.weight"]})
    assert list(handle.masks) == ["3.weight"]
    train(model, optim.SGD(model.parameters(), 0.1), 2)
    assert model[0].weight.all()
    assert revived(model, {"3.weight": masks["3.weight"]}) == 0
    assert model[0].weight._post_accumulate_grad_hooks is None
    assert attached(model) is handle


def test_the_dense_gradient_can_still_be_asked_for() -> None:  # what RigL grows by
    model = mlp()
    masks = half(model)
    attach(model, masks)
    x, y = batch()
    (dense,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), [model[0].weight])
    assert dense[~masks["0.weight"]].any()


def test_gradients_that_are_not_dense_tensors() -> None:
    model = nn.Embedding(5, 3, sparse=True)
    mask = torch.rand(5, 3) < 0.5
    attach(model, {"weight": mask})
    (model(torch.tensor([1, 1, 4])).sum(0) * torch.arange(1.0, 4)).sum().backward()
    assert model.weight.grad.is_sparse
    assert not model.weight.grad.to_dense()[~mask].any()
    assert model.weight.grad.to_dense()[1][mask[1]].all()
    optim.SparseAdam(model.parameters()).step()
    assert revived(model, {"weight": mask}) == 0
    twice = mlp()
    masks = half(twice)
    attach(twice, masks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        twice(batch()[0]).square().sum().backward(create_graph=True)
    assert twice[0].weight.grad.grad_fn is not None
    assert graded(twice, masks) == 0
    twice.zero_grad()  # a gradient with a graph keeps its parameter alive


def test_frozen_parameters_are_masked_and_may_be_thawed() -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    masks = half(model)
    attach(model, masks)
    backward(model)
    assert model[0].weight.grad is None
    model[0].weight.requires_grad_(True)
    model.zero_grad()
    backward(model)
    assert graded(model, masks) == revived(model, masks) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64])
def test_cleaning_gives_plus_zero_and_leaves_the_rest(dtype: torch.dtype) -> None:
    bad = torch.tensor([float("nan"), float("inf"), -float("inf"), -1.0, -0.0, -3.0, 2.0, -0.0]).to(dtype)
    mask = torch.arange(8) >= 5
    param = nn.Parameter(bad.reshape(2, 4).T)
    pinned = Pinned(param, mask.reshape(2, 4).T)
    pinned.clean_weight()
    found = torch.view_as_real(param.T.reshape(8)).select(-1, 0) if dtype.is_complex else param.T.reshape(8)
    assert found.tolist() == [0.0, 0.0, 0.0, 0.0, 0.0, -3.0, 2.0, 0.0]
    assert found.signbit().tolist() == [False] * 5 + [True, False, True]
