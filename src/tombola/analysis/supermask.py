"""Supermasks: what the masks of a dense run are worth on the initial weights, without any training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from tombola.errors import UnknownName
from tombola.prune.controls import Case, sign_constant
from tombola.prune.counting import Counts
from tombola.prune.criteria import CRITERIA
from tombola.prune.evidence import Evidence, scored
from tombola.prune.masks import apply, ones
from tombola.prune.select import select
from tombola.types import Masks, Params, Snapshot

Evaluate = Callable[[Params], float]
"""``params -> accuracy``, a fraction. It has every parameter of the network; what else the network needs (data, buffers
such as batch-norm statistics, measured anew) is the caller's."""

SUPERMASKS: Final = (
    "large-final-same-sign",
    "magnitude-increase-same-sign",
    "magnitude",
    "magnitude-increase",
    "large-init",
    "movement",
    "random",
    "small-final",
    "large-final-diff-sign",
    "magnitude-increase-diff-sign",
)
"""The criteria compared; ``magnitude`` is Zhou et al.'s ``large_final``."""


@final
@dataclass(frozen=True)
class Supermask:
    """What one criterion's mask is worth without training.

    Attributes:
        accuracy: of the initial weights under the mask, biases zero; a fraction.
        sign_constant: the same with every weight at its sign times the standard deviation of its tensor.
    """

    accuracy: float
    sign_constant: float


def supermasks(
    theta_0: Params,
    theta_T: Params,
    counts: Counts,
    evaluate: Evaluate,
    *,
    generator: torch.Generator,
    criteria: Sequence[str] = SUPERMASKS,
) -> dict[str, Supermask]:
    """Evaluate the masks of several criteria on the initial weights, without training.

    Zhou et al. (2019), section 5, "supermasks". Departures: exact counts, and biases are zero whatever they began at.

    Args:
        theta_0: every parameter at initialisation.
        theta_T: every parameter at the end of the dense run.
        counts: name -> how many to keep in that tensor; the prunable tensors.
        evaluate: gives the accuracy of parameters.
        generator: a CPU generator for random scores and ties.
        criteria: names of criteria that look at initial and trained weights alone.

    Returns:
        criterion -> what its mask is worth.

    Raises:
        UnknownName: no such criterion.
        MissingEvidence: a criterion that looks at more than initial and trained weights.
        ImpossibleDensity: more are asked for than there are.
    """
    found = {}
    for name in criteria:
        masks = found_mask(name, theta_0, theta_T, counts, generator)
        plain = start(theta_0, masks)
        case = Case(Snapshot(0, theta_0), masks, lambda: Snapshot(0, theta_0), dict, generator)
        constant = start(sign_constant(case)[0].params, masks)
        found[name] = Supermask(evaluate(plain), evaluate(constant))
    return found


def found_mask(
    criterion: str, theta_0: Params, theta_T: Params, counts: Counts, generator: torch.Generator
) -> dict[str, Tensor]:
    """Give the mask of a criterion, cut at once from a dense run, with the count of each tensor given.

    Args:
        criterion: its name, such as ``large-final-same-sign``.
        theta_0: name -> initial weights.
        theta_T: name -> trained weights, same shape.
        counts: name -> how many to keep in that tensor; the prunable tensors.
        generator: a CPU generator for random scores and ties.

    Returns:
        name -> bool tensor, for the names in ``counts``.

    Raises:
        UnknownName: no such criterion.
        MissingEvidence: a criterion that looks at more than initial and trained weights.
        ImpossibleDensity: more are asked for than there are.
    """
    if criterion not in CRITERIA:
        raise UnknownName.among("criterion", criterion, CRITERIA)
    evidence = Evidence(theta_0=theta_0, generator=generator)
    return select(scored(CRITERIA[criterion].score, theta_T, ones(theta_0, counts), evidence), counts, generator)


def start(theta_0: Params, masks: Masks) -> dict[str, Tensor]:
    """Give initial weights under a mask, with every bias at zero.

    Args:
        theta_0: every parameter at initialisation; those whose last name holds ``bias`` are biases.
        masks: name -> bool tensor.

    Raises:
        ShapeMismatch: a mask belongs to no parameter, or to one of another shape.

    Example:
        >>> start({"w": torch.ones(2), "bias": torch.ones(2)}, {"w": torch.tensor([True, False])})
        {'w': tensor([1., 0.]), 'bias': tensor([0., 0.])}
    """
    return {
        name: torch.zeros_like(value) if "bias" in name.rpartition(".")[2] else value
        for name, value in apply(theta_0, masks).items()
    }
