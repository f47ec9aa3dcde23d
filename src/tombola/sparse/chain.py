"""A feed-forward network as a chain of layers, read off the module that runs it."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from tombola.errors import InvalidValue
from tombola.sparse.kernels.library import missing


@final
@dataclass(frozen=True)
class LinearLayer:
    """``x W^T + b``.

    Attributes:
        weight, bias: names of the parameters; ``bias`` is ``None`` where there is none.
        inputs, outputs: features.
    """

    weight: str
    bias: str | None
    inputs: int
    outputs: int


@final
@dataclass(frozen=True)
class ActivationLayer:
    """An element-wise function: one of ``ACTIVATIONS``; ``slope`` belongs to ``leaky-relu``."""

    function: str
    slope: float = 0.0


@final
@dataclass(frozen=True)
class DropoutLayer:
    """Dropout with probability ``p``."""

    p: float


Layer: TypeAlias = LinearLayer | ActivationLayer | DropoutLayer

ACTIVATIONS: Final = ("relu", "leaky-relu", "tanh", "sigmoid", "gelu", "gelu-tanh")


@final
@dataclass(frozen=True)
class Chain:
    """A network as its layers in order; flattening comes first and is left out."""

    layers: tuple[Layer, ...]

    @property
    def linears(self) -> tuple[LinearLayer, ...]:
        """The linear layers."""
        return tuple(layer for layer in self.layers if isinstance(layer, LinearLayer))

    def run(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Run it in plain torch, in evaluation mode: float ``[N, *shape]`` -> logits ``[N, classes]``."""
        x = x.flatten(1)
        for layer in self.layers:
            match layer:
                case LinearLayer():
                    x = functional.linear(x, params[layer.weight], params[layer.bias] if layer.bias else None)
                case ActivationLayer():
                    x = _TORCH[layer.function](x, layer.slope)
                case DropoutLayer():
                    pass
        return x


_TORCH: Final[dict[str, Callable[[Tensor, float], Tensor]]] = {
    "relu": lambda x, _: functional.relu(x),
    "leaky-relu": functional.leaky_relu,
    "tanh": lambda x, _: torch.tanh(x),
    "sigmoid": lambda x, _: torch.sigmoid(x),
    "gelu": lambda x, _: functional.gelu(x),
    "gelu-tanh": lambda x, _: functional.gelu(x, approximate="tanh"),
}

_FUNCTIONS: Final[dict[Any, str]] = {
    torch.relu: "relu",
    functional.relu: "relu",
    torch.tanh: "tanh",
    functional.tanh: "tanh",
    torch.sigmoid: "sigmoid",
    functional.sigmoid: "sigmoid",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}

_EXAMPLES: Final = 5
_TOLERANCE: Final = 1e-4


class _NotAChain(Exception):
    """The reason, in a sentence without a full stop."""


def why_not(module: nn.Module, example: Tensor | None = None) -> str | None:
    """Say in one sentence why the sparse engine cannot train a network; ``None`` where it can.

    Args:
        module: as in :func:`read_chain`.
        example: as there; without it, what only a forward pass can tell is not known.

    Example:
        >>> print(why_not(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))))
        '0' is a Conv2d; the sparse engine runs chains of Linear, activations and Dropout
    """
    try:
        chain = _read(module)
        if example is not None:
            _verify(chain, module, example[:_EXAMPLES])
    except _NotAChain as reason:
        return str(reason)
    return missing()


def read_chain(module: nn.Module, example: Tensor) -> Chain:
    """Read the chain off a module, and hold it to the module's own forward pass.

    Args:
        module: on the CPU; its mode and the random state are left as they were.
        example: float32 ``[N, *shape]``, at least one example.

    Raises:
        InvalidValue: the sparse engine cannot run it; :func:`why_not` says why.
    """
    try:
        chain = _read(module)
        _verify(chain, module, example[:_EXAMPLES])
    except _NotAChain as reason:
        raise InvalidValue(f"the sparse engine cannot train this network: {reason}. Use the plain engine.") from None
    return chain


def _read(module: nn.Module) -> Chain:
    _check_parameters(module)
    chains = [_trace(module, training) for training in (True, False)]
    if chains[0] != chains[1]:
        raise _NotAChain("its forward pass does other things in training than in evaluation, beside dropout")
    (chain, _) = chains
    used = [name for layer in chain.linears for name in (layer.weight, layer.bias) if name]
    if not chain.linears:
        raise _NotAChain("it has no linear layer")
    if len(used) != len(set(used)):
        raise _NotAChain("a layer is used twice")
    unused = [name for name, _ in module.named_parameters() if name not in used]
    if unused:
        raise _NotAChain(f"parameter {unused[0]!r} is not one of a linear layer's")
    for before, after in zip(chain.linears, chain.linears[1:], strict=False):
        if before.outputs != after.inputs:
            raise _NotAChain(f"{after.weight!r} takes {after.inputs} features and is given {before.outputs}")
    return chain


def _check_parameters(module: nn.Module) -> None:
    named = dict(module.named_parameters())
    if len(list(module.named_parameters(remove_duplicate=False))) != len(named):
        raise _NotAChain("two of its layers share a parameter")
    for name, value in named.items():
        if value.dtype != torch.float32:
            raise _NotAChain(f"parameter {name!r} is {value.dtype}; the sparse engine computes in torch.float32")
        if value.device.type != "cpu":
            raise _NotAChain(f"parameter {name!r} is on {value.device}; the sparse engine runs on the CPU")
        if not value.requires_grad:
            raise _NotAChain(f"parameter {name!r} is frozen")
    for name, part in module.named_modules():
        hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
        if any(hooks) or any(p._backward_hooks for p in part.parameters(recurse=False)):
            raise _NotAChain(f"{name or 'the module'!r} has hooks")


