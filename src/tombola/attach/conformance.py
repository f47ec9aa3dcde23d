"""What any way of holding masks on a module must do, checked against the pure reference."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from tombola.attach.reference import masked_call
from tombola.prune.masks import apply
from tombola.types import Masks

Adapter = Callable[[nn.Module, Masks], Any]
"""Puts masks on a module; what it returns must be kept alive, and its ``update``, ``reapply`` and ``detach`` are
checked where it has them."""

MakeOptimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]

OPTIMIZERS: Final[dict[str, MakeOptimizer]] = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.1, weight_decay=0.01),
    "SGD with momentum": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=0.01),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.1),
}
"""The rules for which training must equal the reference bit for bit."""

Batches = list[tuple[Tensor, Tensor]]


@final
@dataclass(frozen=True)
class Case:
    """A small network, its masks and its data."""

    model: nn.Module
    masks: dict[str, Tensor]
    batches: Batches

    def params(self) -> dict[str, Tensor]:
        """Copy the parameters, as leaves that take gradients."""
        return {name: p.detach().clone().requires_grad_() for name, p in self.model.named_parameters()}


def make_case(steps: int = 8, seed: int = 0) -> Case:
    """Draw a network with a norm and a bias everywhere, random masks of density 0.4, and batches with wild ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(7, 9), nn.LayerNorm(9), nn.Tanh(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3))
        masks = {name: torch.rand_like(p) < 0.4 for name, p in model.named_parameters() if p.dim() > 1}
        batches = [(torch.randn(5, 7) * 3, torch.randint(3, (5,))) for _ in range(steps)]
    return Case(model, masks, batches)


