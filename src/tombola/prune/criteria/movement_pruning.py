"""Movement pruning: the weights that training pushed away from zero are kept."""

import torch
from torch import Tensor

from tombola.errors import MissingEvidence, ShapeMismatch
from tombola.prune.evidence import Evidence
from tombola.prune.masks import check
from tombola.types import Masks, Params, Scores


def movement_pruning(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight by how far training pushed it from zero, :math:`s = -\sum_t \eta_t g_t w_t`.

    Sanh et al. (2020), section 4: the importance that their scores accumulate under plain gradient descent, with the
    network's learning rate :math:`\eta_t` for theirs. Positive where the steps enlarged the weight, whatever its size.

    A departure. Their forward pass hides a weight and their backward pass reaches it, so that it may return. Here a
    pruned weight is zero, its score stays what it was, and it never returns. And the weights train under the mask of
    the level before, not under one drawn anew at each step.

    Args:
        params: name -> float tensor; only shapes and devices are used.
        masks: name -> bool tensor, same shape; a name that is absent stays dense.
        evidence: ``moved`` is required: the sum over the training that ended in ``params``.

    Returns:
        name -> tensor of the parameter's shape and the sum's dtype, for the names in ``masks``. Larger is kept longer;
        ``-inf`` where pruned.

    Raises:
        MissingEvidence: there is no ``moved``, or none of a masked tensor.
        ShapeMismatch: a mask's shape differs from its parameter's, or from its sum's.

    Example:
        >>> import torch
        >>> given = Evidence(moved={"w": torch.tensor([0.5, -0.25])})
        >>> movement_pruning({"w": torch.tensor([1.0, 9.0])}, {"w": torch.tensor([True, True])}, given)
        {'w': tensor([ 0.5000, -0.2500])}
    """
    check(params, masks)
    moved: Params = evidence.require("moved")
    return {name: _of(moved, name, mask).masked_fill(~mask, -torch.inf) for name, mask in masks.items()}


def _of(moved: Params, name: str, mask: Tensor) -> Tensor:
    """Give one tensor's sum, on the mask's device."""
    if name not in moved:
        raise MissingEvidence(
            f"the criterion needs what training added up for {name!r}, and evidence.moved holds "
            f"{', '.join(moved) or 'nothing'}. It is added up for every tensor that is pruned."
        )
    if moved[name].shape != mask.shape:
        raise ShapeMismatch(
            f"evidence.moved holds {name!r} with shape {tuple(moved[name].shape)}, and its mask has "
            f"{tuple(mask.shape)}. There is one sum for each weight."
        )
    return moved[name].detach().to(mask.device)
