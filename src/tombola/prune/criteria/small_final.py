"""Small trained values: the opposite of magnitude, a control."""

import torch

from tombola.prune.evidence import Evidence
from tombola.prune.masks import check
from tombola.types import Masks, Params, Scores


def small_final(params: Params, masks: Masks, evidence: Evidence) -> Scores:  # noqa: ARG001
    r"""Score each weight by its smallness, :math:`s = -|w|`.

    The criterion ``small_final`` of Zhou et al. (2019), section 2.

    Args:
        params: name -> float tensor, any shape and device; the weights at the end of a level.
        masks: name -> bool tensor, same shape; a name that is absent stays dense.
        evidence: not used here; part of every criterion's signature.

    Returns:
        name -> tensor of the parameter's shape, dtype and device, for the names in ``masks``. Larger is kept longer;
        ``-inf`` where pruned.

    Raises:
        ShapeMismatch: a mask's shape differs from its parameter's.

    Example:
        >>> import torch
        >>> small_final({"w": torch.tensor([3.0, -4.0])}, {"w": torch.tensor([True, True])}, Evidence())
        {'w': tensor([-3., -4.])}
    """
    check(params, masks)
    return {name: params[name].detach().abs().neg_().masked_fill_(~mask, -torch.inf) for name, mask in masks.items()}
