"""What a criterion may know of a network's layers, without the network: uses of weights, and the chain of stages."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

from tombola.types import Params


@final
@dataclass(frozen=True)
class Use:
    """One use of a weight in a forward pass; a weight may have several.

    Attributes:
        weight: its name.
        kind: ``linear`` (``[out, in]`` applied to the last axis of the input) or ``conv``.
        inputs: what entered, ``[batch, ..., in]`` or ``[batch, channels, *sides]``; padding that is not zeros, or not
            the same at both ends, has been added to it.
        outputs: what left, bias included; part of the graph of the pass, so gradients with respect to it can be taken
            where one of the values requires them.
        stride, padding, dilation: of a convolution, one number for each side; ``padding`` is by zeros at both ends.
        groups: of a convolution.
    """

    weight: str
    kind: str
    inputs: Tensor
    outputs: Tensor
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1


@final
@dataclass(frozen=True)
class Stage:
    """One stage of a network that is a chain.

    Attributes:
        kind: ``linear``, ``conv``, ``activation`` (entry by entry, as batch norm is by its running statistics), ``max``
            (each output is one of the inputs), ``average`` (of some of the inputs' entries, the same in each channel)
            or ``reshape``.
        apply: ``(values, inputs) -> outputs``, pure; ``values`` as in :class:`~tombola.prune.evidence.Evidence`, and
            those of other stages are not looked at.
        weight: the name of its weight, where it is ``linear`` or ``conv``.
        bias: the name of its bias, where it has one.
    """

    kind: str
    apply: Callable[[Params, Tensor], Tensor]
    weight: str | None = None
    bias: str | None = None