def _trace(module: nn.Module, training: bool) -> Chain:
    was, state = {name: part.training for name, part in module.named_modules()}, torch.get_rng_state()
    module.train(training)
    try:
        graph = fx.Tracer().trace(module)
        drew = not torch.equal(state, torch.get_rng_state())
    except Exception as error:
        # Tracing runs code that is not ours; whatever it raises, the plain engine can still run it.
        raise _NotAChain(f"its forward pass is not a fixed chain of layers ({str(error).splitlines()[0]})") from error
    finally:
        torch.set_rng_state(state)
        for name, part in module.named_modules():
            part.training = was[name]
    if drew:
        raise _NotAChain("its forward pass draws random numbers of its own")
    layers: list[Layer] = []
    previous: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "placeholder":
            if previous is not None:
                raise _NotAChain("it takes more than one input")
        elif node.op == "output":
            if node.args[0] is not previous:
                raise _NotAChain("it gives more than the output of its last layer")
        elif node.op == "get_attr" or _is_size(node):
            continue
        else:
            if not node.args or node.args[0] is not previous or node.kwargs.get("input") is not None:
                raise _NotAChain(
                    f"its layers are not one chain ({node.name!r} takes something else than what precedes)"
                )
            layers += _layers_of(module, node)
        previous = node
    return Chain(tuple(layers))


def _is_size(node: fx.Node) -> bool:
    """Whether a node asks how many examples there are, for a ``view``."""
    asks = node.op == "call_method" and node.target == "size" and node.args[1:] == (0,)
    shape = node.op == "call_function" and node.target is getattr and node.args[1:] == ("shape",)
    first = (
        node.op == "call_function"
        and node.target is operator.getitem
        and isinstance(node.args[0], fx.Node)
        and node.args[0].target is getattr
        and node.args[1:] == (0,)
    )
    return asks or shape or first


def _layers_of(module: nn.Module, node: fx.Node) -> list[Layer]:
    if node.op == "call_module":
        return _layers_of_module(str(node.target), module.get_submodule(str(node.target)))
    if _flattens(node):
        return []
    plain = len(node.args) == 1 and set(node.kwargs) <= {"inplace"}
    if node.target in _FUNCTIONS and plain:
        return [ActivationLayer(_FUNCTIONS[node.target])]
    if node.target is functional.leaky_relu:
        slope = (*node.args[1:2], node.kwargs.get("negative_slope", 0.01))[0]
        return [ActivationLayer("leaky-relu", float(str(slope)))]
    if node.target is functional.gelu and len(node.args) == 1:
        return [_gelu(str(node.kwargs.get("approximate", "none")))]
    name = getattr(node.target, "__name__", str(node.target))
    raise _NotAChain(f"it calls {name}; the sparse engine runs chains of Linear, activations and Dropout")


def _flattens(node: fx.Node) -> bool:
    rest = (*node.args[1:], *(node.kwargs.get(key) for key in ("start_dim", "end_dim") if key in node.kwargs))
    if node.target in (torch.flatten, "flatten"):
        return rest in ((1,), (1, -1))
    if node.target in ("view", "reshape", torch.reshape) and not node.kwargs:
        shape = rest[0] if len(rest) == 1 and isinstance(rest[0], (tuple, list)) else rest
        # One axis beside the batch; that the batch keeps its own is seen when the outputs are compared.
        return len(shape) == 2
    return False


def _layers_of_module(name: str, part: nn.Module) -> list[Layer]:
    kind = type(part)
    if kind is nn.Linear:
        assert isinstance(part, nn.Linear)
        bias = f"{name}.bias" if part.bias is not None else None
        return [LinearLayer(f"{name}.weight", bias, part.in_features, part.out_features)]
    if isinstance(part, nn.Flatten) and kind is nn.Flatten and (part.start_dim, part.end_dim) == (1, -1):
        return []
    if kind is nn.Identity:
        return []
    if isinstance(part, nn.LeakyReLU):
        return [ActivationLayer("leaky-relu", float(part.negative_slope))]
    if kind is nn.GELU:
        return [_gelu(str(part.approximate))]
    if isinstance(part, nn.Dropout):
        return [DropoutLayer(float(part.p))]
    simple = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
    if kind in simple:
        return [ActivationLayer(simple[kind])]
    raise _NotAChain(f"{name!r} is a {kind.__name__}; the sparse engine runs chains of Linear, activations and Dropout")


def _gelu(approximate: str) -> ActivationLayer:
    return ActivationLayer("gelu-tanh" if approximate == "tanh" else "gelu")


def _verify(chain: Chain, module: nn.Module, x: Tensor) -> None:
    """Compare what the chain gives with what the module gives."""
    width = x[0].numel()
    if chain.linears[0].inputs != width:
        raise _NotAChain(f"its first layer takes {chain.linears[0].inputs} features and an example has {width}")
    was, state = {name: part.training for name, part in module.named_modules()}, torch.get_rng_state()
    module.eval()
    try:
        with torch.no_grad():
            expected = module(x)
            ours = chain.run(dict(module.named_parameters()), x)
    finally:
        torch.set_rng_state(state)
        for name, part in module.named_modules():
            part.training = was[name]
    finite = bool(torch.isfinite(expected).all()) if isinstance(expected, Tensor) else True
    if (
        not isinstance(expected, Tensor)
        or expected.shape != ours.shape
        or (finite and not torch.allclose(ours, expected, rtol=_TOLERANCE, atol=_TOLERANCE))
    ):
        raise _NotAChain("the layers read off it do not give what its own forward pass gives")
