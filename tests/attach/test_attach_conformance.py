"""``attach`` equals the reference, and every planted fault is caught by the check that is there for it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attach_kit import gradient_hooks, product_before_forward, stock
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.optimizer import register_optimizer_step_post_hook

from tombola.attach import Attached, attach, conformance, handle, steps
from tombola.attach.conformance import CHECKS, OPTIMIZERS, check_attach, make_case, reference, train
from tombola.attach.pinned import Pinned
from tombola.types import Masks


@pytest.mark.parametrize("check", CHECKS)
def test_attach_conforms(check: Callable[[Any], None]) -> None:
    check(attach)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_muon_equals_the_reference(clip: float | None) -> None:
    case = make_case()
    model = nn.Sequential(nn.Linear(7, 9, bias=False), nn.Tanh(), nn.Linear(9, 3, bias=False))
    masks = {"0.weight": case.masks["0.weight"], "2.weight": torch.rand(3, 9) < 0.5}
    small = conformance.Case(model, masks, case.batches)
    expected, norms = reference(small, lambda p: torch.optim.Muon(p, 0.1), clip)
    attach(model, masks)
    assert train(model, model.parameters(), torch.optim.Muon(model.parameters(), 0.1), case.batches, clip) == norms
    assert all(torch.equal(p, expected[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_the_product_before_forward_differs_under_clipping(rule: str) -> None:  # negative control
    case = make_case()
    expected, _ = reference(case, OPTIMIZERS[rule], 1.0)
    held = product_before_forward(case.model, case.masks)
    train(case.model, case.model.parameters(), OPTIMIZERS[rule](case.model.parameters()), case.batches, 1.0)
    gap = max(
        float((p.detach() - expected[n])[case.masks.get(n, ...)].abs().max()) for n, p in case.model.named_parameters()
    )
    assert gap > 1e-4
    assert held


class Where(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, torch.zeros(()))


def parametrised(model: nn.Module, masks: Masks) -> object:
    for name, mask in masks.items():
        path, _, attribute = name.rpartition(".")
        parametrize.register_parametrization(model.get_submodule(path), attribute, Where(mask))
    return model


def closures(model: nn.Module, masks: Masks) -> object:
    """All that ``attach`` does, with the parameters held in closures."""
    pairs = [(model.get_parameter(name), mask) for name, mask in masks.items()]

    def clean(*_: object) -> None:
        for param, mask in pairs:
            param.data[~mask] = 0

    clean()
    held: list[Any] = [p.register_hook(lambda g, m=m: torch.where(m, g, torch.zeros(()))) for p, m in pairs]
    held.append(register_optimizer_step_post_hook(clean))
    held.append(model.register_load_state_dict_post_hook(clean))
    held.append(model.register_forward_pre_hook(clean))
    return held


def with_buffers(model: nn.Module, masks: Masks) -> object:
    for name, mask in masks.items():
        path, _, attribute = name.rpartition(".")
        model.get_submodule(path).register_buffer(f"{attribute}_mask", mask, persistent=False)
    return attach(model, masks)


def untying(model: nn.Module, masks: Masks) -> object:
    if "embed.weight" in masks:
        model.out.weight = nn.Parameter(model.out.weight.detach().clone())
    return attach(model, masks)


FAULTS: dict[str, tuple[Callable[..., Any], str]] = {
    "closures over parameters": (closures, "still holds momentum_buffer"),
    "hooks on tensors only": (gradient_hooks, "right after load_state_dict"),
    "a product before every forward pass": (product_before_forward, "right after load_state_dict"),
    "a parametrisation": (parametrised, "the parameters are called"),
    "torch.nn.utils.prune": (stock, "the parameters are called"),
    "masks as buffers": (with_buffers, "masks added buffers"),
    "ties cut": (untying, "tied weights came apart"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_adapters_are_caught(fault: str) -> None:
    adapter, sentence = FAULTS[fault]
    kept: list[Any] = []
    try:
        with pytest.raises(AssertionError, match=sentence):
            check_attach(lambda model, masks: kept.append(adapter(model, masks)))
    finally:
        for held in kept:
            for hook in held if isinstance(held, list) else ():
                hook.remove()


def test_closures_over_parameters_serve_the_original_only() -> None:
    kept: list[Any] = []
    with pytest.raises(AssertionError, match="a deep copy loses its gradient masks"):
        conformance.check_deep_copies(lambda model, masks: kept.append(closures(model, masks)))
    for hook in kept[0]:
        hook.remove()


def multiplied(self: Pinned, tensor: Tensor) -> None:
    tensor.mul_(self.mask)


def nothing(*_: object) -> None:
    pass


def in_new_tensor(self: Attached, new_masks: Masks) -> None:
    """Change the masks and not the weights."""
    for name, pinned in self._pins().items():
        pinned.change(new_masks[name])


def half_detached(self: Attached) -> None:
    """Leave the hooks on tensors."""
    del self.model.__dict__["_tombola_attached"]


@pytest.mark.parametrize(
    ("where", "name", "fault", "sentence"),
    [
        (Pinned, "clean", multiplied, "NaN or Inf stored in a pruned entry reaches the output"),
        (Pinned, "clean_gradient", nothing, "have a gradient after backward"),
        (Pinned, "ensure_hook", nothing, "have a gradient after backward"),
        (Pinned, "__reduce__", None, "moves every weight, in a deep copy"),
        (steps, "_pinned_in", lambda _: [], "are not zero after an optimiser step"),
        (steps, "_clean_moments", nothing, "are not zero after an optimiser step .SGD with momentum"),
        (handle, "_after_load", nothing, "right after load_state_dict"),
        (handle, "_before_forward", nothing, "NaN or Inf stored"),
        (Attached, "update", in_new_tensor, "right after update"),
        (Attached, "detach", half_detached, "detach leaves hooks or attributes behind"),
    ],
)
def test_faults_planted_in_ours_are_caught(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, fault: Any, sentence: str
) -> None:
    if fault is None:
        monkeypatch.delattr(where, name)  # hooks and masks are then copied as they are
    else:
        monkeypatch.setattr(where, name, fault)
    with pytest.raises(Exception, match=sentence):
        check_attach(attach)


@pytest.mark.parametrize("adapter", [gradient_hooks, product_before_forward])
def test_only_a_look_at_every_step_stops_a_restless_rule(adapter: Any) -> None:  # negative control
    with pytest.raises(AssertionError, match="moves every weight, in the model"):
        conformance.check_restless_rules(adapter)
