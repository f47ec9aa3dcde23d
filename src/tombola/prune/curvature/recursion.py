"""The diagonal of the Hessian as Optimal Brain Damage publishes it: backwards through the layers."""

import torch
from torch import Tensor

from tombola.errors import InvalidValue
from tombola.prune.curvature.examples import Examples, gradients
from tombola.prune.curvature.output import Loss, output_diagonal
from tombola.prune.evidence import Evidence
from tombola.prune.layers import Stage
from tombola.types import Params


def lecun_diagonal(given: Examples, evidence: Evidence, *, levenberg_marquardt: bool = False) -> dict[str, Tensor]:
    r"""Compute second derivatives by the recursion of LeCun et al. (1990), section 2.1.

    With ``a_i = sum_j w_ij x_j`` and ``x_i = f(a_i)``, for each example, and averaged over them:

    - a weight: :math:`h_{ij} = E''_{a_i} x_j^2`, and a shared weight's is the sum over its uses;
    - a unit: :math:`E''_{a_i} = f'(a_i)^2 \sum_l w_{li}^2 E''_{a_l} + f''(a_i)\, \partial E / \partial x_i`;
    - at the outputs: the diagonal of the Hessian of the loss, the paper's :math:`2` for squared errors, and
      :math:`p (1 - p)` for cross-entropy, which the paper does not treat.

    It neglects the curvature between units, and between the uses of a shared weight: an approximation.

    Args:
        given: the network and the examples.
        evidence: ``stages`` and ``loss``.
        levenberg_marquardt: leave the term with ``f''`` out, after which nothing is negative.

    Returns:
        name -> tensor of the parameter's shape, for the names asked for.

    Raises:
        InvalidValue: the network is no chain of layers, or a name is not of a linear or convolutional one's.
    """
    stages = evidence.stages
    if stages is None:
        raise InvalidValue(
            "the recursion of LeCun et al. (1990) runs through a chain of linear and convolutional layers, activations "
            "and pooling, and this network is none. Use 'obd', which is exact for ReLU, or 'obd-hutchinson'."
        )
    own = {name for stage in stages for name in (stage.weight, stage.bias)}
    if others := [name for name in given.names if name not in own]:
        raise InvalidValue(
            f"the recursion of LeCun et al. (1990) is for weights of linear and convolutional layers, and "
            f"{', '.join(others)} is of none. Leave it dense, or use 'obd'."
        )
    loss = evidence.require("loss")
    found = {name: torch.zeros_like(given.values[name]) for name in given.names}
    for inputs, targets in given.chunks():
        entered = [inputs]
        with torch.no_grad():
            for stage in stages:
                entered.append(stage.apply(given.values, entered[-1]))
        outputs = entered.pop()
        curve = output_diagonal(loss, outputs, targets).to(outputs.dtype)
        slope = _slope(loss, outputs, targets) if not levenberg_marquardt else torch.zeros_like(outputs)
        for stage, x in zip(reversed(stages), reversed(entered), strict=True):
            for name, part in _weights(stage, given.values, x, curve).items():
                if name in found:
                    found[name] += part / given.count
            curve, slope = _back(stage, given.values, x, curve, slope)
    return found


def _slope(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Differentiate each example's loss by its outputs."""
    leaf = outputs.detach().requires_grad_()
    with torch.enable_grad():
        (found,) = gradients(loss(leaf, targets) * outputs.shape[0], [leaf])
    return found


def _weights(stage: Stage, values: Params, x: Tensor, curve: Tensor) -> dict[str, Tensor]:
    """Give the second derivatives with respect to a layer's weight and bias, summed over the examples."""
    if stage.weight is None:
        return {}
    names = [name for name in (stage.weight, stage.bias) if name is not None]
    squares = {name: values[name].square().requires_grad_() for name in names}
    with torch.enable_grad():
        # The layer is linear in weights and inputs, so its gradient at squared inputs is what the recursion asks for.
        found = gradients(stage.apply(squares, x.square()), list(squares.values()), grad_outputs=curve)
    return dict(zip(names, found, strict=True))


def _back(stage: Stage, values: Params, x: Tensor, curve: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Carry second and first derivatives with respect to what left a stage to what entered it."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        y = stage.apply(values, leaf)
        (first,) = gradients(y, [leaf], grad_outputs=slope, retain_graph=True)
        if stage.kind == "activation":
            (rate,) = gradients(y.sum(), [leaf], create_graph=True)
            (bend,) = gradients(rate.sum(), [leaf])
            return rate.detach().square() * curve + bend * slope, first
        if stage.kind in {"max", "reshape"}:
            return gradients(y, [leaf], grad_outputs=curve)[0], first
    if stage.kind == "average":
        return _average(stage, values, x, curve), first
    squares = {name: values[name].square() for name in (stage.weight, stage.bias) if name is not None}
    with torch.enable_grad():
        (second,) = gradients(stage.apply(squares, leaf), [leaf], grad_outputs=curve)
    return second, first


def _average(stage: Stage, values: Params, x: Tensor, curve: Tensor) -> Tensor:
    """Carry second derivatives back through pooling: by the squares of its coefficients, which are read off it."""
    sides = x.shape[2:]
    single = torch.eye(sides.numel(), dtype=x.dtype, device=x.device).reshape(-1, 1, *sides)
    squares = stage.apply(values, single).flatten(1).square()
    return (curve.flatten(2) @ squares.T).reshape(x.shape)
