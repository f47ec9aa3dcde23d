"""Optimal Brain Damage by the recursion that its paper publishes."""

from tombola.prune.criteria.saliency import saliency
from tombola.prune.curvature import examples, lecun_diagonal, mean_gradient
from tombola.prune.evidence import Evidence
from tombola.types import Masks, Params, Scores


def obd_lecun(params: Params, masks: Masks, evidence: Evidence, *, levenberg_marquardt: bool = False) -> Scores:
    r"""Score each weight by :math:`s_k = h_{kk} w_k^2 / 2`, with ``h`` layer by layer.

    LeCun et al. (1990), section 2.1: second derivatives are carried back through the layers as first ones are, without
    those between units.

    Args:
        params: name -> float tensor, any shape and device.
        masks: name -> bool tensor, same shape; the loss is looked at with the masked weights.
        evidence: ``stages``, ``loss`` and ``batches``.
        levenberg_marquardt: leave out the term with the activations' second derivative, as the paper allows; no score
            of a weight that is left is negative then.

    Returns:
        name -> tensor of the parameter's shape and device, for the names in ``masks``, float64 where all parameters
        are, else float32; ``-inf`` where pruned.

    Raises:
        MissingEvidence: there is no loss, or there are no batches.
        ShapeMismatch: a mask's shape differs from its parameter's.
        InvalidValue: the network is no chain, or a mask is of no linear or convolutional layer.
    """
    given = examples(params, masks, evidence)
    return saliency(given, masks, lecun_diagonal(given, evidence, levenberg_marquardt=levenberg_marquardt))


def obd_lecun_first(params: Params, masks: Masks, evidence: Evidence, *, levenberg_marquardt: bool = False) -> Scores:
    r"""Score as :func:`obd_lecun`, with the term of first order, :math:`s_k = -g_k w_k + h_{kk} w_k^2 / 2`.

    LeCun et al. (1990), section 2, without the assumption that the network is at a minimum.

    Args, Returns, Raises: as for :func:`obd_lecun`; ``evidence.forward`` is needed too.
    """
    given = examples(params, masks, evidence)
    second = lecun_diagonal(given, evidence, levenberg_marquardt=levenberg_marquardt)
    return saliency(given, masks, second, mean_gradient(given, evidence))
