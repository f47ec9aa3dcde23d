"""Optimal Brain Surgeon, in blocks: the other weights make up for the deleted one."""

import torch
from torch import Tensor

from tombola.errors import InvalidValue
from tombola.prune.curvature import damping, enough, examples, grams, losses, updates
from tombola.prune.evidence import Evidence
from tombola.prune.masks import apply, check, nested, ones
from tombola.types import Masks, Params, Scores

_FRACTION = 1e-4


def obs(
    params: Params, masks: Masks, evidence: Evidence, *, block: int | None = None, fraction: float = _FRACTION
) -> Scores:
    r"""Score each weight by :math:`s_q = w_q^2 / (2 [H^{-1}]_{qq})`.

    The saliency of Hassibi & Stork (1993), equation 5: what deleting a weight costs once the others make up for it. As
    in Singh & Alistarh (2020), section 3, ``H`` has blocks of consecutive weights of a tensor on its diagonal and
    zeros elsewhere. Unlike there it holds the exact generalised Gauss-Newton matrix, not the gradients' outer products,
    which say nothing near zero loss. A fraction of the diagonal's mean over the whole network is added to it.

    Args:
        params: name -> float tensor, any shape and device.
        masks: name -> bool tensor, same shape; the loss is looked at with the masked weights.
        evidence: ``forward``, ``loss`` and ``batches``; ``uses`` makes it fast.
        block: weights in a block; unless given 32 to 128, by the network's size. Batches are looked at until there are
            as many examples.
        fraction: of the diagonal's mean, added to the diagonal.

    Returns:
        name -> float64 tensor of the parameter's shape and device, for the names in ``masks``; nowhere negative where a
        weight is left, ``-inf`` where it is pruned.

    Raises:
        MissingEvidence: one of the three is missing.
        ShapeMismatch: a mask's shape differs from its parameter's.
        InvalidValue: the loss is not convex in the outputs; a block or a fraction that is not positive.
    """
    _positive(fraction)
    evidence = enough(masks, evidence, block)
    given = examples(params, masks, evidence)
    added = damping(given, masks, evidence, fraction)
    found = {
        name: torch.full(mask.shape, -torch.inf, dtype=torch.float64, device=mask.device)
        for name, mask in masks.items()
    }
    for gram in grams(given, masks, evidence, block):
        scores = losses(gram.blocks(given.values[gram.name].reshape(-1)), gram.matrices, added)
        found[gram.name].view(-1)[gram.index] = scores.reshape(-1)[: len(gram.index)]
    return found


def obs_compensate(
    params: Params,
    before: Masks,
    after: Masks,
    evidence: Evidence,
    *,
    block: int | None = None,
    fraction: float = _FRACTION,
) -> dict[str, Tensor]:
    r"""Change the survivors to make up for the weights that a cut deletes.

    :math:`\delta w = -[H^{-1}]_{:Q} ([H^{-1}]_{QQ})^{-1} w_Q` for the set ``Q`` that is deleted in a block:
    Hassibi & Stork (1993), equation 5, for several weights at once; blocks and ``H`` as for :func:`obs`, at the weights
    before the cut.

    Args:
        params: name -> float tensor.
        before: the masks before the cut; a name that is absent was dense.
        after: those after it, nested in the first.
        evidence: as for :func:`obs`.
        block: as for :func:`obs`.
        fraction: as for :func:`obs`.

    Returns:
        Every parameter, in its own dtype. Those in ``after`` have new values where the cut deleted weights of their
        block, and exact zeros where they are pruned; the others are the tensors given.

    Raises:
        MissingEvidence, ShapeMismatch, InvalidValue: as for :func:`obs`; masks that are not nested.
    """
    _positive(fraction)
    check(params, after)
    check(params, before)
    whole = {name: before.get(name, one) for name, one in ones(params, after).items()}
    if not nested(after, whole):
        raise InvalidValue(
            "the masks after the cut keep weights that the masks before it had pruned. A cut only deletes; pass the "
            "two masks in their order."
        )
    # The others' masks stay on: they change the loss, and none of their weights.
    masked = apply(params, {name: mask for name, mask in before.items() if name not in after})
    evidence = enough(whole, evidence, block)
    given = examples(masked, whole, evidence)
    found = apply(params, after)
    if all(torch.equal(mask, after[name]) for name, mask in whole.items()):
        return found
    added = damping(given, whole, evidence, fraction)
    for gram in grams(given, whole, evidence, block):
        old, flat = given.values[gram.name].reshape(-1), after[gram.name].reshape(-1)
        gone = gram.blocks((~flat).to(old.dtype)) > 0
        new = updates(gram.blocks(old), gram.matrices, added, gone).reshape(-1)[: len(gram.index)]
        value = found[gram.name].reshape(-1).clone()
        value[gram.index] = new.to(value.dtype)
        found[gram.name] = value.reshape(after[gram.name].shape)
    return found


def _positive(fraction: float) -> None:
    if not fraction > 0:
        raise InvalidValue(
            f"the fraction of the mean diagonal is {fraction}; it is above 0, or blocks without curvature have no "
            "inverse. The default is 0.0001."
        )
