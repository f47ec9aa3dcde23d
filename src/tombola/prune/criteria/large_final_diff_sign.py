"""Large trained values that changed their sign: the others go first."""

from tombola.prune.criteria.initial import by_both, signs, the_rest_below
from tombola.prune.evidence import Evidence
from tombola.types import Masks, Params, Scores


def large_final_diff_sign(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight that changed its sign by its magnitude, :math:`s = |w|`; the others rank below.

    The criterion ``large_final_diff_sign`` of Zhou et al. (2019), section 2, where
    the named half is that of :math:`\operatorname{sign} w \neq \operatorname{sign} w_0`.

    Two departures. Their other half scores 0, which a weight of the named half may score as well; here it ranks below
    every weight of the named half, in all tensors, and its weights tie. And a zero, whose sign they leave open, shares
    its sign with zero only.

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
        >>> large_final_diff_sign({"w": torch.tensor([3.0, 5.0, -6.0])}, m, Evidence(theta_0=theta_0))
        {'w': tensor([0., 5., 6.])}
    """
    scores = by_both(params, masks, evidence, lambda _, trained: trained.abs())
    named = {name: ~same for name, same in signs(params, masks, evidence).items()}
    return the_rest_below(scores, named)
