"""Grown weights that kept their sign: the others go first."""

from tombola.prune.criteria.initial import by_both, signs, the_rest_below
from tombola.prune.evidence import Evidence
from tombola.types import Masks, Params, Scores


def magnitude_increase_same_sign(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight that kept its sign by its growth, :math:`s = |w| - |w_0|`; the others rank below.

    The criterion ``magnitude_increase_same_sign`` of Zhou et al. (2019), section 2, where
    the named half is that of :math:`\operatorname{sign} w = \operatorname{sign} w_0`.

    Two departures. Their other half scores 0, which would rank it above a weight of the named half that shrank; here it
    ranks below every weight of the named half, in all tensors, and its weights tie. And a zero, whose sign they leave
    open, shares its sign with zero only.

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
        >>> theta_0, m = {"w": torch.tensor([1.0, -2.0, 1.0])}, {"w": torch.ones(3, dtype=torch.bool)}
        >>> magnitude_increase_same_sign({"w": torch.tensor([3.0, 5.0, 0.5])}, m, Evidence(theta_0=theta_0))
        {'w': tensor([ 2.0000, -1.5000, -0.5000])}
    """
    scores = by_both(params, masks, evidence, lambda initial, trained: trained.abs().sub_(initial.abs()))
    named = signs(params, masks, evidence)
    return the_rest_below(scores, named)
