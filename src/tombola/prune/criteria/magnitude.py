"""Magnitude: the weights that training made large are kept."""

import torch

from tombola.prune.evidence import Evidence
from tombola.prune.masks import check
from tombola.types import Masks, Params, Scores


def magnitude(params: Params, masks: Masks, evidence: Evidence) -> Scores:  # noqa: ARG001
    r"""Score each weight by its magnitude, :math:`s = |w|`.

    The criterion of Frankle & Carbin (2019), section 1, and of Han et al. (2015), section 3.

    Args:
        params: name -> float tensor, any shape and device; the weights at the end of a level.
        masks: name -> bool tensor, same shape; a name that is absent stays dense.
        evidence: not used here; part of every criterion's signature.

    Returns:
        name -> tensor of the parameter's shape, dtype and device, for the names in ``masks``. Larger is kept longer.

    Raises:
        ShapeMismatch: a mask's shape differs from its parameter's.

    Example:
        >>> import torch
        >>> magnitude({"w": torch.tensor([3.0, -4.0])}, {"w": torch.tensor([True, True])}, Evidence())
        {'w': tensor([3., 4.])}
    """
    check(params, masks)
    # In place: a second copy of all scores is what this would cost most.
    return {name: params[name].detach().abs().masked_fill_(~mask, -torch.inf) for name, mask in masks.items()}
