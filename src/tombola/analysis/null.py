"""The null that contains no seeking: the same movement, handed to other weights of the same input.

Survivors follow large initial weights mechanically: where the displacement knows nothing of the weight it is added to,
``|w_0 + displacement|`` is still large where ``|w_0|`` is. So a measurement speaks for the conjecture only by what it
exceeds on this null. What an input carries (a border pixel that is always black moves nothing) stays with the input.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from tombola.analysis.family import pairs
from tombola.types import Params


def column_order(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw an order of the outputs for each input, independently and uniformly.

    Args:
        shape: of a weight, ``[out, in, ...]``: what stands behind ``out`` is one input each (for a convolution an
            input channel at one position of the kernel).
        generator: a CPU generator.

    Returns:
        int64 of that shape: ``[o, i]`` is the output whose value of input ``i`` goes to output ``o``.
    """
    # float64: of so many float32 draws some would tie, and ties are broken by position.
    return torch.rand(shape, dtype=torch.float64, generator=generator).argsort(0)


def reordered(tensor: Tensor, order: Tensor) -> Tensor:
    """Hand the values of each input to other outputs: ``new[o, i] = tensor[order[o, i], i]``.

    Args:
        tensor: any dtype, shape ``[out, in, ...]``.
        order: int64, same shape, as :func:`column_order` gives it.

    Returns:
        same shape; each column holds the values it held.

    Example:
        >>> reordered(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 0], [0, 1]]))
        tensor([[3, 2],
                [1, 4]])
    """
    return tensor.gather(0, order.to(tensor.device))


def orders(params: Params, names: Collection[str], generator: torch.Generator) -> dict[str, Tensor]:
    """Draw an order of the outputs for each input of the named tensors; those of one axis have none and are left out.

    Args:
        params: name -> tensor; only shapes are used.
        names: of the tensors wanted.
        generator: a CPU generator.
    """
    return {n: column_order(tuple(params[n].shape), generator) for n in names if params[n].dim() > 1}


def without_seeking(
    theta_0: Params, theta_T: Params, names: Collection[str], generator: torch.Generator
) -> dict[str, Tensor]:
    r"""Give trained weights as they could be if nothing had been sought: :math:`w_0 + \pi(w_T - w_0)`.

    The displacement is permuted over the outputs within each input of a tensor (theory sheet, correction 4). Each
    input keeps the multiset of its displacements, so a column in which nothing moved stays as it is. In a grouped
    convolution outputs of different groups read different channels under one column; they are exchanged all the same.

    Args:
        theta_0: name -> initial weights.
        theta_T: name -> trained weights, same shape.
        names: the tensors to do this to; those of one axis are left as they were trained.
        generator: a CPU generator.

    Returns:
        name -> weights, for every name in ``theta_T``; float64 on the CPU for those that were permuted.

    Raises:
        ShapeMismatch: a tensor is missing, or has another shape at the other end.
    """
    moved: Mapping[str, tuple[Tensor, Tensor]] = {n: (w_0, w_T) for n, w_0, w_T in pairs(theta_0, theta_T, names)}
    drawn = orders(theta_0, names, generator)
    found = {name: moved[name][0] + reordered(moved[name][1] - moved[name][0], order) for name, order in drawn.items()}
    return {**theta_T, **found}
