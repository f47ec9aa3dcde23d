"""Following units through a network, one operation after the other."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, final

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.errors import InvalidValue
from tombola.models.operations import (
    EACH,
    EACH_MODULES,
    MEETING,
    MIXING,
    MIXING_MODULES,
    REDUCING,
    RESHAPING,
    SPATIAL,
    SPATIAL_MODULES,
)  # fmt: skip
from tombola.models.spaces import Space, Spaces


@final
@dataclass(frozen=True)
class Stream:
    """A value whose entries belong to units: position ``p`` of ``axis`` to unit ``p // width`` of ``space``."""

    space: Space
    axis: int
    width: int


@final
class Streams(fx.Interpreter):
    """Runs a network on an example and follows its units; what no units are followed through is not looked at."""

    def __init__(self, module: nn.Module, graph: fx.Graph, spaces: Spaces) -> None:
        super().__init__(fx.GraphModule(module, graph))
        self._spaces = spaces
        self._streams: dict[fx.Node, Stream] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one operation, then say where units are in what it gives."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        shapes = {node: tuple(self.env[node].shape) for node in n.all_input_nodes if isinstance(self.env[node], Tensor)}
        result = super().run_node(n)
        coming = [self._streams[node] for node in n.all_input_nodes if node in self._streams]
        if n.op == "output":
            self._stay(coming, "they are outputs of the network")
        elif isinstance(result, Tensor) and n.op in ("call_module", "call_function", "call_method"):
            values = [*args, *kwargs.values()]
            step = _Step(self._spaces, n, values, kwargs, shapes, tuple(result.shape), self._streams)
            found = step.module(self.fetch_attr(str(n.target))) if n.op == "call_module" else step.function()
            if found is not None:
                self._streams[n] = found
        elif coming and not _plain(result):
            known = n.op == "call_module" and isinstance(self.fetch_attr(str(n.target)), MIXING_MODULES)
            if not (known or _called(n) in MIXING):
                _unknown(n, "")
            self._stay(coming, f"{_called(n)!r} mixes them")
        return result

    def _stay(self, coming: Sequence[Stream], reason: str) -> None:
        for stream in coming:
            self._spaces.stay(stream.space, reason)


