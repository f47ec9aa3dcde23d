"""Small initial values: the opposite of large ones, a control."""

import torch

from tombola.prune.criteria.initial import initial_values
from tombola.prune.evidence import Evidence
from tombola.types import Masks, Params, Scores


def small_init(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight by the smallness of its initial value, :math:`s = -|w_0|`.

    The criterion ``small_init`` of Zhou et al. (2019), section 2.

    Args:
        params: name -> float tensor, any shape and device; the weights at the end of a level.
        masks: name -> bool tensor, same shape; a name that is absent stays dense.
        evidence: ``theta_0`` is required.

    Returns:
        name -> tensor of the shape of the parameter and the dtype of the initial value, for the names in ``masks``.
        Larger is kept longer; ``-inf`` where pruned.

    Raises:
        MissingEvidence: there is no ``theta_0``.
        ShapeMismatch: a mask's shape differs from its parameter's, or from its initial value's.

    Example:
        >>> import torch
        >>> theta_0, m = {"w": torch.tensor([1.0, -2.0])}, {"w": torch.ones(2, dtype=torch.bool)}
        >>> small_init({"w": torch.tensor([5.0, 0.0])}, m, Evidence(theta_0=theta_0))
        {'w': tensor([-1., -2.])}
    """
    before = initial_values(params, masks, evidence)
    return {name: before[name].abs().neg_().masked_fill_(~mask, -torch.inf) for name, mask in masks.items()}
