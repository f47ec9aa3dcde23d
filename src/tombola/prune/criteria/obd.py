"""Optimal Brain Damage over the exact Gauss-Newton diagonal."""

from tombola.prune.criteria.saliency import saliency
from tombola.prune.curvature import examples, ggn_diagonal, mean_gradient
from tombola.prune.evidence import Evidence
from tombola.types import Masks, Params, Scores


def obd(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight by how much deleting it raises the loss, :math:`s_k = h_{kk} w_k^2 / 2`.

    The saliency of LeCun et al. (1990), section 2. Here ``h`` is the exact diagonal of the generalised Gauss-Newton
    matrix, not the paper's recursion: with piecewise linear units it is the Hessian's own. :func:`obd_lecun` follows
    the paper.

    Args:
        params: name -> float tensor, any shape and device.
        masks: name -> bool tensor, same shape; the loss is looked at with the masked weights.
        evidence: ``forward``, ``loss`` and ``batches``; ``uses`` makes it fast.

    Returns:
        name -> tensor of the parameter's shape and device, for the names in ``masks``, float64 where all parameters
        are, else float32; nowhere negative where a weight is left, ``-inf`` where it is pruned.

    Raises:
        MissingEvidence: one of the three is missing.
        ShapeMismatch: a mask's shape differs from its parameter's.
        InvalidValue: the loss is not convex in the outputs.
    """
    given = examples(params, masks, evidence)
    return saliency(given, masks, ggn_diagonal(given, evidence))


def obd_first(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score as :func:`obd`, with the term of first order, :math:`s_k = -g_k w_k + h_{kk} w_k^2 / 2`.

    The first two terms of the series of LeCun et al. (1990), section 2, which takes the network to be at a minimum and
    drops the first: a trained network is never quite at one, and a masked one less so. Scores may be negative, where
    deleting a weight lowers the loss.

    Args, Returns, Raises: as for :func:`obd`.
    """
    given = examples(params, masks, evidence)
    return saliency(given, masks, ggn_diagonal(given, evidence), mean_gradient(given, evidence))