@final
@dataclass(frozen=True)
class _Step:
    """One operation that gives a tensor."""

    spaces: Spaces
    node: fx.Node
    values: list[Any]
    kwargs: dict[str, Any]
    shapes: dict[fx.Node, tuple[int, ...]]
    shape: tuple[int, ...]
    streams: dict[fx.Node, Stream]

    def coming(self) -> list[tuple[Stream, tuple[int, ...]]]:
        return [(self.streams[n], self.shapes[n]) for n in self.node.all_input_nodes if n in self.streams]

    def module(self, part: nn.Module) -> Stream | None:
        """Follow units through a module that is not looked into."""
        stream, shape = next(iter(self.coming()), (None, ()))
        if isinstance(part, nn.Linear):
            return self._linear(part, stream, shape)
        if isinstance(part, nn.TransformerEncoderLayer | nn.TransformerEncoder):
            return self._encoder(part)
        if isinstance(part, _ConvNd) and not isinstance(part, _ConvTransposeNd):
            return self._conv(part, stream)
        if stream is None or isinstance(part, EACH_MODULES):
            return stream
        if isinstance(part, _NormBase | nn.PReLU):
            if stream.axis != 1:
                return self._mixed("a norm over another axis mixes them")
            if not (isinstance(part, nn.PReLU) and part.num_parameters == 1):
                for attribute in ("weight", "bias", "running_mean", "running_var"):
                    self.spaces.add(stream.space, part, attribute, 0, stream.width)
            return stream
        if isinstance(part, SPATIAL_MODULES):
            return stream if self._same_side(stream, shape) else self._mixed("pooling across units mixes them")
        if isinstance(part, nn.Flatten | nn.Unflatten):
            return self._reshaped(stream, shape)
        if isinstance(part, MIXING_MODULES):
            return self._mixed(f"a {type(part).__name__} mixes them")
        return _unknown(self.node, f", a {type(part).__name__}")

    def function(self) -> Stream | None:
        """Follow units through a function or a method."""
        coming, name = self.coming(), _called(self.node)
        if not coming:
            return None
        stream, shape = coming[0]
        if name in MEETING:
            return self._met()
        if name in MIXING:
            return self._mixed(f"{name!r} mixes them")
        if len(coming) > 1:
            return _unknown(self.node, "")
        if name in EACH:
            return stream
        if name in SPATIAL:
            return stream if self._same_side(stream, shape) else self._mixed(f"{name!r} mixes them")
        if name in RESHAPING:
            return self._reshaped(stream, shape)
        if name in ("permute", "transpose"):
            return self._turned(stream, shape, name)
        if name in REDUCING:
            return self._reduced(stream, shape)
        if name == "getitem":
            return self._taken(stream, shape)
        return _unknown(self.node, "")

    def _mixed(self, reason: str) -> Stream | None:
        """Say that what comes stays; nothing is followed further."""
        for stream, _ in self.coming():
            self.spaces.stay(stream.space, reason)
        return None

    def _same_side(self, stream: Stream, shape: tuple[int, ...]) -> bool:
        return stream.axis == 1 and len(self.shape) == len(shape) and self.shape[1] == shape[1]

    def _read(self, part: nn.Module, stream: Stream) -> None:
        self.spaces.add(stream.space, part, "weight", 1, stream.width)

    def _made(self, part: nn.Module, size: int, axis: int) -> Stream:
        space = self.spaces.new(str(self.node.target), size)
        self.spaces.add(space, part, "weight", 0, 1)
        self.spaces.add(space, part, "bias", 0, 1)
        return Stream(space, axis, 1)

    def _linear(self, part: nn.Linear, stream: Stream | None, shape: tuple[int, ...]) -> Stream:
        if stream is not None:
            if stream.axis == len(shape) - 1:
                self._read(part, stream)
            else:
                self._mixed("a linear layer is applied along another axis")
        return self._made(part, part.out_features, len(self.shape) - 1)

    def _conv(self, part: _ConvNd, stream: Stream | None) -> Stream | None:
        if len(self.shape) != len(part.kernel_size) + 2:
            return self._mixed("a convolution without a batch axis reads them")
        if part.groups == 1:
            if stream is not None and stream.axis == 1:
                self._read(part, stream)
            elif stream is not None:
                self._mixed("a convolution is applied along another axis")
            return self._made(part, part.out_channels, 1)
        if stream is None or stream.axis != 1:
            return self._mixed("a grouped convolution reads them along another axis")
        if part.groups != part.in_channels:
            return self._mixed("a grouped convolution needs groups of equal size")
        # Depthwise: the outputs of a channel are that channel.
        width = stream.width * (part.out_channels // part.in_channels)
        self.spaces.add(stream.space, part, "weight", 0, width)
        self.spaces.add(stream.space, part, "bias", 0, width)
        return Stream(stream.space, 1, width)

    def _encoder(self, part: nn.Module) -> Stream | None:
        """Find the hidden neurons of ready-made encoder layers, which are not looked into; their width stays."""
        for path, layer in part.named_modules():
            if isinstance(layer, nn.TransformerEncoderLayer):
                name = ".".join(filter(None, (str(self.node.target), path, "linear1")))
                space = self.spaces.new(name, layer.linear1.out_features)
                self.spaces.add(space, layer.linear1, "weight", 0, 1)
                self.spaces.add(space, layer.linear1, "bias", 0, 1)
                self.spaces.add(space, layer.linear2, "weight", 1, 1)
        return self._mixed(f"a {type(part).__name__} mixes them")

    def _met(self) -> Stream | None:
        """Join what is added or multiplied entry by entry."""
        placed = [
            (Stream(s.space, s.axis + len(self.shape) - len(shape), s.width), shape) for s, shape in self.coming()
        ]
        stream = placed[0][0]
        long = self.shape[stream.axis]
        for other, shape in placed[1:]:
            if other.axis != stream.axis or shape[other.axis - len(self.shape)] != long:
                return self._mixed(f"units of unlike axes meet at {self.node.name!r}")
            self.spaces.join(stream.space, other.space, same=stream.width == other.width, where=_called(self.node))
        if placed[0][1][stream.axis - len(self.shape)] != long:
            return self._mixed(f"they are broadcast at {self.node.name!r}")
        back = stream.axis - len(self.shape)
        followed = {id(value) for value in self._followed()}
        for value in self.values:
            if (
                isinstance(value, Tensor)
                and id(value) not in followed
                and value.dim() >= -back
                and value.shape[back] > 1
            ):
                return self._mixed(f"at {self.node.name!r} each meets a value of its own that is not followed")
        return stream

    def _followed(self) -> Iterator[Any]:
        """Give the values that come with units, by their place among the arguments."""
        places = [*self.node.args, *self.node.kwargs.values()]
        for place, value in zip(places, self.values, strict=True):
            if isinstance(place, fx.Node) and place in self.streams:
                yield value

    def _reshaped(self, stream: Stream, shape: tuple[int, ...]) -> Stream | None:
        """Follow row-major order: the axis of units may take in those behind it, or stay."""
        before, long = math.prod(shape[: stream.axis]), shape[stream.axis]
        behind = math.prod(shape[stream.axis + 1 :])
        for axis, side in enumerate(self.shape):
            if math.prod(self.shape[:axis]) == before and side % long == 0 and behind % (side // long) == 0:
                return Stream(stream.space, axis, stream.width * (side // long))
        return self._mixed(f"{_called(self.node)!r} mixes their axis with others")

    def _turned(self, stream: Stream, shape: tuple[int, ...], name: str) -> Stream:
        dims = _numbers(self.values[1:])
        order = list(range(len(shape)))
        if name == "transpose":
            first, second = dims[:2]
            order[first], order[second] = order[second], order[first]
        else:
            order = [dim % len(shape) for dim in dims]
        return Stream(stream.space, order.index(stream.axis), stream.width)

    def _reduced(self, stream: Stream, shape: tuple[int, ...]) -> Stream | None:
        dims = {dim % len(shape) for dim in _numbers(self.values[1:2])}
        if not dims or stream.axis in dims:
            return self._mixed(f"{_called(self.node)!r} adds them up")
        gone = 0 if len(self.shape) == len(shape) else sum(dim < stream.axis for dim in dims)
        return Stream(stream.space, stream.axis - gone, stream.width)

    def _taken(self, stream: Stream, shape: tuple[int, ...]) -> Stream | None:
        index = self.values[1] if isinstance(self.values[1], tuple) else (self.values[1],)
        axis = 0
        for place, item in enumerate(index):
            if item is Ellipsis:
                axis = len(shape) - sum(one is not None for one in index[place + 1 :])
            elif item is None:
                continue
            elif not isinstance(item, int | slice) or (axis == stream.axis and item != slice(None)):
                return self._mixed("an index takes some of them")
            else:
                axis += 1
        gone, axis = 0, 0
        for item in index:
            if item is Ellipsis or axis > stream.axis:
                break
            gone += (isinstance(item, int) and axis < stream.axis) - (item is None)
            axis += item is not None
        if Ellipsis in index and any(item is None or isinstance(item, int) for item in index):
            return self._mixed("an index with an ellipsis moves their axis")
        return Stream(stream.space, stream.axis - gone, stream.width)


def _called(node: fx.Node) -> str:
    target = node.target
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


def _numbers(values: Sequence[Any]) -> list[int]:
    """Give the numbers among arguments; one of them may be a list."""
    flat = [one for value in values for one in (value if isinstance(value, list | tuple) else (value,))]
    return [one for one in flat if isinstance(one, int) and not isinstance(one, bool)]


def _plain(value: Any) -> bool:
    """Whether a value is of numbers alone, such as a shape."""
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return isinstance(value, int | float | bool | str | torch.dtype | torch.device | type(None))


def _unknown(node: fx.Node, what: str) -> NoReturn:
    raise InvalidValue(
        f"{_called(node)!r}{what} ({node.op.removeprefix('call_')}) reads neurons or channels in a way that is not "
        "known here, so what dies with one is not known either. Use layers and functions such as Linear, Conv, "
        "BatchNorm, activations, pooling, flatten and sums; write the groups by hand (tombola.prune.structure.Group); "
        "or prune single weights, N:M or blocks."
    )
