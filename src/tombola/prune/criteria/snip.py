"""SNIP: the weights that the loss is sensitive to are kept."""

import torch

from tombola.prune.criteria.gradients import differentiable, masked_values, mean_gradient, products, working_dtype
from tombola.prune.evidence import Evidence
from tombola.prune.masks import check
from tombola.types import Masks, Params, Scores


def snip(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight by its connection sensitivity, :math:`s = |g w| / \sum |g w|`.

    Lee et al. (2019), equations 5 and 6: the gradient of the loss with respect to a switch on the weight, which is
    :math:`g w`, in proportion to those of all masked tensors together; made for the initial weights and a ranking of
    all tensors together. The loss is the mean over all batches. Weights pruned before are zero, so that the sensitivity
    is that of the network that is left.

    Args:
        params: name -> float tensor, any shape and device.
        masks: name -> bool tensor, same shape; a name that is absent stays dense.
        evidence: ``loss``, ``batches`` and ``forward_training`` (or ``forward``) are required; ``buffers`` where the
            network has some.

    Returns:
        name -> float64 tensor of the parameter's shape, for the names in ``masks``; ``-inf`` where pruned. The others
        sum to 1, unless the loss depends on none of them and all are 0.

    Raises:
        MissingEvidence: naming the field.
        InvalidValue: the batches hold no example.
        ShapeMismatch: a mask's shape differs from its parameter's.

    Example:
        >>> import torch
        >>> given = Evidence(
        ...     forward=lambda values, x: x @ values["w"],
        ...     loss=lambda outputs, targets: (outputs - targets).square().mean(),
        ...     batches=[(torch.tensor([[1.0, 1.0]]), torch.tensor([0.0]))],
        ... )
        >>> snip({"w": torch.tensor([3.0, -1.0])}, {"w": torch.tensor([True, True])}, given)
        {'w': tensor([0.7500, 0.2500], dtype=torch.float64)}
    """
    check(params, masks)
    with differentiable():
        values = masked_values(params, masks, evidence.buffers, working_dtype(params))
        at, g = mean_gradient(values, masks, evidence)
    scores = {name: product.abs_() for name, product in products(at, g)}
    # A pruned weight is zero, and so is its product.
    total = sum(float(score.sum()) for score in scores.values()) or 1.0
    return {name: score.div_(total).masked_fill_(~masks[name], -torch.inf) for name, score in scores.items()}
