"""Gradients of the loss at the masked weights, for the criteria that look at data."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from tombola.errors import InvalidValue
from tombola.prune.evidence import Evidence
from tombola.prune.masks import apply
from tombola.types import Masks, Params


@contextmanager
def differentiable() -> Iterator[None]:
    """Let gradients be taken, whatever mode the caller is in."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def masked_values(params: Params, masks: Masks, buffers: Params | None, dtype: torch.dtype) -> dict[str, Tensor]:
    """Give the masked parameters and the floating-point buffers in one dtype, detached.

    Integers, such as batch norm's count of batches, are left out: they are as the network has them.

    Raises:
        ShapeMismatch: a mask's shape differs from its parameter's.
    """
    every = {**(buffers or {}), **apply(params, masks)}
    return {name: _plain(value).to(dtype) for name, value in every.items() if value.is_floating_point()}


def working_dtype(params: Params) -> torch.dtype:
    """Give the dtype that gradients are computed in: the widest of the parameters', at least float32."""
    dtype = torch.float32
    for value in params.values():
        if value.is_floating_point():
            dtype = torch.promote_types(dtype, value.dtype)
    return dtype


def leaves(values: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """Give the masked tensors of ``values`` as leaves that gradients are taken with respect to; they share memory."""
    return {name: values[name].detach().requires_grad_() for name in masks}


def losses(values: Params, evidence: Evidence, *, temperature: float = 1.0) -> Iterator[tuple[float, Tensor]]:
    """Give each batch's loss as in training, with its share of the examples.

    The sum of share times loss is the mean loss over all examples. How these are cut into batches changes it by
    rounding alone, unless batch norm takes its statistics from the batch.

    Args:
        values: every parameter and floating-point buffer, of one dtype; what requires a gradient gets one.
        evidence: ``loss`` and ``batches`` are required, and ``forward_training``, or ``forward`` in its absence.
        temperature: what the outputs are divided by.

    Yields:
        The share, and the loss, a scalar with its graph; floating-point inputs and targets are brought to the dtype of
        the values.

    Raises:
        MissingEvidence: naming the field.
        InvalidValue: there are no batches, or no examples in them.
    """
    forward = evidence.forward_training or evidence.require("forward")
    loss = evidence.require("loss")
    batches = evidence.require("batches")
    examples = sum(len(inputs) for inputs, _ in batches)
    if not examples:
        raise InvalidValue(
            f"the criterion takes gradients of a loss, and the evidence holds {len(batches)} batches without an "
            "example. Pass Evidence(batches=[(inputs, targets), ...]) with some of the training split."
        )
    one = next(iter(values.values()), torch.zeros(()))
    for inputs, targets in batches:
        outputs = forward(values, like(inputs, one))
        yield len(inputs) / examples, loss(outputs / temperature, like(targets, one))


def gradient(of: Tensor, at: Sequence[Tensor], *, again: bool = False) -> list[Tensor]:
    """Differentiate a scalar; zero for what it does not depend on.

    Args:
        of: a scalar with its graph.
        at: leaves.
        again: whether the result is differentiated as well.
    """
    if not at or not of.requires_grad:
        return [torch.zeros_like(leaf) for leaf in at]
    return list(torch.autograd.grad(of, at, create_graph=again, materialize_grads=True))


def mean_gradient(
    values: Params, masks: Masks, evidence: Evidence, *, temperature: float = 1.0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Differentiate the mean loss over all examples with respect to the masked tensors.

    Args:
        values: every parameter and floating-point buffer, of one dtype.
        masks: name -> bool tensor; the names to differentiate.
        evidence: as in :func:`losses`.
        temperature: what the outputs are divided by.

    Returns:
        name -> the leaf, and name -> gradient; of pruned entries too, as if they were zero weights.
    """
    at = leaves(values, masks)
    total = {name: torch.zeros_like(leaf) for name, leaf in at.items()}
    for share, loss in losses({**values, **at}, evidence, temperature=temperature):
        for sum_, part in zip(total.values(), gradient(loss, list(at.values())), strict=True):
            sum_.add_(part, alpha=share)
    return at, total


def products(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Multiply tensors of the same names entry by entry, in float64, where the product of two floats is not lost."""
    return ((name, value.detach().double() * second[name].detach().double()) for name, value in first.items())


def like(value: Tensor, other: Tensor) -> Tensor:
    """Bring a tensor to another's device and, where it is floating-point, to its dtype."""
    return _plain(value).to(other.device, other.dtype if value.is_floating_point() else None)


def _plain(value: Tensor) -> Tensor:
    """Give a tensor that a graph may hold: those made under ``torch.inference_mode`` it may not."""
    return value.clone() if value.is_inference() else value.detach()
