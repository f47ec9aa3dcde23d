"""The units of a network: neurons, channels and heads, with every tensor entry that dies with one."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from tombola.errors import InvalidValue, TombolaError, UnknownName
from tombola.models.spaces import Spaces
from tombola.models.start import DRAWING
from tombola.models.tracing import Streams
from tombola.prune.structure import Group, Slice
from tombola.prune.structure.places import by_axis

_BY_HAND: Final = "Write the groups by hand (tombola.prune.structure.Group), or prune single weights, N:M or blocks"


def groups(module: nn.Module, kind: str, example: Tensor | None = None) -> tuple[Group, ...]:
    """Find the units of a kind.

    Args:
        module: any network.
        kind: ``neurons`` (channels of convolutions too) or ``heads``.
        example: inputs of the network, ``[batch, ...]``; needed for ``neurons``.

    Raises:
        UnknownName: no such kind.
        InvalidValue: see :func:`units` and :func:`heads`; or there is no example.
    """
    if kind == "heads":
        return heads(module)
    if kind != "neurons":
        raise UnknownName.among("kind of unit", kind, ("neurons", "heads"))
    if example is None:
        raise InvalidValue(
            "neurons are found by running an input through the network, and none is known. Give data or an example."
        )
    return units(module, example)


def units(module: nn.Module, example: Tensor) -> tuple[Group, ...]:
    """Find the neurons and channels that can be pruned whole, by following them through the network.

    Units that meet in a sum, as in a residual stream, are one group (Li et al. 2017, section 3.3). Inputs and outputs
    of the network stay, and so do units whose values a layer mixes: layer norm and group norm (their mean would still
    count the dead), softmax, grouped convolutions that are not depthwise, attention, concatenation, matrix products.
    What is found is then checked on the example: with their readers at zero, dead units make no difference.

    Args:
        module: any network that ``torch.fx`` can follow; it is copied, and neither written to nor changed in mode.
        example: inputs, ``[batch, ...]``.

    Returns:
        the groups, in the order in which the network makes them, each called after the layer that does; none of size 1.

    Raises:
        InvalidValue: the network cannot be followed, or holds a layer that is not known; or nothing can be pruned.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> [(group.name, group.size, len(group.slices)) for group in units(net, torch.zeros(1, 4))]
        [('0', 3, 3)]
    """
    # While one thread traces, torch has every module's call go through the tracer, whichever thread calls it.
    with DRAWING:
        return _units(module, example)


def heads(module: nn.Module) -> tuple[Group, ...]:
    """Find the heads of every ``nn.MultiheadAttention``.

    Head ``h`` is its rows in the projections of query, key and value, and its columns in the output projection
    (Michel et al. 2019, section 2).

    Args:
        module: any network.

    Returns:
        one group for each attention layer, called by its path (``attention`` for the network itself).

    Raises:
        InvalidValue: there are none; or one of them adds keys (``add_bias_kv``), which belong to no head.
    """
    first = {id(value): name for name, value in module.named_parameters()}
    found = []
    for path, part in module.named_modules():
        if isinstance(part, nn.MultiheadAttention):
            if part.bias_k is not None:
                raise InvalidValue(
                    f"the attention {path or 'attention'!r} adds learned keys (add_bias_kv), which no head owns. Build "
                    "it without them, or prune single weights."
                )
            width = part.head_dim
            slices = [Slice(first[id(part.out_proj.weight)], 1, width)]
            if part._qkv_same_embed_dim:
                slices += [Slice(first[id(part.in_proj_weight)], 0, width, n * part.embed_dim) for n in range(3)]
            else:
                rows = (part.q_proj_weight, part.k_proj_weight, part.v_proj_weight)
                slices += [Slice(first[id(value)], 0, width) for value in rows]
            if part.in_proj_bias is not None:
                slices += [Slice(first[id(part.in_proj_bias)], 0, width, n * part.embed_dim) for n in range(3)]
            found.append(Group(path or "attention", part.num_heads, tuple(slices)))
    if not found:
        raise InvalidValue(
            "this network has no nn.MultiheadAttention, so no heads are known. " + _BY_HAND + ", or neurons."
        )
    return tuple(found)


def _units(module: nn.Module, example: Tensor) -> tuple[Group, ...]:
    try:
        copied = copy.deepcopy(module).eval()
        graph = fx.Tracer().trace(copied)
    except Exception as error:
        raise InvalidValue(
            f"the network cannot be followed: {type(error).__name__}: {error}. Its forward must not branch on values. "
            f"{_BY_HAND}."
        ) from error
    spaces = Spaces(copied)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            Streams(copied, graph, spaces).run(example)
    except TombolaError:
        raise
    except Exception as error:
        raise InvalidValue(
            f"the network does not take the example of shape {tuple(example.shape)}: {type(error).__name__}: {error}. "
            "Give an input as its forward takes it."
        ) from error
    found = spaces.found()
    if not found:
        raise InvalidValue(
            f"no neuron or channel can be pruned whole: {'; '.join(spaces.reasons()) or 'there is no hidden layer'}. "
            f"{_BY_HAND}."
        )
    _prove(copied, example, found)
    return found


def _prove(copied: nn.Module, example: Tensor, found: Sequence[Group]) -> None:
    """Kill every other unit by its readers, move its writers, and see that the outputs stay."""
    state = {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
    with torch.no_grad():
        _each_dead(state, found, 1, torch.zeros_like)
        before = _tensors(copied(example))
        _each_dead(state, found, 0, lambda value: value + 1)
        # Dead units would feed one another through a row and a column that both are dead, and overflow.
        _each_dead(state, found, 1, torch.zeros_like)
        after = _tensors(copied(example))
    for first, second in zip(before, after, strict=True):
        if not torch.allclose(first.double(), second.double(), rtol=1e-4, atol=1e-5 * float(first.abs().max() + 1)):
            raise InvalidValue(
                f"the groups found, {', '.join(group.name for group in found)}, are not all of what reads their units: "
                f"the outputs change with units that nothing should read. {_BY_HAND}."
            )


def _each_dead(
    state: Mapping[str, Tensor], found: Sequence[Group], axis: int, change: Callable[[Tensor], Tensor]
) -> None:
    for group in found:
        dead = torch.arange(group.size) % 2 == 1
        for one in group.slices:
            # A variance is no value that a unit sends on.
            if one.axis == axis and not one.name.endswith("running_var"):
                entries = by_axis(state[one.name], one, group.size)
                places = dead.repeat_interleave(one.width).to(entries.device)
                entries[places] = change(entries[places])


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.clone()]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
