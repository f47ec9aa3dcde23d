"""What the criteria of the initial and trained values share: both at once, halves by sign, and ranks."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tombola.prune.evidence import Evidence
from tombola.prune.masks import check
from tombola.types import Masks, Params, Scores


def initial_values(params: Params, masks: Masks, evidence: Evidence) -> dict[str, Tensor]:
    """Give the initial values of the masked tensors, on the devices of the trained ones.

    Args:
        params: name -> float tensor; only shapes and devices are used.
        masks: name -> bool tensor, same shape.
        evidence: ``theta_0`` is required.

    Returns:
        name -> float tensor of the mask's shape and the initial value's dtype.

    Raises:
        MissingEvidence: there is no ``theta_0``.
        ShapeMismatch: a mask's shape differs from its parameter's, or from its initial value's.
    """
    check(params, masks)
    theta_0: Params = evidence.require("theta_0")
    check(theta_0, masks)
    return {name: theta_0[name].detach().to(params[name].device) for name in masks}


def by_both(
    params: Params, masks: Masks, evidence: Evidence, score: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Score weights by a function of their initial and trained values; ``-inf`` where pruned.

    Args:
        params: name -> float tensor, any shape; the trained weights.
        masks: name -> bool tensor, same shape.
        evidence: ``theta_0`` is required.
        score: ``(initial, trained) -> score``, entry by entry; both have the dtype of the result.

    Returns:
        name -> tensor of the mask's shape, all of one dtype: the widest of the values', at least float32, because a
        difference of two float16 numbers ties where that of the numbers they stand for does not.

    Raises:
        MissingEvidence: there is no ``theta_0``.
        ShapeMismatch: a mask's shape differs from its parameter's, or from its initial value's.
    """
    before = initial_values(params, masks, evidence)
    dtype = torch.float32
    for name in masks:
        dtype = torch.promote_types(dtype, torch.promote_types(before[name].dtype, params[name].dtype))
    return {
        name: score(before[name].to(dtype), params[name].detach().to(dtype)).masked_fill_(~mask, -torch.inf)
        for name, mask in masks.items()
    }


def same_sign(initial: Tensor, trained: Tensor) -> Tensor:
    """Mark the weights whose sign is what it was; zero has a sign of its own, which only zero shares.

    Signs are compared, not the product's: that of two small numbers underflows to zero.
    """
    return initial.sign() == trained.sign()


def the_rest_below(scores: Mapping[str, Tensor], named: Masks) -> dict[str, Tensor]:
    """Rank the weights that are not named below each one that is, and equal among themselves.

    Args:
        scores: name -> float tensor, all of one dtype; ``-inf`` where pruned.
        named: name -> bool tensor, same shape.

    Returns:
        The same scores, but for weights that are left and not named. These share one finite score, below those of the
        named ones of all tensors, so that it is below them in a ranking of all tensors together as well.
    """
    kept = [score[named[name] & score.isfinite()] for name, score in scores.items()]
    least = min((float(part.min()) for part in kept if part.numel()), default=0.0)
    # Not ``least - 1``, which is ``least`` for a large number.
    below = least - max(1.0, abs(least))
    return {name: score.masked_fill(~named[name] & score.isfinite(), below) for name, score in scores.items()}


def signs(params: Params, masks: Masks, evidence: Evidence) -> dict[str, Tensor]:
    """Mark the weights of each masked tensor that :func:`same_sign` marks."""
    before = initial_values(params, masks, evidence)
    return {name: same_sign(before[name], params[name].detach()) for name in masks}


def share_below(values: Tensor, mask: Tensor) -> Tensor:
    """Say of each weight that is left which share of them lies strictly below it.

    Args:
        values: float, any shape.
        mask: bool, same shape; what is left.

    Returns:
        float64, same shape: ``#{j: v_j < v_i} / n`` over the ``n`` that are left, in ``[0, 1)``; undefined where
        pruned. A weight lies above the ``m``-th smallest value exactly if its share is at least ``m / n``, ties or not.
    """
    alive = values[mask]
    # Exact in float64, where float32 cannot count beyond 2^24.
    ranks = torch.searchsorted(alive.sort().values, alive).to(torch.float64)
    return torch.zeros_like(values, dtype=torch.float64).masked_scatter_(mask, ranks / max(alive.numel(), 1))


def by_lesser_rank(params: Params, masks: Masks, evidence: Evidence, key: Callable[[Tensor], Tensor]) -> Scores:
    """Score each weight by the lesser of two ranks: its initial and its trained value's, within its tensor.

    Args:
        params: name -> float tensor, any shape.
        masks: name -> bool tensor, same shape; ranks are among the weights that are left.
        evidence: ``theta_0`` is required.
        key: what the values are ranked by, entry by entry.

    Returns:
        name -> float64 tensor of the mask's shape; ``-inf`` where pruned.

    Raises:
        MissingEvidence: there is no ``theta_0``.
        ShapeMismatch: a mask's shape differs from its parameter's, or from its initial value's.
    """
    before = initial_values(params, masks, evidence)
    return {
        name: torch.minimum(
            share_below(key(before[name]), mask), share_below(key(params[name].detach()), mask)
        ).masked_fill_(~mask, -torch.inf)
        for name, mask in masks.items()
    }
