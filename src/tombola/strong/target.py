"""The network that a strong ticket is to stand for, read as layers with ReLU between them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import InvalidValue

_IDLE: Final = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_POOLS: Final = (nn.MaxPool2d, nn.AvgPool2d)


@final
@dataclass(frozen=True)
class Reshape:
    """What comes before a layer and has no weights: flattening and pooling, which keep what is positive positive.

    Attributes:
        kind: ``flatten``, ``max`` or ``average``.
        size, stride: of a pool's windows, height and width.
        padding: of the pool.
    """

    kind: str
    size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it to ``[batch, ...]``."""
        match self.kind:
            case "flatten":
                return x.flatten(1)
            case "max":
                return functional.max_pool2d(x, self.size, self.stride, self.padding)
            case _:
                return functional.avg_pool2d(x, self.size, self.stride, self.padding)

    @property
    def gain(self) -> float:
        """Bound how much further apart two inputs can come, in the Euclidean norm: by overlapping windows."""
        if self.kind == "flatten":
            return 1.0
        often = math.prod(math.ceil(size / stride) for size, stride in zip(self.size, self.stride, strict=True))
        return math.sqrt(often) * (1.0 if self.kind == "max" else 1 / math.sqrt(math.prod(self.size)))


@final
@dataclass(frozen=True)
class Layer:
    """A linear or convolutional layer.

    Attributes:
        name: of the module.
        weight: float64 ``[out, in]``, or ``[out, in, height, width]``.
        bias: float64 ``[out]``; ``None`` without one.
        before: what is done to its input first.
        relu: whether a ReLU follows.
        stride, padding, dilation: of a convolution.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    before: tuple[Reshape, ...] = ()
    relu: bool = False
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def convolution(self) -> bool:
        """Whether it is one."""
        return self.weight.dim() == 4

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply it with other weights: no reshaping, no ReLU."""
        if not self.convolution:
            return functional.linear(x, weight, bias)
        return functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation)


@final
@dataclass(frozen=True)
class Target:
    """A feed-forward ReLU network.

    Attributes:
        layers: in order.
    """

    layers: tuple[Layer, ...] = field(default_factory=tuple)

    def activations(self, x: Tensor) -> list[Tensor]:
        """Give what every layer reads, reshaped, and at the end the logits; in the dtype of ``x``."""
        found: list[Tensor] = []
        for layer in self.layers:
            for reshape in layer.before:
                x = reshape(x)
            found.append(x)
            bias = None if layer.bias is None else layer.bias.to(x.dtype)
            x = layer.linear(x, layer.weight.to(x.dtype), bias)
            x = functional.relu(x) if layer.relu else x
        return [*found, x]

    def __call__(self, x: Tensor) -> Tensor:
        """Give the logits of ``[batch, ...]``, in its dtype."""
        return self.activations(x)[-1]

    @property
    def weights(self) -> int:
        """Count weights and biases, those that are 0 too."""
        return sum(one.weight.numel() + (0 if one.bias is None else one.bias.numel()) for one in self.layers)


def read(module: nn.Module) -> Target:
    """Read a module as a target.

    An ``nn.Sequential``, nested or not, of linear and two-dimensional convolutional layers with ReLU between them;
    pooling, flattening and dropout (which does nothing in evaluation) may stand between.

    Raises:
        InvalidValue: another part, no ReLU between two layers, or a weight that is not finite.
    """
    layers: list[Layer] = []
    before: list[Reshape] = []
    for name, part in _flat(module, ""):
        if type(part) is nn.ReLU and layers and not before:
            layers[-1] = replace(layers[-1], relu=True)
        elif type(part) is nn.ReLU and layers and layers[-1].relu:
            continue
        elif (reshape := _reshape(name, part)) is not None:
            before.append(reshape)
        elif isinstance(part, nn.Linear | nn.Conv2d) and type(part) in (nn.Linear, nn.Conv2d):
            if layers and not layers[-1].relu:
                raise InvalidValue(
                    f"there is no ReLU between {layers[-1].name!r} and {name!r}, and the construction needs one: what "
                    "a layer reads is then not negative. Fold the two into one layer, or put an nn.ReLU between."
                )
            layers.append(_layer(name, part, tuple(before)))
            before = []
        else:
            raise InvalidValue(
                f"{name or 'the network'!r} is a {type(part).__name__}, and a strong ticket stands for an "
                "nn.Sequential of Linear, Conv2d, ReLU, MaxPool2d, AvgPool2d, Flatten and Dropout. A smooth activation "
                "has no copy in random ReLU neurons."
            )
    if not layers:
        raise InvalidValue("the network has no Linear and no Conv2d, so there is nothing to stand for.")
    if before:
        raise InvalidValue(f"after the last layer {layers[-1].name!r} there is a {before[0].kind}; end with a layer.")
    return Target(tuple(layers))


def _flat(module: nn.Module, name: str) -> Sequence[tuple[str, nn.Module]]:
    if type(module) is nn.Sequential:
        parts = [(f"{name}.{child}".lstrip("."), part) for child, part in module.named_children()]
        return [one for inner, part in parts for one in _flat(part, inner)]
    return [] if type(module) in _IDLE else [(name, module)]


def _reshape(name: str, part: nn.Module) -> Reshape | None:
    if type(part) is nn.Flatten:
        if (part.start_dim, part.end_dim) != (1, -1):
            raise InvalidValue(f"{name!r} flattens other axes than all but the first; use nn.Flatten().")
        return Reshape("flatten")
    if type(part) not in _POOLS:
        return None
    assert isinstance(part, nn.MaxPool2d | nn.AvgPool2d)
    plain = not part.ceil_mode and getattr(part, "dilation", 1) in (1, (1, 1))
    if not plain or getattr(part, "divisor_override", None) or not getattr(part, "count_include_pad", True):
        raise InvalidValue(f"{name!r} pools with dilation, ceil_mode or a divisor of its own; use a plain pool.")
    kind = "max" if isinstance(part, nn.MaxPool2d) else "average"
    size = _pair(part.kernel_size)
    return Reshape(kind, size, size if part.stride is None else _pair(part.stride), _pair(part.padding))


def _layer(name: str, part: nn.Linear | nn.Conv2d, before: tuple[Reshape, ...]) -> Layer:
    weight = part.weight.detach().to("cpu", torch.float64)
    bias = None if part.bias is None else part.bias.detach().to("cpu", torch.float64)
    for what, values in (("weight", weight), ("bias", bias)):
        if values is not None and not bool(values.isfinite().all()):
            bad = int((~values.isfinite()).sum())
            raise InvalidValue(
                f"{bad} of {values.numel()} values of {name}.{what} are NaN or infinite. Train it again."
            )
    if isinstance(part, nn.Linear):
        return Layer(name, weight, bias, before)
    if part.groups != 1 or part.padding_mode != "zeros" or isinstance(part.padding, str):
        raise InvalidValue(f"{name!r} has groups, or pads otherwise than with a number of zeros; use a plain Conv2d.")
    padding = _pair(part.padding)
    reach = [
        dilation * (side - 1) for dilation, side in zip(_pair(part.dilation), _pair(part.kernel_size), strict=True)
    ]
    for pad, dilation, far in zip(padding, _pair(part.dilation), reach, strict=True):
        if part.bias is not None and (2 * pad > far or pad % dilation):
            raise InvalidValue(
                f"{name!r} pads so much that no tap of its kernel is always on the image, and its bias needs one. Pad "
                "by no more than half of the kernel's size less 1."
            )
    return Layer(name, weight, bias, before, False, _pair(part.stride), padding, _pair(part.dilation))


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
