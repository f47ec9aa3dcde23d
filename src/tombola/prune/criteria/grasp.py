"""GraSP: the weights whose removal would reduce the flow of the gradient are kept."""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from tombola.prune.criteria.gradients import (
    differentiable,
    gradient,
    losses,
    masked_values,
    mean_gradient,
    products,
    working_dtype,
)
from tombola.prune.evidence import Evidence
from tombola.prune.masks import check
from tombola.types import Masks, Params, Scores

TEMPERATURE: Final = 200.0
"""What the outputs are divided by, so that the softmax of an untrained network is nearly flat."""


def grasp(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight by how much its removal would reduce the gradient flow, :math:`s = w (H g)`.

    Wang et al. (2020), section 4 and Algorithm 1: removing the weight changes :math:`g^T g` by about
    :math:`-2 w (H g)`, and they remove those of the largest :math:`-w (H g)`; made for the initial weights and a
    ranking of all tensors together. :math:`H` and :math:`g` are those of the mean loss over all batches, of outputs
    divided by 200, with respect to the weights that are left of all masked tensors. Nothing is drawn here: their code
    takes a batch with as many examples of each class, which is the caller's to give.

    Args:
        params: name -> float tensor, any shape and device.
        masks: name -> bool tensor, same shape; a name that is absent stays dense.
        evidence: ``loss``, ``batches`` and ``forward_training`` (or ``forward``) are required, every operation with
            second derivatives; ``buffers`` where the network has some.

    Returns:
        name -> float64 tensor of the parameter's shape, for the names in ``masks``; of either sign, ``-inf`` where
        pruned.

    Raises:
        MissingEvidence: naming the field.
        InvalidValue: the batches hold no example.
        ShapeMismatch: a mask's shape differs from its parameter's.

    Example:
        >>> import torch
        >>> given = Evidence(
        ...     forward=lambda values, x: 200 * x @ values["w"],
        ...     loss=lambda outputs, targets: (outputs - targets).square().mean(),
        ...     batches=[(torch.tensor([[1.0, 1.0]]), torch.tensor([0.0]))],
        ... )
        >>> grasp({"w": torch.tensor([3.0, -1.0])}, {"w": torch.tensor([True, True])}, given)
        {'w': tensor([ 48., -16.], dtype=torch.float64)}
    """
    return {name: score.masked_fill_(~masks[name], -torch.inf) for name, score in _flow(params, masks, evidence)}


def grasp_magnitude(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight by how much its removal would change the gradient flow, :math:`s = |w (H g)|`.

    The variant of Frankle et al. (2021), section 3, which keeps the weights that matter to the flow either way;
    otherwise as :func:`grasp`.

    Args:
        params: name -> float tensor, any shape and device.
        masks: name -> bool tensor, same shape; a name that is absent stays dense.
        evidence: as :func:`grasp` takes it.

    Returns:
        name -> float64 tensor of the parameter's shape, for the names in ``masks``; ``-inf`` where pruned.

    Raises:
        MissingEvidence: naming the field.
        InvalidValue: the batches hold no example.
        ShapeMismatch: a mask's shape differs from its parameter's.
    """
    flow = _flow(params, masks, evidence)
    return {name: score.abs_().masked_fill_(~masks[name], -torch.inf) for name, score in flow}


def _flow(params: Params, masks: Masks, evidence: Evidence) -> Iterator[tuple[str, Tensor]]:
    """Give ``w (H g)`` of each masked tensor, in float64."""
    check(params, masks)
    with differentiable():
        values = masked_values(params, masks, evidence.buffers, working_dtype(params))
        at, g = mean_gradient(values, masks, evidence, temperature=TEMPERATURE)
        # What is pruned is no coordinate of the loss any more, and its gradient no part of the flow.
        fixed = [g[name].masked_fill_(~mask, 0.0) for name, mask in masks.items()]
        total = {name: torch.zeros_like(leaf, requires_grad=False) for name, leaf in at.items()}
        for share, loss in losses({**values, **at}, evidence, temperature=TEMPERATURE):
            parts = gradient(loss, list(at.values()), again=True)
            along = ((one * part).sum() for one, part in zip(fixed, parts, strict=True))
            inner = sum(along, loss.new_zeros(()))
            for sum_, part in zip(total.values(), gradient(inner, list(at.values())), strict=True):
                sum_.add_(part, alpha=share)
    return products(at, total)
