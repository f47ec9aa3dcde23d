"""From a score for each weight to one for each group of weights."""

from typing import Final

import torch
from torch import Tensor

from tombola.errors import InvalidScores, UnknownName

POOLS: Final = ("sum", "mean", "l2")
"""How the scores of a group become one.

``sum``: their sum. With magnitudes it is the L1 norm of Li et al. (2017), section 3.1. With ``taylor``, the squares of
gradient times weight, it is the diagonal of what Molchanov et al. (2019), section 3, take of a group, the square of the
sum: the products of different weights are left out, because a score per weight does not hold them.
``mean``: the sum over the number of weights left; for groups of different sizes that compete.
``l2``: the root of the sum of squares, for scores that are sizes.
"""


def check_pool(pool: str) -> None:
    """Refuse what is no pool.

    Raises:
        UnknownName: not one of ``POOLS``.
    """
    if pool not in POOLS:
        raise UnknownName.among("pool", pool, POOLS)


def terms(scores: Tensor, mask: Tensor, pool: str, name: str) -> Tensor:
    """Give what is to be added up over a group.

    Args:
        scores: float, any shape.
        mask: bool, the same shape; the terms of pruned entries are 0.
        pool: one of ``POOLS``.
        name: of the tensor, for the error.

    Returns:
        float64, the same shape: sums of many small scores in half precision would tie.

    Raises:
        InvalidScores: negative scores under ``l2``.
    """
    value = torch.where(mask, scores.double(), 0.0)
    if pool != "l2":
        return value
    if bool((value < 0).any()):
        raise InvalidScores(
            f"the criterion gives weights of {name!r} negative scores, and the pool l2 takes their squares, which "
            "would turn their order around. Use the pool sum or mean."
        )
    return value.square()


def pooled(total: Tensor, count: Tensor, pool: str) -> Tensor:
    """Make the scores of groups from their sums.

    Args:
        total: float64, the sums of :func:`terms`, shape ``[groups]`` or any.
        count: integers, the number of weights left in each; a group without any scores ``-inf``.
        pool: one of ``POOLS``.

    Returns:
        float64, the shape of ``total``.
    """
    if pool == "mean":
        total = total / count.clamp(min=1)
    elif pool == "l2":
        total = total.sqrt()
    return total.masked_fill(count == 0, -torch.inf)
