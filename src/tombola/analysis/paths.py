"""Paths: the survivors that lie on a way from an input to an output; the others are kept for nothing."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from tombola.errors import InvalidValue
from tombola.models.kinds import tied_names
from tombola.models.spaces import Space, Spaces
from tombola.models.start import DRAWING
from tombola.models.tracing import Streams
from tombola.prune.masks import check, density
from tombola.types import Masks

_OUTPUTS: Final = "they are outputs of the network"
_ADVICE: Final = "Effective density is for networks of linear layers, convolutions, norms by channel, pooling and sums."


@final
@dataclass(frozen=True)
class Effective:
    """The survivors of a mask that can make a difference.

    Attributes:
        masks: name -> bool, inside the mask given: those on a path from an input to an output.
        density: the fraction of the prunable weights kept, as the mask says.
        effective_density: the fraction on a path.
    """

    masks: Mapping[str, Tensor]
    density: float
    effective_density: float


@final
@dataclass(frozen=True)
class _Wire:
    """A weight between two sets of units: position ``p`` of an axis belongs to unit ``p // width``."""

    name: str
    writes: Space
    reads: Space | None
    width: int


def effective(module: nn.Module, example: Tensor, masks: Masks) -> Effective:
    """Find the survivors that lie on a path of survivors from an input to an output.

    Effective sparsity of Vysogorets & Kempe (2023), section 3, by units: a weight counts if the unit that it reads is
    reached from an input and the unit that it writes leads to an output, through weights that are left. Inputs and
    outputs are all taken to be there; a tensor without a mask is dense; biases lead nowhere.

    For a chain of layers that is exact for neurons; of a convolution the units are channels, wherever in the image they
    are. Units that meet in a sum or a product, as in a residual stream, are one unit, reached if any of what meets is
    and leading to whatever reads any of it. There it is an upper bound: a weight that reads a stream where nothing has
    been written yet counts if something is written further on.

    Args:
        module: any network that ``torch.fx`` can follow; it is copied, and neither written to nor changed in mode.
        example: inputs, ``[batch, ...]``.
        masks: name -> bool tensor, over weights of linear layers and convolutions.

    Raises:
        InvalidValue: the network cannot be followed, mixes its units (attention, layer norm, concatenation, grouped
            convolutions), or a mask is over something else than a weight that was followed.
        ShapeMismatch: a mask belongs to no parameter, or to one of another shape.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> masks = {"0.weight": torch.eye(2).bool(), "2.weight": torch.tensor([[True, False]])}
        >>> found = effective(net, torch.zeros(1, 2), masks)
        >>> found.density, found.masks["0.weight"].tolist()
        (0.5, [[True, False], [False, False]])
    """
    check(dict(module.named_parameters()), masks)
    wires, ends = _followed(module, example)
    strange = [name for name in masks if name not in {wire.name for wire in wires}]
    if strange:
        raise InvalidValue(
            f"there is a mask over {', '.join(strange)}, which is no weight between units that were followed. {_ADVICE}"
        )
    alive = {
        name: masks[name].cpu() if name in masks else torch.ones(value.shape, dtype=torch.bool)
        for name, value in module.named_parameters()
        if name in {wire.name for wire in wires}
    }
    reached = _spread(wires, alive, set(), forwards=True)
    leading = _spread(wires, alive, ends, forwards=False)
    found = {}
    for wire in wires:
        if wire.name in masks:
            there = _on_axis(reached, wire, alive, 1) & _on_axis(leading, wire, alive, 0)
            found[wire.name] = (there & alive[wire.name]).to(masks[wire.name].device)
    return Effective({name: found[name] for name in masks}, density(masks), density(found))


def _spread(wires: list[_Wire], alive: Masks, ends: set[Space], *, forwards: bool) -> dict[Space, Tensor]:
    """Mark the units that the inputs reach, or that lead to outputs; over and over until nothing is new."""
    marks = {
        space: torch.full((space.size,), space in ends)
        for wire in wires
        for space in (wire.writes, wire.reads)
        if space
    }
    while True:
        before = sum(int(mark.sum()) for mark in marks.values())
        for wire in wires if forwards else reversed(wires):
            target, axis = (wire.writes, 0) if forwards else (wire.reads, 1)
            if target is None:
                continue
            through = alive[wire.name] & _on_axis(marks, wire, alive, 1 - axis)
            marks[target] |= through.movedim(axis, 0).reshape(target.size, -1).any(1)
        if sum(int(mark.sum()) for mark in marks.values()) == before:
            return marks


def _on_axis(marks: Mapping[Space, Tensor], wire: _Wire, alive: Masks, axis: int) -> Tensor:
    """Shape the marks of the units on one axis of a weight to go with it; network inputs are all marked."""
    shape = [1] * alive[wire.name].dim()
    shape[axis] = -1
    space = wire.writes if axis == 0 else wire.reads
    if space is None:
        return torch.ones([1] * len(shape), dtype=torch.bool)
    return marks[space].repeat_interleave(wire.width if axis else 1).reshape(shape)


def _followed(module: nn.Module, example: Tensor) -> tuple[list[_Wire], set[Space]]:
    """Give the weights between units, in the order of the network, and the sets of units that are outputs."""
    grouped = [name for name, part in module.named_modules() if isinstance(part, _ConvNd) and part.groups > 1]
    if grouped:
        raise InvalidValue(
            f"the convolution {grouped[0]!r} is grouped, and paths through groups are not known. {_ADVICE}"
        )
    with DRAWING:
        copied = copy.deepcopy(module).eval()
        spaces = Spaces(copied)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=()):
                Streams(copied, fx.Tracer().trace(copied), spaces).run(example)
        except Exception as error:
            raise InvalidValue(
                f"the network cannot be followed: {type(error).__name__}: {error}. Its forward must not branch on "
                f"values. {_ADVICE}"
            ) from error
    roots = {space.root() for space in spaces._all}
    mixed = [space for space in roots if space.stays not in ("", _OUTPUTS)]
    if mixed:
        raise InvalidValue(f"units of {mixed[0].name!r} are not followed to the outputs: {mixed[0].stays}. {_ADVICE}")
    return list(_wires(module, spaces)), {space for space in roots if space.stays == _OUTPUTS}


def _wires(module: nn.Module, spaces: Spaces) -> Iterator[_Wire]:
    at = {(one.name, one.axis): (space.root(), one.width) for space in spaces._all for one in space.root().slices}
    known = tied_names(module)
    for name, value in module.named_parameters():
        if value.dim() > 1 and (name, 0) in at and name not in known:
            reads, width = at.get((name, 1), (None, 1))
            yield _Wire(name, at[name, 0][0], reads, width)
