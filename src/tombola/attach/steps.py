"""What happens around every optimiser step: moments and gradients before it, weights after it."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from tombola.attach.pinned import Pinned, anything_pinned, pinned_by


@final
@dataclass
class _Seen:
    """What an optimiser's moments were last cleaned for.

    Attributes:
        state: the dictionary of its moments; loading a state dict makes another.
        masks: ``id(parameter)`` -> the mask; kept, so that an id cannot come back with another mask.
    """

    state: Any
    masks: dict[int, Tensor] = field(default_factory=dict)


_SEEN: Final[weakref.WeakKeyDictionary[Optimizer, _Seen]] = weakref.WeakKeyDictionary()
_KEEP_ZEROS: Final = frozenset({
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax,
    torch.optim.Adadelta, torch.optim.Adagrad, torch.optim.RMSprop, torch.optim.Rprop, torch.optim.ASGD,
})  # fmt: skip
"""Rules that treat every entry alone: a zero with zero gradient and zero moments stays zero, exactly. One pass over the
weights less. Not Muon, whose update mixes the entries of a matrix, nor LBFGS and Adafactor."""

_ROOTS: Final = frozenset({torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam})
"""Rules that divide by the root of ``exp_avg_sq``. The root of zero takes five times as long as that of another number
in the Intel library that torch has on x86, so that a step of Adam under a mask would take half as long again. During a
step the pruned entries are therefore not zero there; what they divide is."""

_HOOKS: Final[list[RemovableHandle]] = []


def pin(param: nn.Parameter, mask: Tensor) -> Pinned:
    """Hold a mask on a parameter, and look at every step of every optimiser of this process, made before or after."""
    if not _HOOKS:
        _HOOKS.append(register_optimizer_step_pre_hook(_before_step))
        _HOOKS.append(register_optimizer_step_post_hook(_after_step))
    return Pinned(param, mask)


def unwatch_steps() -> None:
    """Stop looking, if nothing is pinned any more."""
    if not anything_pinned():
        while _HOOKS:
            _HOOKS.pop().remove()


def _pinned_in(optimizer: Optimizer) -> list[Pinned]:
    every = [pinned_by(param) for group in optimizer.param_groups for param in group["params"]]
    return [pinned for pinned in every if pinned is not None]


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    found = _pinned_in(optimizer)
    if not found:
        return
    seen = _SEEN.get(optimizer)
    if seen is None or seen.state is not optimizer.state:
        seen = _SEEN[optimizer] = _Seen(optimizer.state)
    stale = [pinned for pinned in found if seen.masks.get(id(pinned.param)) is not pinned.mask]
    if stale and isinstance(optimizer, torch.optim.LBFGS):
        _forget_other_functions(optimizer)
    for pinned in stale:
        _clean_moments(optimizer, pinned, seen.masks.get(id(pinned.param)))
        seen.masks[id(pinned.param)] = pinned.mask
    for pinned in found:
        pinned.ensure_hook()
        # Masked at accumulation already, unless somebody assigned the gradient or added noise to it.
        pinned.clean_changed_gradient()
    # A closure may fail, or look at the moments.
    if len(args) < 2 and not kwargs:
        for pinned, squares in _squares(optimizer):
            pinned.fill(squares)


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG001
    for pinned, squares in _squares(optimizer):
        pinned.clean(squares)
    # Subclasses may do more than their parent, so only torch's own classes are taken at their word.
    if type(optimizer) not in _KEEP_ZEROS:
        for pinned in _pinned_in(optimizer):
            pinned.clean_weight()


def _squares(optimizer: Optimizer) -> Iterator[tuple[Pinned, Tensor]]:
    """Find the second moments, on the CPU, whose roots are taken one tensor at a time."""
    if type(optimizer) not in _ROOTS or not torch.backends.mkl.is_available():
        return
    for group in optimizer.param_groups:
        if group.get("fused") or group.get("amsgrad") or group.get("differentiable"):
            continue
        for param in group["params"]:
            pinned = pinned_by(param)
            squares = optimizer.state.get(param, {}).get("exp_avg_sq") if pinned is not None else None
            if pinned is not None and squares is not None and squares.device.type == "cpu":
                yield pinned, squares.data


def _clean_moments(optimizer: Optimizer, pinned: Pinned, before: Tensor | None) -> None:
    """Zero the moments of what is pruned now, and of what was pruned before and grows again (RigL, SET)."""
    grown = None
    if before is not None and before.shape == pinned.mask.shape:
        grown = pinned.mask & ~before.to(pinned.mask.device)
    for value in optimizer.state.get(pinned.param, {}).values():
        if isinstance(value, Tensor) and value.dim() and value.shape == pinned.param.shape:
            pinned.clean(value.data)
            if grown is not None:
                value.data.masked_fill_(grown.to(value.device), 0)


def _forget_other_functions(optimizer: Optimizer) -> None:
    """Drop LBFGS's history if it was gathered without this mask: its curvature is that of another function."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    masks = [(pinned_by(param), param) for param in params]
    dead = torch.cat([
        torch.zeros(param.numel(), dtype=torch.bool) if pinned is None else ~pinned.mask.cpu().reshape(-1)
        for pinned, param in masks
    ])  # fmt: skip
    for state in optimizer.state.values():
        vectors = [state.get("d"), state.get("prev_flat_grad"), *(state.get("old_dirs") or ())]
        if any(isinstance(v, Tensor) and bool(v.cpu()[dead].any()) for v in vectors):
            state.clear()
