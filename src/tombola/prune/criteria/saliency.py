"""What deleting one weight does to the loss, by a series of second order: what Optimal Brain Damage ranks by."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tombola.prune.curvature.examples import Examples
from tombola.types import Masks


def saliency(
    given: Examples, masks: Masks, second: Mapping[str, Tensor], first: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    r"""Expand the loss around the weights, and set one weight to zero.

    :math:`\Delta E = -g_k w_k + h_k w_k^2 / 2`; LeCun et al. (1990), section 2, keep the second term, as at a minimum
    there is no first one.

    Args:
        given: the masked network.
        masks: name -> bool tensor.
        second: name -> ``h``, the diagonal of the Hessian or what stands for it.
        first: name -> ``g``, the gradient; ``None`` leaves its term out.

    Returns:
        name -> tensor of the parameter's shape, ``-inf`` where pruned.
    """
    found = {}
    for name, mask in masks.items():
        value = given.values[name]
        score = second[name] * value.square() / 2
        if first is not None:
            score = score - first[name] * value
        found[name] = score.masked_fill(~mask, -torch.inf)
    return found
