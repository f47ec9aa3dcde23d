"""Magnitude increase: the weights that grew are kept."""

from tombola.prune.criteria.initial import by_both
from tombola.prune.evidence import Evidence
from tombola.types import Masks, Params, Scores


def magnitude_increase(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight by how much it grew, :math:`s = |w| - |w_0|`.

    The criterion ``magnitude_increase`` of Zhou et al. (2019), section 2.

    Args:
        params: name -> float tensor, any shape and device; the weights at the end of a level.
        masks: name -> bool tensor, same shape; a name that is absent stays dense.
        evidence: ``theta_0`` is required.

    Returns:
        name -> tensor of the shape of the parameter, for the names in ``masks``; the dtype is the widest of the values
        given, at least float32. Larger is kept longer; ``-inf`` where pruned.

    Raises:
        MissingEvidence: there is no ``theta_0``.
        ShapeMismatch: a mask's shape differs from its parameter's, or from its initial value's.

    Example:
        >>> import torch
        >>> theta_0, m = {"w": torch.tensor([1.0, -2.0])}, {"w": torch.ones(2, dtype=torch.bool)}
        >>> magnitude_increase({"w": torch.tensor([-4.0, 1.0])}, m, Evidence(theta_0=theta_0))
        {'w': tensor([ 3., -1.])}
    """
    return by_both(params, masks, evidence, lambda initial, trained: trained.abs().sub_(initial.abs()))