def loss(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, ten times, so that clipping to 1 acts."""
    return 10 * nn.functional.cross_entropy(output, target)


def train(model: Callable[[Tensor], Tensor], params: Iterable[Tensor], optimizer: torch.optim.Optimizer,
          batches: Batches, clip: float | None = None) -> list[float]:  # fmt: skip
    """Train in the loop everyone would write; give the gradient norms."""
    params, norms = list(params), []
    for x, y in batches:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        norms.append(float(clip_grad_norm_(params, clip or float("inf"))))
        optimizer.step()
    return norms


def reference(
    case: Case, make: MakeOptimizer, clip: float | None, dense_steps: int = 0
) -> tuple[dict[str, Tensor], list[float]]:
    """Train with masks inside the graph, after ``dense_steps`` batches without."""
    params = case.params()
    optimizer = make(params.values())
    norms = []
    phases: tuple[tuple[Masks, Batches], ...] = (
        ({}, case.batches[:dense_steps]),
        (case.masks, case.batches[dense_steps:]),
    )
    for masks, batches in phases:
        norms += train(partial(masked_call, case.model, masks, params), params.values(), optimizer, batches, clip)
    return {name: value.detach() for name, value in apply(params, case.masks).items()}, norms


def check_attach(adapter: Adapter) -> None:
    """Hold a way of putting masks on a module to what :func:`tombola.attach.attach` promises.

    Args:
        adapter: called with a model and masks, name -> bool tensor.

    Raises:
        AssertionError: with a sentence naming what broke.

    Example:
        >>> from tombola.attach import attach
        >>> check_attach(attach)
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small wait for threads and for nothing else
    try:
        for check in CHECKS:
            check(adapter)
    finally:
        torch.set_num_threads(threads)


def check_names_and_classes(adapter: Adapter) -> None:
    """The model keeps the names, the order and the classes of everything."""
    case = make_case()
    text = repr(case.model)
    names = [name for name, _ in case.model.named_parameters()]
    keys = list(case.model.state_dict())
    buffers = [name for name, _ in case.model.named_buffers()]
    held = adapter(case.model, case.masks)
    now = [name for name, _ in case.model.named_parameters()]
    assert now == names, f"the parameters are called {now} under masks, and were called {names} before"
    assert list(case.model.state_dict()) == keys, f"the state dict has keys {list(case.model.state_dict())}, not {keys}"
    assert [name for name, _ in case.model.named_buffers()] == buffers, "masks added buffers to the model"
    assert repr(case.model) == text, f"the model reads {case.model!r} under masks, and read {text} before"
    del held


def check_state_dicts(adapter: Adapter) -> None:
    """State dicts go both ways, and a loaded weight is masked at once."""
    case = make_case()
    dense = copy.deepcopy(case.model)
    held = adapter(case.model, case.masks)
    dense.load_state_dict(case.model.state_dict())
    nn.init.ones_(dense.get_parameter("0.weight"))
    case.model.load_state_dict(dense.state_dict())
    _assert_zero(case.model, case.masks, "right after load_state_dict")
    del held


def check_training(adapter: Adapter) -> None:
    """Training equals masks inside the graph, bit for bit, with and without clipping, and after a dense start."""
    for name, make in OPTIMIZERS.items():
        for clip in (None, 1.0):
            for dense_steps in (0, 4):
                where = f"{name}, clipping {'off' if clip is None else 'on'}, {dense_steps} dense steps before"
                case = make_case()
                expected, expected_norms = reference(case, make, clip, dense_steps)
                model = case.model
                optimizer = make(model.parameters())
                norms = train(model, model.parameters(), optimizer, case.batches[:dense_steps], clip)
                held = adapter(model, case.masks)
                _assert_zero(model, case.masks, f"right after the masks were put on ({where})")
                for batch in case.batches[dense_steps:]:
                    norms += train(model, model.parameters(), optimizer, [batch], clip)
                    _assert_zero(model, case.masks, f"after an optimiser step ({where})")
                assert norms == expected_norms, (
                    f"the gradient norm counts pruned entries: {norms}, by the reference {expected_norms} ({where})"
                )
                for key, value in model.named_parameters():
                    assert torch.equal(value, expected[key]), (
                        f"{key} differs from training with masks inside the graph ({where})"
                    )
                del held


def check_moments(adapter: Adapter) -> None:
    """What momentum was built up before a prune does not outlive it."""
    for name, make in list(OPTIMIZERS.items())[1:]:
        case = make_case()
        optimizer = make(case.model.parameters())
        train(case.model, case.model.parameters(), optimizer, case.batches[:4])
        held = adapter(case.model, case.masks)
        train(case.model, case.model.parameters(), optimizer, case.batches[4:5])
        for key, mask in case.masks.items():
            slots = optimizer.state[case.model.get_parameter(key)]
            alive = [
                slot for slot, v in slots.items() if isinstance(v, Tensor) and v.shape == mask.shape and v[~mask].any()
            ]
            assert not alive, (
                f"{name} still holds {', '.join(alive)} of pruned weights of {key} one step after the prune"
            )
        del held


def check_accumulation(adapter: Adapter) -> None:
    """An accumulated gradient is zero where the weight is pruned, before anyone looks at it."""
    case = make_case()
    held = adapter(case.model, case.masks)
    for x, y in case.batches[:3]:
        loss(case.model(x), y).backward()
        for key, mask in case.masks.items():
            gradient = case.model.get_parameter(key).grad
            assert gradient is not None, f"{key} gets no gradient"
            assert not gradient[~mask].any(), f"pruned weights of {key} have a gradient after backward"
            assert gradient[mask].any(), f"the weights of {key} that are left have no gradient"
    del held


def check_deep_copies(adapter: Adapter) -> None:
    """A deep copy, taken after a backward pass, trains under its own masks and leaves the original alone."""
    case = make_case()
    held = adapter(case.model, case.masks)
    x, y = case.batches[0]
    loss(case.model(x), y).backward()
    try:
        twin = copy.deepcopy(case.model)
    except RuntimeError as error:
        raise AssertionError(f"the model cannot be deep-copied after a backward pass: {error}") from error
    assert torch.equal(twin(x), case.model(x)), "a deep copy computes something else"
    before = {name: p.detach().clone() for name, p in case.model.named_parameters()}
    expected = make_case()
    finals, norms = reference(expected, OPTIMIZERS["SGD with momentum"], 1.0)
    optimizer = OPTIMIZERS["SGD with momentum"](twin.parameters())
    assert train(twin, twin.parameters(), optimizer, case.batches, 1.0) == norms, "a deep copy loses its gradient masks"
    _assert_zero(twin, case.masks, "in a deep copy that was trained")
    for name, value in twin.named_parameters():
        assert torch.equal(value, finals[name]), f"{name} of a deep copy trains differently from its original"
    for name, value in case.model.named_parameters():
        assert torch.equal(value, before[name]), f"training a deep copy changed {name} of the original"
    del held


class _Restless(torch.optim.SGD):
    """Moves every weight whatever its gradient, as Muon does and as noise does."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            for param in group["params"]:
                param.add_(0.01)


def check_restless_rules(adapter: Adapter) -> None:
    """A pruned weight is zero right after a step that moved it, in the model and in a deep copy."""
    case = make_case()
    held = adapter(case.model, case.masks)
    for model, which in ((case.model, "the model"), (copy.deepcopy(case.model), "a deep copy")):
        optimizer = _Restless(model.parameters(), 0.1)
        loss(model(case.batches[0][0]), case.batches[0][1]).backward()
        optimizer.step()
        _assert_zero(model, case.masks, f"after a step of a rule that moves every weight, in {which}")
    del held


def check_what_is_stored(adapter: Adapter) -> None:
    """NaN and Inf in pruned entries have no effect."""
    case = make_case()
    x, _ = case.batches[0]
    held = adapter(case.model, case.masks)
    expected = case.model(x)
    for name, mask in case.masks.items():
        case.model.get_parameter(name).data[~mask] = float("nan") if name == "0.weight" else float("inf")
    found = case.model(x)
    assert bool(found.isfinite().all()), "NaN or Inf stored in a pruned entry reaches the output"
    assert torch.equal(found, expected), "what is stored in a pruned entry changes the output"
    del held


def check_tied_weights(adapter: Adapter) -> None:
    """Tied weights stay tied, under one mask."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.embed(x))

    model = Tied()
    mask = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    held = adapter(model, {"embed.weight": mask})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss(model(torch.arange(6)), torch.arange(6)).backward()
        optimizer.step()
    assert model.embed.weight is model.out.weight, "tied weights came apart"
    assert not model.out.weight[~mask].any(), "pruned weights of a tied parameter are not zero after a step"
    del held


def check_handle(adapter: Adapter) -> None:
    """Where there is an ``update`` it takes effect at once, and ``detach`` leaves no trace."""
    case = make_case()
    before = _traces(case.model)
    held = adapter(case.model, case.masks)
    fewer = {
        name: mask & (torch.arange(mask.numel()).reshape(mask.shape) % 2 == 0) for name, mask in case.masks.items()
    }
    if hasattr(held, "update"):
        held.update(fewer)
        _assert_zero(case.model, fewer, "right after update")
        train(case.model, case.model.parameters(), OPTIMIZERS["Adam"](case.model.parameters()), case.batches)
        _assert_zero(case.model, fewer, "after training under updated masks")
    if hasattr(held, "detach"):
        held.detach()
        assert _traces(case.model) == before, "detach leaves hooks or attributes behind"
        train(case.model, case.model.parameters(), OPTIMIZERS["SGD"](case.model.parameters()), case.batches[:1])
        assert any(case.model.get_parameter(n)[~m].any() for n, m in case.masks.items()), "masks act after detach"


CHECKS: Final = (
    check_names_and_classes, check_state_dicts, check_accumulation, check_training, check_moments, check_deep_copies,
    check_what_is_stored, check_restless_rules, check_tied_weights, check_handle,
)  # fmt: skip
"""Every check, cheap and telling ones first."""


def _assert_zero(model: nn.Module, masks: Masks, when: str) -> None:
    for name, mask in masks.items():
        path, _, attribute = name.rpartition(".")
        weight = getattr(model.get_submodule(path), attribute)
        alive = int((weight[~mask] != 0).sum())
        assert not alive, f"{alive} of {int((~mask).sum())} pruned weights of {name} are not zero {when}"


def _traces(model: nn.Module) -> list[Any]:
    """Give everything about a module that masks might leave behind."""
    hooks = [
        (name, len(value)) for part in model.modules() for name, value in vars(part).items() if name.endswith("_hooks")
    ]
    attributes = [(type(part), sorted(vars(part)), list(part._buffers)) for part in model.modules()]
    tensors = [(p._backward_hooks, p._post_accumulate_grad_hooks, vars(p)) for p in model.parameters()]
    return [repr(model), hooks, attributes, tensors, [name for name, _ in model.named_parameters()]]
