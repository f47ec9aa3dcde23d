"""The rows of the Gauss-Newton matrix's factor: gradients by example and by column of the loss's factor."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor
from torch.nn import functional

from tombola.prune.curvature.examples import Examples, gradients
from tombola.prune.curvature.output import output_factor
from tombola.prune.evidence import Evidence
from tombola.prune.layers import Use

BYTES: Final = 1 << 28
"""Memory for each of: the activations of a pass, and the gradients of some examples."""

_ALIKE: Final = 1e-3
"""Relative difference from which two gradients are not the same but for rounding in float32."""


@final
@dataclass(frozen=True)
class Rows:
    """For one weight and one column ``c``, the vectors ``J_b^T s_bc`` of some examples ``b``.

    ``J_b`` is the Jacobian of the outputs of example ``b`` with respect to the weight, ``s_bc`` the column of its
    loss's factor. Over all examples and columns the outer products of these vectors sum to the generalised Gauss-Newton
    matrix, times the number of examples.

    Attributes:
        name: the weight's.
        shape: its shape.
        count: how many examples.
        uses: pairs of a use and the gradient with respect to its outputs; without any, ``plain`` holds the vectors.
        plain: ``[count, *shape]``.
    """

    name: str
    shape: torch.Size
    count: int
    uses: tuple[tuple[Use, Tensor], ...] = ()
    plain: Tensor | None = None

    def squares(self) -> Tensor:
        """Sum the entries' squares over the examples: the weight's shape."""
        if len(self.uses) == 1 and self.uses[0][0].inputs.dim() == 2 and self.uses[0][0].kind == "linear":
            use, delta = self.uses[0]
            return delta.square().T @ use.inputs.square()
        found = sum(part.square().sum(0) for part in self.parts(0, self.shape[0]))
        return torch.as_tensor(found).reshape(self.shape)

    def parts(self, first: int, last: int) -> Iterator[Tensor]:
        """Give the vectors' entries of the outputs ``first`` to ``last - 1``, some examples at a time.

        Yields:
            ``[examples, (last - first) * (entries for each output)]``.
        """
        width = math.prod(self.shape[1:])
        if self.plain is not None:
            yield self.plain.reshape(self.count, self.shape[0], width)[:, first:last].flatten(1)
            return
        entry = self.uses[0][1].element_size()
        size = max(1, BYTES // (4 * entry * max(1, (last - first) * width)))
        for begin in range(0, self.count, size):
            some = slice(begin, begin + size)
            found = [_outer(use, delta, some, first, last, self.shape[2:]) for use, delta in self.uses]
            # The vector of an example is the sum over the uses, before anything is squared.
            yield found[0] if len(found) == 1 else torch.stack(found).sum(0)


def rows(given: Examples, evidence: Evidence, names: Sequence[str] | None = None) -> Iterator[Rows]:
    """Walk over examples and columns, in memory that neither of their numbers changes.

    The vectors of a weight that only linear and convolutional layers use are outer products of what entered and of the
    gradient with respect to what left: one backward pass gives those of all examples. Of any other, they take one for
    each example.

    Args:
        given: the network and the examples.
        evidence: ``forward`` and ``loss``; ``uses`` where there are some.
        names: of the weights; all those asked for unless given.

    Yields:
        The rows of a weight, for some examples and one column; a weight without an effect has none.

    Raises:
        InvalidValue: the loss is not convex in the outputs.
    """
    wanted = given.names if names is None else tuple(names)
    layered, size = _layered(given, evidence, wanted)
    if layered:
        yield from _by_layer(given, evidence, layered, size)
    others = [name for name in wanted if name not in layered]
    if others:
        yield from _by_example(given, evidence, others)


def _by_layer(given: Examples, evidence: Evidence, names: Sequence[str], size: int) -> Iterator[Rows]:
    passing, leaves = evidence.require("uses"), given.leaves()
    for inputs, targets in given.chunks(size):
        with torch.enable_grad():
            outputs, uses = passing(leaves, inputs)
        mine = [use for use in uses if use.weight in names]
        factor = output_factor(evidence.require("loss"), outputs, targets).to(outputs.dtype)
        for column in factor.unbind(-1):
            deltas = gradients(
                outputs, [use.outputs for use in mine], grad_outputs=column.reshape(outputs.shape), retain_graph=True
            )
            pairs = list(zip(mine, deltas, strict=True))
            for name in names:
                own = tuple((_detached(use), delta) for use, delta in pairs if use.weight == name)
                yield Rows(name, given.values[name].shape, inputs.shape[0], own)


def _by_example(given: Examples, evidence: Evidence, names: Sequence[str]) -> Iterator[Rows]:
    forward, leaves = evidence.require("forward"), given.leaves()
    wanted = [leaves[name] for name in names]
    for inputs, targets in given.chunks():
        with torch.no_grad():
            outputs = forward(leaves, inputs)
        factors = output_factor(evidence.require("loss"), outputs, targets).to(outputs.dtype)
        for one, factor in zip(inputs.split(1), factors.split(1), strict=True):
            with torch.enable_grad():
                outputs = forward(leaves, one)
            for column in factor.unbind(-1):
                parts = gradients(outputs, wanted, grad_outputs=column.reshape(outputs.shape), retain_graph=True)
                for name, part in zip(names, parts, strict=True):
                    yield Rows(name, part.shape, 1, plain=part[None])


def _layered(given: Examples, evidence: Evidence, names: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Find the weights whose gradient is that of their uses, and how many examples fit into memory.

    A weight may be used in other ways besides, or by a layer that sees the examples along another axis: one example
    shows both, by its gradient and by its inputs' length.
    """
    if evidence.uses is None:
        return (), 1
    inputs, _ = next(given.chunks(1))
    leaves = given.leaves()
    with torch.enable_grad():
        outputs, every = evidence.uses(leaves, inputs)
    uses = [use for use in every if use.weight in names]
    first = torch.linspace(1.0, 2.0, outputs.numel(), dtype=outputs.dtype, device=outputs.device).reshape(outputs.shape)
    wanted = [leaves[name] for name in names]
    found = gradients(outputs, [*wanted, *(use.outputs for use in uses)], grad_outputs=first)
    pairs = list(zip(uses, found[len(wanted) :], strict=True))
    layered = []
    for name, want in zip(names, found, strict=False):
        own = tuple((_detached(use), delta) for use, delta in pairs if use.weight == name)
        if own and all(use.inputs.shape[0] == use.outputs.shape[0] == 1 for use, _ in own):
            (sum_,) = Rows(name, want.shape, 1, own).parts(0, want.shape[0])
            if (sum_.reshape(want.shape) - want).norm() <= _ALIKE * want.norm():
                layered.append(name)
    memory = sum(use.outputs.nbytes * 8 + use.inputs.nbytes for use in every)
    return tuple(layered), max(1, min(256, BYTES // max(1, memory)))


def _detached(use: Use) -> Use:
    return Use(use.weight, use.kind, use.inputs.detach(), use.outputs.detach(), use.stride, use.padding, use.dilation,
               use.groups)  # fmt: skip


def _outer(use: Use, delta: Tensor, some: slice, first: int, last: int, kernel: Sequence[int]) -> Tensor:
    """Multiply what entered and the gradient of what left, summed over positions: ``[examples, flat]``."""
    inputs, delta = use.inputs[some], delta[some]
    if use.kind == "linear":
        delta, inputs = (one.reshape(one.shape[0], -1, one.shape[-1]) for one in (delta[..., first:last], inputs))
        return (delta.mT @ inputs).flatten(1)
    patches = _patches(use, inputs, kernel)
    if use.groups == 1:
        return (delta[:, first:last].flatten(2) @ patches[:, 0].mT).flatten(1)
    found = delta.flatten(2).unflatten(1, (use.groups, -1)) @ patches.mT
    return found.flatten(1, 2)[:, first:last].flatten(1)


def _patches(use: Use, inputs: Tensor, kernel: Sequence[int]) -> Tensor:
    """Gather what each position of a convolution sees: ``[examples, groups, channels * kernel, positions]``."""
    sides = len(kernel)
    seen = functional.pad(inputs, [pad for one in reversed(use.padding) for pad in (one, one)])
    for axis, (size, stride, dilation) in enumerate(zip(kernel, use.stride, use.dilation, strict=True), start=2):
        seen = seen.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    # [examples, channels, *positions, *kernel] -> [examples, channels, *kernel, *positions]
    order = (0, 1, *range(2 + sides, 2 + 2 * sides), *range(2, 2 + sides))
    seen = seen.permute(order).flatten(2 + sides)
    return seen.reshape(inputs.shape[0], use.groups, -1, seen.shape[-1])
