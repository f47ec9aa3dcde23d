"""Units: neurons, channels and heads, pruned with all their weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tombola.errors import ImpossibleDensity, InvalidValue
from tombola.prune.allocation.base import Allocation
from tombola.prune.counting import Counts, Cut, Shapes, size_of
from tombola.prune.masks import counts
from tombola.prune.select import keep_top
from tombola.prune.structure.places import Group, alive_units, by_unit, left_on_axes, product_masks, usable
from tombola.prune.structure.pooling import check_pool, pooled, terms
from tombola.prune.structure.shares import Shares
from tombola.types import Masks, Scores


@final
@dataclass(frozen=True)
class Units:
    """Prune neurons, channels or heads whole, the same fraction of every group.

    Li et al. (2017), section 3.1 (the filters of smallest L1 norm, with the channels that read them), and its section
    3.3 for residual streams, which share one choice; Michel et al. (2019), section 2, for heads. Departure: the score
    of a unit is pooled over all its prunable weights, those that read it too. A weight between two units counts for
    both.

    A level keeps the largest uniform fraction of units, at least one of each group, whose weights do not exceed the
    cut's total. Units are not ranked across groups: how many weights a level has would not be known before training,
    since a unit's weights depend on which others are left. The allocation is not asked.

    Attributes:
        groups: of the network; those read by a tensor that is not pruned stay whole, see
            :func:`~tombola.prune.structure.places.usable`.
        name: what records call it.
        pool: makes a unit's score of its weights'; one of ``POOLS``.

    Raises:
        UnknownName: no such pool.
    """

    groups: Sequence[Group]
    name: str = "neurons"
    pool: str = "sum"

    def __post_init__(self) -> None:
        check_pool(self.pool)

    def plan(
        self,
        shapes: Shapes,
        planned_before: Counts,
        cut: Cut,
        allocation: Allocation,  # noqa: ARG002
    ) -> dict[str, int]:
        """Count the weights of the level; see :class:`~tombola.prune.structure.base.Structure`.

        Raises:
            ImpossibleDensity: one unit of each group is more than is asked for, or more is asked for than is left.
            InvalidValue, ShapeMismatch: groups that do not fit the tensors.
        """
        groups = usable(self.groups, shapes)
        size, alive = sum(map(size_of, shapes.values())), sum(planned_before.values())
        # A density counts from the sizes, so that the rounding of the levels before does not add to this one's.
        wanted = cut.total(size, alive if cut.rate is not None else size)
        kept = fitting(groups, shapes, wanted)
        if kept is None:
            least = sum(kept_counts(groups, [1] * len(groups), shapes).values())
            raise ImpossibleDensity(
                f"{wanted} of {size} weights are asked for, and one unit of each of {len(groups)} groups takes "
                f"{least}. Ask for a density of at least {math.ceil(1e4 * least / size) / 1e4:g}, or prune single "
                "weights."
            )
        found = kept_counts(groups, kept, shapes)
        if sum(found.values()) > alive:
            cut.total(size, alive)
        return found

    def choose(
        self, scores: Scores, masks: Masks, planned: Counts, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Keep the best units of each group, by their pooled scores; see the contract.

        Raises:
            InvalidValue: planned counts, or masks, that are not of whole units.
            ImpossibleDensity: fewer units are left than are kept.
            InvalidScores: negative scores under the pool ``l2``.
        """
        shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
        groups = usable(self.groups, shapes)
        kept = fitting(groups, shapes, sum(planned.values()))
        if kept is None or kept_counts(groups, kept, shapes) != dict(planned):
            raise InvalidValue(
                f"the counts {dict(planned)} are not those of whole {self.name}, the same fraction of every group. "
                "Take the counts that this structure plans."
            )
        alive = alive_units(groups, masks)
        units = {
            group.name: keep_top(self._scores(group, scores, masks, alive[group.name]), count, generator, group.name)
            for group, count in zip(groups, kept, strict=True)
        }
        found = product_masks(groups, units, masks)
        if counts(found) != dict(planned):
            raise InvalidValue(
                f"the masks so far are not of whole {self.name}: pruning units of theirs keeps {counts(found)}, and "
                f"{dict(planned)} is planned. Start from dense masks, or from those that this structure made."
            )
        return found

    def _scores(self, group: Group, scores: Scores, masks: Masks, alive: Tensor) -> Tensor:
        total = torch.zeros(group.size, dtype=torch.float64, device=alive.device)
        count = torch.zeros(group.size, dtype=torch.int64, device=alive.device)
        for one in group.slices:
            if one.name in scores:
                mask = masks[one.name]
                added = terms(scores[one.name], mask, self.pool, one.name)
                total += by_unit(added, one, group.size).sum(1).to(alive.device)
                count += torch.count_nonzero(by_unit(mask, one, group.size), dim=1).to(alive.device)
        return pooled(total, count, self.pool)


def fitting(groups: Sequence[Group], shapes: Shapes, most: int) -> tuple[int, ...] | None:
    """Give the number of units of each group, a uniform fraction of them, whose weights are the most up to ``most``.

    Args:
        groups: as :func:`~tombola.prune.structure.places.usable` gives them.
        shapes: name -> shape of each prunable tensor.
        most: the number of prunable weights allowed.

    Returns:
        one number for each group, at least 1; ``None`` if no such network is so small.
    """
    shares = Shares(tuple(group.size for group in groups), least=1)
    step = shares.last(lambda kept: sum(kept_counts(groups, kept, shapes).values()), most)
    return None if step < 0 else shares.at(step)


def kept_counts(groups: Sequence[Group], kept: Sequence[int], shapes: Shapes) -> dict[str, int]:
    """Count the weights of each tensor when so many units of each group are kept."""
    return {name: size_of(tuple(left)) for name, left in left_on_axes(groups, kept, shapes).items()}
