"""Taylor: the weights whose removal would change the loss, by the first order of its expansion, are kept."""

import torch

from tombola.prune.criteria.gradients import (
    differentiable,
    gradient,
    leaves,
    losses,
    masked_values,
    products,
    working_dtype,
)
from tombola.prune.evidence import Evidence
from tombola.prune.masks import check
from tombola.types import Masks, Params, Scores


def taylor(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight by the squared change of the loss at its removal, by first order, :math:`s = (g w)^2`.

    Molchanov et al. (2019), section 3.1, equation 8: squared for each batch, then averaged over the batches, so that
    changes of both signs do not cancel. This is a weight's own score. That of a filter, of which they make a sum before
    it is squared, takes the products of its weights together and is another one than the sum of these.

    The score is defined by batches: cut otherwise, the same examples give others.

    Args:
        params: name -> float tensor, any shape and device.
        masks: name -> bool tensor, same shape; a name that is absent stays dense.
        evidence: ``loss``, ``batches`` and ``forward_training`` (or ``forward``) are required; ``buffers`` where the
            network has some.

    Returns:
        name -> float64 tensor of the parameter's shape, for the names in ``masks``: in squared units of the loss;
        ``-inf`` where pruned.

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
        >>> taylor({"w": torch.tensor([3.0, -1.0])}, {"w": torch.tensor([True, True])}, given)
        {'w': tensor([144.,  16.], dtype=torch.float64)}
    """
    check(params, masks)
    with differentiable():
        values = masked_values(params, masks, evidence.buffers, working_dtype(params))
        at = leaves(values, masks)
        scores = {name: torch.zeros_like(leaf, dtype=torch.float64, requires_grad=False) for name, leaf in at.items()}
        batches = 0
        for _, loss in losses({**values, **at}, evidence):
            g = dict(zip(at, gradient(loss, list(at.values())), strict=True))
            for name, product in products(at, g):
                scores[name].add_(product.square_())
            batches += 1
    return {name: score.div_(batches).masked_fill_(~masks[name], -torch.inf) for name, score in scores.items()}
