"""Optimal Brain Damage over a diagonal that random probes estimate."""

from tombola.prune.criteria.saliency import saliency
from tombola.prune.curvature import examples, hutchinson_diagonal, mean_gradient
from tombola.prune.evidence import Evidence
from tombola.types import Masks, Params, Scores


def obd_hutchinson(params: Params, masks: Masks, evidence: Evidence, *, probes: int = 10) -> Scores:
    r"""Score each weight by :math:`s_k = h_{kk} w_k^2 / 2`, with ``h`` estimated by random probes.

    The saliency of LeCun et al. (1990), section 2, over the estimator of Bekas et al. (2007), section 2: for networks
    that are no chain and have smooth activations, where neither the recursion nor the Gauss-Newton diagonal is the
    Hessian's. With piecewise linear units :func:`obd` is exact and cheaper.

    Args:
        params: name -> float tensor, any shape and device.
        masks: name -> bool tensor, same shape; the loss is looked at with the masked weights.
        evidence: ``forward``, ``loss``, ``batches`` and ``generator``.
        probes: how many; the error falls as one over their root, and the cost rises with them.

    Returns:
        name -> tensor of the parameter's shape and device, for the names in ``masks``, float64 where all parameters
        are, else float32; negative where the estimate is, ``-inf`` where pruned.

    Raises:
        MissingEvidence: one of the four is missing.
        ShapeMismatch: a mask's shape differs from its parameter's.
        InvalidValue: fewer than one probe.
    """
    given = examples(params, masks, evidence)
    return saliency(given, masks, hutchinson_diagonal(given, masks, evidence, probes))


def obd_hutchinson_first(params: Params, masks: Masks, evidence: Evidence, *, probes: int = 10) -> Scores:
    r"""Score as :func:`obd_hutchinson`, with the term of first order, :math:`s_k = -g_k w_k + h_{kk} w_k^2 / 2`.

    LeCun et al. (1990), section 2, without the assumption that the network is at a minimum.

    Args, Returns, Raises: as for :func:`obd_hutchinson`.
    """
    given = examples(params, masks, evidence)
    second = hutchinson_diagonal(given, masks, evidence, probes)
    return saliency(given, masks, second, mean_gradient(given, evidence))
