"""The Hessian of the loss with respect to the network's outputs, example by example."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from tombola.errors import InvalidValue
from tombola.prune.curvature.examples import gradients

Loss = Callable[[Tensor, Tensor], Tensor]

_ROUNDING: Final = 1e-9
"""An eigenvalue this small, relative to the largest of its example, is taken for the zero that rounding moved."""

_TINY: Final = 1e-14
"""And so is this small a one: of saturated outputs the largest is no more than rounding itself."""


def output_hessian(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Differentiate the loss twice with respect to the outputs of each example by itself.

    Args:
        loss: ``(outputs, targets) -> scalar``, a mean over the examples.
        outputs: ``[batch, ...]``, any floating-point dtype.
        targets: ``[batch, ...]``.

    Returns:
        float64, ``[batch, K, K]``, where ``K`` is the number of outputs of an example. Of cross-entropy it is
        ``diag(p) - p p^T``; of the mean squared error ``2 / K`` times the identity.
    """
    # In float64 whatever the network's dtype: near zero loss 1 - p is lost in float32.
    shape = outputs.shape
    flat = outputs.detach().double().flatten(1).requires_grad_()
    with torch.enable_grad():
        # Times the number of examples, the gradient of the mean holds that of each example's own loss.
        value = loss(flat.reshape(shape), _double(targets.detach())) * shape[0]
        (slope,) = gradients(value, [flat], create_graph=True)
        columns = [gradients(one.sum(), [flat], retain_graph=True)[0] for one in slope.unbind(1)]
    return torch.stack(columns, -1).detach()


def _double(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def output_factor(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Find ``S`` with ``S S^T`` the Hessian of each example's loss with respect to its outputs.

    Returns:
        float64, ``[batch, K, columns]``; columns that are zero for all examples are left out.

    Raises:
        InvalidValue: the loss is not convex in the outputs, so there is no such ``S``.
    """
    values, vectors = torch.linalg.eigh(output_hessian(loss, outputs, targets))
    largest = values.abs().amax(1, keepdim=True)
    if bool((values < -_ROUNDING * largest - _TINY).any()):
        raise InvalidValue(
            f"the loss is not convex in the network's outputs: its Hessian has the eigenvalue {values.min():.3g}. The "
            "generalised Gauss-Newton matrix needs a convex one, such as cross-entropy; use 'obd-hutchinson'."
        )
    kept = (values > 1e-14 * largest).any(0)
    factor: Tensor = (vectors * values.clamp(min=0).sqrt().unsqueeze(1))[..., kept]
    return factor


def output_diagonal(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Give the diagonal of that Hessian: float64, of the shape of ``outputs``; of cross-entropy ``p (1 - p)``."""
    return output_hessian(loss, outputs, targets).diagonal(dim1=1, dim2=2).reshape(outputs.shape)
