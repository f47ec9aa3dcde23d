"""The diagonal of the generalised Gauss-Newton matrix, exactly."""

import torch
from torch import Tensor

from tombola.prune.curvature.examples import Examples
from tombola.prune.curvature.rows import rows
from tombola.prune.evidence import Evidence


def ggn_diagonal(given: Examples, evidence: Evidence) -> dict[str, Tensor]:
    r"""Compute the diagonal of :math:`\frac1B \sum_b J_b^T H_b J_b` at the masked weights.

    ``J_b`` is the Jacobian of the outputs of example ``b``, ``H_b`` the Hessian of its loss with respect to them:
    the matrix of Schraudolph (2002), section 3. Each entry is a sum of squares of entries of the :class:`Rows`, so
    nothing is estimated. Where the outputs are piecewise linear in every single weight (ReLU, max pooling, batch norm
    by its running statistics, no weight in two layers), it is the diagonal of the Hessian itself, because the term by
    which the two matrices differ holds second derivatives of the outputs.

    Args:
        given: the network and the examples.
        evidence: ``forward`` and ``loss``, which is convex in the outputs; ``uses`` makes it fast.

    Returns:
        name -> tensor of the parameter's shape and ``given.dtype``, nowhere negative, for the names asked for.

    Raises:
        InvalidValue: the loss is not convex in the outputs.
    """
    found = {name: torch.zeros_like(given.values[name]) for name in given.names}
    for one in rows(given, evidence):
        found[one.name] += one.squares() / given.count
    return found
