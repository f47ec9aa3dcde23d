"""The masked weights and the examples in the dtype that curvature is computed in, and the gradient there."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

from tombola.errors import InvalidValue
from tombola.prune.evidence import Evidence
from tombola.prune.masks import apply
from tombola.types import Masks, Params

_CHUNK: Final = 32
"""Examples that enter the network at once, where nothing else decides."""


@final
@dataclass(frozen=True)
class Examples:
    """A masked network and the examples that its loss is a mean over.

    Attributes:
        values: every parameter, masked, detached, in float64 where all are, else in float32 (or better, one by one).
        names: those whose curvature is asked for, in the masks' order.
        batches: pairs of inputs and targets, on the parameters' device; floating-point inputs in the values' dtype.
        count: how many examples there are.
        dtype: of the results.
    """

    values: Params
    names: tuple[str, ...]
    batches: tuple[tuple[Tensor, Tensor], ...]
    count: int
    dtype: torch.dtype

    def chunks(self, size: int = _CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the examples in their order, at most ``size`` at a time."""
        for inputs, targets in self.batches:
            yield from zip(inputs.split(size), targets.split(size), strict=True)

    def leaves(self) -> dict[str, Tensor]:
        """Give the values anew, those in ``names`` as leaves that require a gradient."""
        fresh = {name: self.values[name].detach().requires_grad_() for name in self.names}
        return {**self.values, **fresh}


def examples(params: Params, masks: Masks, evidence: Evidence) -> Examples:
    """Bring parameters, masks and ``evidence.batches`` together.

    Raises:
        MissingEvidence: there are no batches.
        ShapeMismatch: a mask's shape differs from its parameter's.
        InvalidValue: the batches hold no example.
    """
    masked = apply(params, masks)
    floats = [value.dtype for value in masked.values() if value.is_floating_point()]
    dtype = torch.float64 if floats and all(one is torch.float64 for one in floats) else torch.float32
    device = next((value.device for value in masked.values()), torch.device("cpu"))
    batches = tuple(
        (_as(inputs, dtype).to(device), _as(targets, dtype).to(device))
        for inputs, targets in evidence.require("batches")
    )
    count = sum(inputs.shape[0] for inputs, _ in batches)
    if not count:
        raise InvalidValue("the evidence's batches hold no example. Pass batches of the training split.")
    values = {name: _as(value.detach(), dtype) for name, value in masked.items()}
    return Examples(values, tuple(masks), batches, count, dtype)


def mean_gradient(given: Examples, evidence: Evidence) -> dict[str, Tensor]:
    """Take the gradient of the mean loss at the masked weights, in evaluation mode.

    Args:
        given: the network and the examples.
        evidence: ``forward`` and ``loss``.

    Returns:
        name -> tensor of the parameter's shape, for the names asked for; zeros for one without an effect.
    """
    forward, loss = evidence.require("forward"), evidence.require("loss")
    leaves = given.leaves()
    wanted = [leaves[name] for name in given.names]
    found = [torch.zeros_like(value) for value in wanted]
    if not wanted:
        return {}
    for inputs, targets in given.chunks():
        with torch.enable_grad():
            value = loss(forward(leaves, inputs), targets) * (inputs.shape[0] / given.count)
            parts = gradients(value, wanted)
        for total, part in zip(found, parts, strict=True):
            total += part
    return dict(zip(given.names, found, strict=True))


def gradients(of: Tensor, wanted: list[Tensor], **options: Any) -> list[Tensor]:
    """Differentiate, and give zeros for what has no effect."""
    if not of.requires_grad:
        return [torch.zeros_like(value) for value in wanted]
    parts = torch.autograd.grad(of, wanted, allow_unused=True, **options)
    return [torch.zeros_like(value) if part is None else part for value, part in zip(wanted, parts, strict=True)]


def _as(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value
