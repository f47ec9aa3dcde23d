"""A family as the analyses see it: where its weights began, where they ended, and what the search kept."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune.counting import Counts
from tombola.prune.masks import check
from tombola.prune.select import select
from tombola.types import Masks, Params


@final
@dataclass(frozen=True)
class Observed:
    """One family: an initialisation, the dense runs that started from it, and the masks of its search.

    Attributes:
        replicate: the family's number; no two families of an analysis share it.
        theta_0: every parameter before training, by state_dict name.
        ends: every parameter after training, for each dense run; the family's own data order first.
        prunable: names of the tensors that are pruned.
        masks: level -> the mask that the search found there, over the prunable tensors; levels count from 1.

    Raises:
        InvalidValue: there is no dense run, nothing is prunable, or a level is below 1.
        ShapeMismatch: a prunable tensor is missing from an end or a mask, or has another shape there.
    """

    replicate: int
    theta_0: Params
    ends: tuple[Params, ...]
    prunable: tuple[str, ...]
    masks: Mapping[int, Masks] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.ends:
            raise InvalidValue(
                f"family {self.replicate} has no dense run. Give the weights at the end of at least one."
            )
        if not self.prunable:
            raise InvalidValue(f"family {self.replicate} has no prunable tensor. Name at least one.")
        for end in self.ends:
            for _ in pairs(self.theta_0, end, self.prunable):
                pass
        for level, masks in self.masks.items():
            if level < 1:
                raise InvalidValue(
                    f"family {self.replicate} has a mask at level {level}. Levels of masks count from 1."
                )
            check({name: self.theta_0[name] for name in self.prunable}, masks)


def pairs(theta_0: Params, theta_T: Params, names: Iterable[str]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Go through tensors before and after training.

    Args:
        theta_0: name -> initial tensor.
        theta_T: name -> trained tensor, same shape.
        names: the tensors wanted.

    Yields:
        name, initial and trained values, float64, on the CPU.

    Raises:
        ShapeMismatch: a tensor is missing on one side, or the two have different shapes.
    """
    for name in names:
        for where, values in (("initial", theta_0), ("trained", theta_T)):
            if name not in values:
                raise ShapeMismatch(
                    f"there is no {name!r} among the {where} weights, which are {', '.join(values) or 'none'}. "
                    "Give both ends of one run of one network."
                )
        before, after = theta_0[name], theta_T[name]
        if before.shape != after.shape:
            raise ShapeMismatch(
                f"{name!r} has shape {tuple(before.shape)} at the start and {tuple(after.shape)} at the end. "
                "Give both ends of one run of one network."
            )
        yield name, before.detach().double().cpu(), after.detach().double().cpu()


def masked_pairs(theta_0: Params, theta_T: Params, masks: Masks) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Go through tensors before and after training, with their masks.

    Args:
        theta_0: name -> initial tensor.
        theta_T: name -> trained tensor, same shape.
        masks: name -> bool tensor, same shape; the tensors wanted.

    Yields:
        name, initial and trained values (float64) and the mask, on the CPU.

    Raises:
        ShapeMismatch: a tensor is missing, or shapes differ.
        InvalidValue: a mask is not bool.
    """
    check(theta_0, masks)
    for name, before, after in pairs(theta_0, theta_T, masks):
        yield name, before, after, masks[name].cpu()


def one_shot_masks(theta_T: Params, counts: Counts, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Keep the largest trained weights of each tensor: one cut of a dense run, without iterating.

    One-shot pruning of Frankle & Carbin (2019), section 2, with the count of each tensor given.

    Args:
        theta_T: name -> trained weights.
        counts: name -> how many to keep in that tensor; the tensors wanted.
        generator: a CPU generator that breaks ties; ``None`` breaks them by position.

    Returns:
        name -> bool tensor with exactly that many true entries.

    Raises:
        ImpossibleDensity: more are asked for than there are.
        InvalidScores: a weight is NaN.
        ShapeMismatch: there are no weights of that name.

    Example:
        >>> one_shot_masks({"w": torch.tensor([0.1, -3.0, 2.0])}, {"w": 2})
        {'w': tensor([False,  True,  True])}
    """
    missing = [name for name in counts if name not in theta_T]
    if missing:
        raise ShapeMismatch(
            f"counts are given for {', '.join(missing)}, and there are no such weights, only "
            f"{', '.join(theta_T) or 'none'}. Counts go by the names of the network's state dict."
        )
    return select({name: theta_T[name].detach().abs() for name in counts}, counts, generator)
