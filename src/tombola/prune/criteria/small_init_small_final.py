"""Small before and after: a control for large before and after."""

from tombola.prune.criteria.initial import by_lesser_rank
from tombola.prune.evidence import Evidence
from tombola.types import Masks, Params, Scores


def small_init_small_final(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight by the lesser rank of its initial and its trained smallness.

    The criterion ``small_init_small_final`` of Zhou et al. (2019), section 2: a weight is kept where both
    :math:`|w_0|` and :math:`|w|` lie below one quantile of theirs, the quantile chosen so that as many are left as are
    wanted; by ranks, as in ``large_init_large_final``.

    Args:
        params: name -> float tensor, any shape and device; the weights at the end of a level.
        masks: name -> bool tensor, same shape; a name that is absent stays dense.
        evidence: ``theta_0`` is required.

    Returns:
        name -> float64 tensor of the shape of the parameter, for the names in ``masks``: which share of the tensor's
        weights that are left lies below, in [0, 1). Larger is kept longer; ``-inf`` where pruned.

    Raises:
        MissingEvidence: there is no ``theta_0``.
        ShapeMismatch: a mask's shape differs from its parameter's, or from its initial value's.

    Example:
        >>> import torch
        >>> theta_0, m = {"w": torch.tensor([1.0, -2.0, 3.0])}, {"w": torch.ones(3, dtype=torch.bool)}
        >>> small_init_small_final({"w": torch.tensor([2.0, 3.0, -4.0])}, m, Evidence(theta_0=theta_0))
        {'w': tensor([0.6667, 0.3333, 0.0000], dtype=torch.float64)}
    """
    return by_lesser_rank(params, masks, evidence, lambda values: values.abs().neg_())
