"""Alignment: the order of hidden units that makes one network most like another.

Hidden units have no names: a network whose units are listed in another order computes the same. That "different
initialisations share nothing" may therefore say only that their units are listed differently, so they are aligned
before their masks are compared.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tombola.errors import ShapeMismatch
from tombola.prune.structure import Group, Slice
from tombola.prune.structure.places import by_axis, by_unit
from tombola.types import Params

Order = Mapping[str, Tensor]
"""Group name -> int64 ``[size]``: unit ``i`` is to be the unit that stood at ``order[i]``."""

_ROUNDS: Final = 100
"""Rounds of coordinate ascent at most; a handful is usual, and each one that is not the last gains."""


def align(first: Params, second: Params, groups: Sequence[Group], generator: torch.Generator) -> dict[str, Tensor]:
    """Find the order of the second network's units that makes its weights most like the first's.

    Weight matching, Ainsworth et al. (2023, "Git Re-Basin"), Algorithm 1: the sum over all tensors of the inner product
    of the first's values with the second's is raised by one group's order after the other, each the solution of a
    linear assignment problem, in random turns until none gains. The paper's own bound holds: what is found is a local
    optimum.

    Two departures. It starts from the order given and also from a greedy one, which settles the groups from the input
    on by the tensors whose other side is settled already, and keeps the better end; a permuted copy is so recovered
    exactly. And a turn counts only if the whole sum gains, since in a group that is on both sides of a tensor, as in a
    residual stream, the assignment is not the exact optimum.

    Args:
        first: name -> tensor of the network that stays.
        second: the same of the network whose units are put in order.
        groups: the units, as :func:`tombola.models.groups.units` finds them: in the order of the network. Slices of
            tensors that are not in ``first`` (batch-norm statistics, say) are not looked at.
        generator: a CPU generator for the turns.

    Returns:
        group name -> order of its units; for :func:`permuted`.

    Raises:
        ShapeMismatch: a tensor of the groups is missing in the second, or has another shape there.
    """
    ours = _touched(first, second, groups)
    theirs = {name: second[name].detach().double().cpu() for name in ours}
    as_given = {group.name: torch.arange(group.size) for group in groups}
    ends = [_climb(ours, theirs, groups, begin, generator) for begin in (_greedy(ours, theirs, groups), as_given)]
    return max(ends, key=lambda end: end[1])[0]


def permuted(tensors: Params, groups: Sequence[Group], order: Order) -> dict[str, Tensor]:
    """List the units of a network in another order; what it computes stays the same.

    Args:
        tensors: name -> parameters, masks or buffers, any dtype. Those that no group touches are given as they are.
        groups: the units.
        order: group name -> int64 ``[size]``; a group that is absent stays.

    Returns:
        name -> tensor of the same shape.

    Raises:
        ShapeMismatch: an order does not hold each unit of its group once.

    Example:
        >>> hidden = Group("h", 2, (Slice("w", 0),))
        >>> permuted({"w": torch.tensor([[1], [2]])}, [hidden], {"h": torch.tensor([1, 0])})
        {'w': tensor([[2],
                [1]])}
    """
    found = dict(tensors)
    for group in groups:
        if group.name in order:
            _check_order(group, order[group.name])
            for one in group.slices:
                if one.name in found:
                    found[one.name] = _turned(found[one.name], one, group.size, order[group.name])
    return found


def _turned(tensor: Tensor, one: Slice, size: int, order: Tensor) -> Tensor:
    """Put the units on one axis of one tensor in order."""
    index = torch.arange(tensor.shape[one.axis])
    units = index[one.start : one.start + size * one.width].reshape(size, one.width)
    index[one.start : one.start + size * one.width] = units[order.cpu()].reshape(-1)
    return tensor.index_select(one.axis, index.to(tensor.device))


def _greedy(ours: Params, theirs: Params, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Order the groups from the input on, each by the tensors whose other axes are in order already."""
    found: dict[str, Tensor] = {}
    for group in groups:
        others = {
            one.name for later in groups if later.name not in found and later is not group for one in later.slices
        }
        both = {one.name for one in group.slices if sum(other.name == one.name for other in group.slices) > 1}
        clear = tuple(one for one in group.slices if one.name not in others | both)
        seen = Group(group.name, group.size, clear or group.slices)
        found[group.name] = _assigned(ours, permuted(theirs, groups, found), seen)
    return found


def _climb(
    ours: Params, theirs: Params, groups: Sequence[Group], order: Mapping[str, Tensor], generator: torch.Generator
) -> tuple[dict[str, Tensor], float]:
    """Improve one group after the other until none gains; give the order and the sum of inner products."""
    found, here = dict(order), permuted(theirs, groups, order)
    best = _alike(ours, here)
    for _ in range(_ROUNDS):
        before = best
        for turn in torch.randperm(len(groups), generator=generator).tolist():
            group = groups[turn]
            change = _assigned(ours, here, group)
            tried = permuted(here, [group], {group.name: change})
            value = _alike(ours, tried)
            # Rounding alone would let two equally good orders take turns for ever.
            if value > best + 1e-12 * abs(best):
                found[group.name], here, best = found[group.name][change], tried, value
        if best == before:
            break
    return found, best


def _assigned(ours: Params, theirs: Params, group: Group) -> Tensor:
    """Solve one group's assignment: for each of our units the one of theirs, all others as they stand."""
    from scipy.optimize import linear_sum_assignment

    gain = torch.zeros(group.size, group.size, dtype=torch.float64)
    for one in group.slices:
        if one.name in ours:
            gain += by_unit(ours[one.name], one, group.size) @ by_unit(theirs[one.name], one, group.size).T
    _, columns = linear_sum_assignment(gain.numpy(), maximize=True)
    return torch.from_numpy(np.asarray(columns, dtype=np.int64))


def _alike(ours: Params, theirs: Params) -> float:
    return sum(float(torch.sum(value * theirs[name])) for name, value in ours.items())


def _touched(first: Params, second: Params, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Give the first network's tensors that the groups touch, float64 on the CPU."""
    found: dict[str, Tensor] = {}
    for group in groups:
        for one in group.slices:
            if one.name not in first or one.name in found:
                continue
            if one.name not in second or first[one.name].shape != second[one.name].shape:
                other = tuple(second[one.name].shape) if one.name in second else "no value"
                raise ShapeMismatch(
                    f"{one.name!r} has shape {tuple(first[one.name].shape)} in the first network and {other} in the "
                    "second. Align two networks of one architecture."
                )
            if len(by_axis(first[one.name], one, group.size)) != group.size * one.width:
                raise ShapeMismatch(
                    f"the {group.size} units of {group.name!r} do not fit axis {one.axis} of {one.name!r}, of shape "
                    f"{tuple(first[one.name].shape)}. Find the groups on this network."
                )
            found[one.name] = first[one.name].detach().double().cpu()
    return found


def _check_order(group: Group, order: Tensor) -> None:
    if order.shape != (group.size,) or not torch.equal(order.cpu().sort().values, torch.arange(group.size)):
        raise ShapeMismatch(
            f"the order for {group.name!r} has shape {tuple(order.shape)} and is no permutation of its {group.size} "
            "units. It holds each of them once."
        )
