"""Where the weights of units are: neurons, channels or heads, and everything that dies with one of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune.counting import Shapes
from tombola.types import Masks


@final
@dataclass(frozen=True)
class Slice:
    """Where unit ``i`` of a group lives in one tensor: ``start + i * width`` to ``start + (i + 1) * width`` of an axis.

    Attributes:
        name: of the tensor, in the state dict.
        axis: 0 for what makes the unit's value (rows of a weight, bias, norm), 1 for what reads it (columns).
        width: entries of the axis for each unit.
        start: where the first unit begins.
    """

    name: str
    axis: int
    width: int = 1
    start: int = 0


@final
@dataclass(frozen=True)
class Group:
    """Units that live or die one by one, each in all tensors at once.

    Attributes:
        name: of the group.
        size: how many units there are.
        slices: where they live: writers, readers, biases and norms; those of tensors that are not pruned too.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]


def usable(groups: Sequence[Group], shapes: Shapes) -> tuple[Group, ...]:
    """Give the groups whose units a mask over some tensors can take away.

    Every tensor that reads the units must be among them: a unit without incoming weights still sends its bias, and only
    a mask over its outgoing weights makes that count for nothing. The others stay whole.

    Args:
        groups: of the network.
        shapes: name -> shape of each prunable tensor.

    Raises:
        ShapeMismatch: a group that does not fit the tensors.
        InvalidValue: groups that overlap, or none that can be used.
    """
    found = tuple(group for group in groups if _readers(group) and _readers(group) <= shapes.keys())
    if not found:
        reasons = "; ".join(
            f"{group.name!r} is read by {', '.join(sorted(_readers(group) - shapes.keys())) or 'nothing'}"
            for group in groups
        )
        raise InvalidValue(
            "no unit can be pruned as a whole: the tensors that read it must be prunable. "
            + (f"Here {reasons}, outside what is pruned. Widen the scope." if reasons else "There are no groups.")
        )
    names = [group.name for group in found]
    if len(set(names)) < len(names):
        raise InvalidValue(f"two groups are called alike among {', '.join(names)}. Name each by its first layer.")
    for name, shape in shapes.items():
        for axis in range(len(shape)):
            _check_axis(name, axis, shape[axis], found)
    for group in found:
        for one in group.slices:
            if one.name in shapes and one.axis >= len(shapes[one.name]):
                raise ShapeMismatch(f"{group.name!r} has units on axis {one.axis} of {one.name!r}, which has none.")
    return found


def alive_units(groups: Sequence[Group], masks: Masks) -> dict[str, Tensor]:
    """Say which units are left: those with a weight that is left.

    Args:
        groups: as :func:`usable` gives them.
        masks: name -> bool tensor.

    Returns:
        group name -> bool tensor of shape ``[size]``, on the device of its first mask.
    """
    found = {}
    for group in groups:
        marks = [by_unit(masks[one.name], one, group.size).any(1) for one in group.slices if one.name in masks]
        found[group.name] = torch.stack([mark.to(marks[0].device) for mark in marks]).any(0)
    return found


def product_masks(groups: Sequence[Group], units: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """Take the weights of dead units from masks: a weight is left where its row's and its column's units are.

    Args:
        groups: of the network.
        units: group name -> bool tensor of shape ``[size]``; a group that is absent is left whole.
        masks: name -> bool tensor.

    Returns:
        name -> bool tensor, inside ``masks``.
    """
    found = {name: mask.clone() for name, mask in masks.items()}
    for group in groups:
        if group.name in units:
            for one in group.slices:
                if one.name in found:
                    dead = ~units[group.name].to(found[one.name].device)
                    by_axis(found[one.name], one, group.size)[dead.repeat_interleave(one.width)] = False
    return found


def by_axis(tensor: Tensor, one: Slice, size: int) -> Tensor:
    """View the entries of all units, the slice's axis first: ``[size * width, ...]``."""
    return tensor.movedim(one.axis, 0)[one.start : one.start + size * one.width]


def by_unit(tensor: Tensor, one: Slice, size: int) -> Tensor:
    """Give the entries of each unit as a row: ``[size, entries]``."""
    return by_axis(tensor, one, size).reshape(size, -1)


def left_on_axes(groups: Sequence[Group], kept: Sequence[int], shapes: Shapes) -> dict[str, list[int]]:
    """Say how many rows, columns, ... of each tensor are left when so many units of each group are kept."""
    left = {name: list(shape) for name, shape in shapes.items()}
    for group, count in zip(groups, kept, strict=True):
        for one in group.slices:
            if one.name in left:
                left[one.name][one.axis] -= (group.size - count) * one.width
    return left


def _readers(group: Group) -> set[str]:
    return {one.name for one in group.slices if one.axis == 1}


def _ranges(name: str, axis: int, groups: Sequence[Group]) -> Iterator[tuple[int, int, str]]:
    for group in groups:
        for one in group.slices:
            if (one.name, one.axis) == (name, axis):
                yield one.start, one.start + group.size * one.width, group.name


def _check_axis(name: str, axis: int, length: int, groups: Sequence[Group]) -> None:
    """Raise unless the groups' ranges of an axis fit it and do not meet."""
    end, before = 0, ""
    for start, stop, group in sorted(_ranges(name, axis, groups)):
        if stop > length:
            raise ShapeMismatch(
                f"the units of {group!r} take {start} to {stop} of axis {axis} of {name!r}, which has {length} "
                "entries. Find the groups on the network that is pruned."
            )
        if start < end:
            raise InvalidValue(
                f"the groups {before!r} and {group!r} share entries of axis {axis} of {name!r}. A weight dies with one "
                "row and one column: give one of the groups, or both as one."
            )
        end, before = stop, group
