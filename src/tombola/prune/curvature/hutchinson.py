"""The diagonal of the Hessian, estimated by random probes."""

import torch
from torch import Tensor

from tombola.errors import InvalidValue
from tombola.prune.curvature.examples import Examples, gradients
from tombola.prune.evidence import Evidence
from tombola.types import Masks


def hutchinson_diagonal(given: Examples, masks: Masks, evidence: Evidence, probes: int = 10) -> dict[str, Tensor]:
    r"""Estimate the Hessian's diagonal by the mean of :math:`v \odot Hv` over random signs ``v``.

    The estimator of Bekas et al. (2007), section 2, after Hutchinson's (1989) of a trace. It is unbiased, and exact
    where the Hessian is diagonal; its relative error falls as one over the root of the number of probes. Pruned weights
    are no variables: probes are zero there. The examples go through the network some at a time, and each time meets
    probes of its own, which takes no memory for probes and only lowers the error.

    Args:
        given: the network and the examples.
        masks: name -> bool tensor.
        evidence: ``forward``, ``loss`` and ``generator``.
        probes: how many for each 32 examples, each a Hessian-vector product on them. A hundred in all leave an error of
            about a third of the diagonal: 10 are enough for the thousand examples of a search.

    Returns:
        name -> tensor of the parameter's shape, for the names in ``masks``; entries may be negative.

    Raises:
        MissingEvidence: there is no generator.
        InvalidValue: fewer than one probe.
    """
    if probes < 1:
        raise InvalidValue(f"the number of probes is {probes}; it is at least 1. The default is 10.")
    forward, loss, generator = evidence.require("forward"), evidence.require("loss"), evidence.require("generator")
    leaves = given.leaves()
    wanted = [leaves[name] for name in given.names]
    found = [torch.zeros_like(value) for value in wanted]
    for inputs, targets in given.chunks():
        share = inputs.shape[0] / (given.count * probes)
        with torch.enable_grad():
            slopes = gradients(loss(forward(leaves, inputs), targets), wanted, create_graph=True) if wanted else []
        for _ in range(probes):
            signs = [_signs(masks[name], value, generator) for name, value in zip(given.names, wanted, strict=True)]
            with torch.enable_grad():
                along = sum((slope * sign).sum() for slope, sign in zip(slopes, signs, strict=True))
            products = gradients(torch.as_tensor(along), wanted, retain_graph=True)
            for total, sign, product in zip(found, signs, products, strict=True):
                total += share * sign * product
    return dict(zip(given.names, found, strict=True))


def _signs(mask: Tensor, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a sign for each weight that is left, on the CPU whatever the device."""
    drawn = torch.randint(0, 2, mask.shape, dtype=torch.int8, generator=generator).mul_(2).sub_(1)
    return drawn.to(like.device, like.dtype) * mask
