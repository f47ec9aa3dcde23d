"""A ticket's values into a network that is already there."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.models.state import state_buffers
from tombola.types import Masks, Params

_SHOWN = 6


def adopt(model: nn.Module, start: Params, masks: Masks, buffers: Params, origin: str) -> dict[str, Tensor]:
    """Copy a ticket's values into ``model``, in place, and give its masks; :meth:`Ticket.apply_to` says the rest.

    Everything is looked at before anything is copied.

    Args:
        model: any network.
        start: parameter name -> values, zero where pruned.
        masks: parameter name -> bool tensor.
        buffers: buffer name -> tensor.
        origin: the network that the ticket was found on, for messages.
    """
    every = dict(model.named_parameters(remove_duplicate=False))
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    chosen = _untie({name: first[id(parameter)] for name, parameter in every.items()}, start, masks)
    own_buffers = state_buffers(model)
    _compare("parameter", dict(model.named_parameters()), {own: start[name] for own, name in chosen.items()}, origin)
    _compare("buffer", own_buffers, buffers, origin)
    with torch.no_grad():
        for own, name in chosen.items():
            every[own].copy_(start[name])
        for name, value in buffers.items():
            own_buffers[name].copy_(value)
    return {own: masks[name].to(every[own].device, copy=True) for own, name in chosen.items() if name in masks}


def _untie(first: Mapping[str, str], start: Params, masks: Masks) -> dict[str, str]:
    """Give the network's first name of each tensor -> the ticket's name of it.

    A tied parameter has several names in the network, and the ticket may use any of them, or all.
    """
    chosen: dict[str, str] = {}
    for name, value in start.items():
        own = first.get(name, name)
        before = chosen.setdefault(own, name)
        if before != name and not (_equal(start[before], value) and _equal(masks.get(before), masks.get(name))):
            raise ShapeMismatch(
                f"{before!r} and {name!r} are one tied parameter of this network, and the ticket has different values "
                "or masks for the two. A tied parameter has one of each; give a network in which they are not tied."
            )
    return chosen


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else a.dtype == b.dtype and torch.equal(a, b)


def _compare(kind: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor], origin: str) -> None:
    """Raise unless the network takes exactly these tensors."""
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or extra:
        found = " and ".join(
            f"{what} {_listed(names)}"
            for what, names in ((f"the network's {kind}", missing), (f"a further {kind}", extra))
            if names
        )
        has = f"lacks {found}" if missing and not extra else f"has {found}" if not missing else f"differs in {found}"
        raise ShapeMismatch(
            f"the ticket {has}. A ticket fits a network whose {kind}s have the same names, all of them. This one was "
            f"found on {origin}; give that network, or see `tombola ticket show PATH` for its tensors."
        )
    for name, value in given.items():
        if is_lazy(own[name]) or own[name].is_meta:
            raise InvalidValue(
                f"{kind} {name!r} of the network has no values yet: it is lazy or on the meta device. Run one example "
                "through the network, or build it on a device."
            )
        if own[name].shape != value.shape:
            raise ShapeMismatch(
                f"{kind} {name!r} has shape {tuple(value.shape)} in the ticket and {tuple(own[name].shape)} in the "
                f"network. They must be equal. The ticket was found on {origin}; give that network, or see `tombola "
                "ticket show PATH` for its shapes."
            )
        if not torch.can_cast(value.dtype, own[name].dtype):
            raise InvalidValue(
                f"{kind} {name!r} is {value.dtype} in the ticket and {own[name].dtype} in the network, which cannot "
                "hold its values. Convert the network."
            )


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(map(repr, every[:_SHOWN])) + more
