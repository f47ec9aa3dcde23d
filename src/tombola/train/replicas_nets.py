"""R networks of one architecture as one computation: gradients and logits of all of them at once.

Suffixes of tensors: ``R`` replicates, ``B`` examples of a batch.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from tombola.models.kinds import tied_names
from tombola.train.loss import mean_loss, one_hot
from tombola.types import Params

_ATEN: Final = torch.ops.aten


class Networks(Protocol):
    """R networks with stacked values; the first axis of everything is the replicate."""

    def differentiate(self, x_RB: Tensor, y_RB: Tensor) -> None:
        """Set the ``grad`` of every trainable parameter to that of its replicate's mean loss.

        The first call makes the tensors, contiguous, and every further one writes into them; a parameter that is not
        used has none.
        """

    def logits(self, params: Params, buffers: Params, x_RB: Tensor) -> Tensor:
        """Give ``[R, B, classes]`` in evaluation mode."""


def networks(
    module: nn.Module, params: Mapping[str, nn.Parameter], buffers: Params, example: Tensor, loss: str
) -> Networks:
    """Stack a module the fastest way there is for it.

    Args:
        module: the architecture; its own values are not used.
        params: name -> ``[R, *shape]``, as ``named_parameters`` names them.
        buffers: name -> ``[R, *shape]``, every buffer; written to by networks that keep statistics.
        example: one example, without a batch axis.
        loss: one of :data:`~tombola.train.recipe.LOSSES`.
    """
    layers = chain(module, example)
    return Mapped(module, params, buffers, loss) if layers is None else Chain(layers, params, loss)


def why_not_stacked(module: nn.Module, example: Tensor | None = None) -> str | None:
    """Say in one sentence why a network cannot be trained in a stack; ``None`` when it can.

    Args:
        module: the network.
        example: one example, on the module's device, to try two replicates on; without it what only a trial can tell
            is not known.
    """
    for name, part in module.named_modules():
        called = f"{type(part).__name__} {name!r}" if name else type(part).__name__
        if (isinstance(part, _DropoutNd) and part.p > 0) or (isinstance(part, nn.MultiheadAttention) and part.dropout):
            return f"{called} drops at random, and a stack cannot draw for each replicate what its own run draws."
        if isinstance(part, nn.RReLU | nn.FractionalMaxPool2d | nn.FractionalMaxPool3d):
            return f"{called} draws at random, and a stack cannot draw for each replicate what its own run draws."
        if isinstance(part, nn.RNNBase):
            return f"{called} is recurrent, and torch.func does not stack its kernel."
        loose = [key for key, value in vars(part).items() if isinstance(value, Tensor)]
        if loose:
            return (
                f"{called} holds the tensor {loose[0]!r} that is neither parameter nor buffer, so it cannot be stacked."
            )
    if example is None or chain(module, example) is not None:
        return None
    try:
        with warnings.catch_warnings():
            # An operation without a rule of its own runs replicate after replicate, slower than the plain engine.
            warnings.filterwarnings("error", message="There is a performance drop")
            _try(module, example)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"torch.func cannot stack {type(module).__name__}: {reason.rstrip('.')}."
    return None


def _try(module: nn.Module, example: Tensor) -> None:
    """Differentiate a stack of two replicates; the module's own values are not changed."""
    two = {name: nn.Parameter(_twice(p), p.requires_grad) for name, p in module.named_parameters()}
    state = {name: _twice(b) for name, b in module.named_buffers()}
    was_training = module.training
    try:
        stack = Mapped(module, two, state, "cross-entropy")
        x = example.expand(2, 2, *example.shape)
        stack.differentiate(x, torch.zeros(2, 2, dtype=torch.int64, device=x.device))
        stack.logits(two, state, x)
    finally:
        module.train(was_training)


def _twice(value: Tensor) -> Tensor:
    return torch.stack([value.detach()] * 2)


def _further_places(module: nn.Module) -> dict[str, str]:
    """Give every further place that holds a parameter or buffer, and the name that the tensor is listed under."""
    listed = {id(value): name for name, value in (*module.named_parameters(), *module.named_buffers())}
    places = {
        f"{prefix}.{key}" if prefix else key: listed[id(value)]
        for prefix, part in module.named_modules()
        for key, value in (*part._parameters.items(), *part._buffers.items())
        if value is not None
    }
    return {place: name for place, name in places.items() if place != name}


@final
class Mapped:
    """Any module that ``torch.func`` can stack.

    Statistics that a module keeps in buffers are stacked too: one written in place is written through, one that is
    replaced is copied back.
    """

    def __init__(self, module: nn.Module, params: Mapping[str, nn.Parameter], buffers: Params, loss: str) -> None:
        self._module, self._params, self._buffers, self._kind = module, params, buffers, loss
        self._places = _further_places(module)
        self._trained = [p for p in params.values() if p.requires_grad]
        self._losses = vmap(self._loss)
        self._forward = vmap(self._call)

    def differentiate(self, x_RB: Tensor, y_RB: Tensor) -> None:
        self._module.train()
        losses, after = self._losses(dict(self._params), dict(self._buffers), x_RB, y_RB)
        with torch.no_grad():
            for name, buffer in self._buffers.items():
                if after[name].data_ptr() != buffer.data_ptr():
                    buffer.copy_(after[name])
        # No replicate's loss depends on another's weights, so the sum has each one's own gradient.
        gradients = torch.autograd.grad(losses.sum(), self._trained, allow_unused=True)
        for parameter, gradient in zip(self._trained, gradients, strict=True):
            if gradient is not None:
                _room(parameter).copy_(gradient)

    def logits(self, params: Params, buffers: Params, x_RB: Tensor) -> Tensor:
        self._module.eval()
        with torch.no_grad():
            out: Tensor = self._forward(dict(params), dict(buffers), x_RB)
        return out

    def _call(self, params: Params, buffers: Params, x: Tensor) -> Any:
        return self._called({**params, **buffers}, x)

    def _called(self, state: dict[str, Tensor], x: Tensor) -> Any:
        for other, name in self._places.items():
            state[other] = state[name]
        # torch's own tying leaves a module that is called from two places with the stacked values in it.
        return functional_call(self._module, state, (x,), tie_weights=False)

    def _loss(self, params: Params, buffers: Params, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        state = {**params, **buffers}
        loss = mean_loss(self._kind, self._called(state, x), y)
        return loss, {name: state[name] for name in buffers}


@final
class Chain:
    """A chain of linear layers and functions of one tensor, by batched matrix products.

    The backward pass is written out: autograd would cost more than these small products, and would give the gradients
    of the weights in a layout that has to be copied.
    """

    def __init__(self, layers: "Sequence[_Linear | _Function]", params: Mapping[str, nn.Parameter], loss: str) -> None:
        self._layers, self._params, self._kind = layers, params, loss
        # Nothing is trained before the first linear layer, so no gradient goes further.
        self._first = next((number for number, layer in enumerate(layers) if isinstance(layer, _Linear)), len(layers))

    @torch.no_grad()
    def differentiate(self, x_RB: Tensor, y_RB: Tensor) -> None:
        values = [x_RB]
        for layer in self._layers:
            values.append(layer.forward(self._params, values[-1]))
        grad = self._derivative(values[-1], y_RB)
        for number in range(len(self._layers) - 1, self._first - 1, -1):
            layer, x = self._layers[number], values[number]
            if isinstance(layer, _Function):
                grad = layer.derivative(grad, x, values[number + 1])
                continue
            weight, bias = self._params[layer.weight], self._params[layer.bias] if layer.bias else None
            if weight.requires_grad:
                torch.bmm(grad.transpose(1, 2), x, out=_room(weight))
            if bias is not None and bias.requires_grad:
                torch.sum(grad, 1, out=_room(bias))
            if number > self._first:
                grad = torch.bmm(grad, weight)

    def _derivative(self, z: Tensor, y_RB: Tensor) -> Tensor:
        """Give the gradient of each replicate's mean loss by its logits."""
        if self._kind == "mse":
            return (z - one_hot(z, y_RB)).mul_(2 / z[0].numel())
        log_p = z.log_softmax(-1)
        grad = torch.zeros_like(log_p).scatter_(2, y_RB[..., None], -1 / y_RB.shape[1])
        return _ATEN._log_softmax_backward_data(grad, log_p, 2, log_p.dtype)

    @torch.no_grad()
    def logits(self, params: Params, buffers: Params, x_RB: Tensor) -> Tensor:  # noqa: ARG002
        h = x_RB
        for layer in self._layers:
            h = layer.forward(params, h)
        return h


def _room(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        # A fused optimiser reads memory in the parameter's own layout.
        parameter.grad = torch.empty_like(parameter)
    return parameter.grad


@final
class _Linear(NamedTuple):
    weight: str
    bias: str | None

    def forward(self, params: Params, x: Tensor) -> Tensor:
        transposed = params[self.weight].transpose(1, 2)
        if self.bias is None:
            return torch.bmm(x, transposed)
        return torch.baddbmm(params[self.bias].unsqueeze(1), x, transposed)


@final
class _Function(NamedTuple):
    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Gradient of the output, input, output -> gradient of the input."""

    def forward(self, params: Params, x: Tensor) -> Tensor:  # noqa: ARG002
        return self.function(x)


def _leaky(module: nn.LeakyReLU) -> _Function:
    slope = module.negative_slope
    return _Function(
        lambda x: functional.leaky_relu(x, slope), lambda g, x, _: _ATEN.leaky_relu_backward(g, x, slope, False)
    )


def _gelu(module: nn.GELU) -> _Function:
    how = module.approximate
    return _Function(
        lambda x: functional.gelu(x, approximate=how), lambda g, x, _: _ATEN.gelu_backward(g, x, approximate=how)
    )


_FLATTEN: Final = _Function(lambda x: x.flatten(2), lambda g, x, _: g.reshape(x.shape))
_ACTIVATIONS: Final[Mapping[type[nn.Module], Callable[[Any], _Function]]] = {
    nn.ReLU: lambda _: _Function(torch.relu, lambda g, _, out: _ATEN.threshold_backward(g, out, 0)),
    nn.Tanh: lambda _: _Function(torch.tanh, lambda g, _, out: _ATEN.tanh_backward(g, out)),
    nn.Sigmoid: lambda _: _Function(torch.sigmoid, lambda g, _, out: _ATEN.sigmoid_backward(g, out)),
    nn.LeakyReLU: _leaky,
    nn.GELU: _gelu,
}


def chain(module: nn.Module, example: Tensor) -> "list[_Linear | _Function] | None":
    """Read a module as a chain of ``Flatten``, ``Linear`` and activations; ``None`` if it is anything else.

    ``nn.Sequential`` may be nested. Subclasses, hooks, parametrisations and tied weights make it something else.
    """
    every = list(module.named_modules(remove_duplicate=False))
    if tied_names(module) or len(every) != len({id(part) for _, part in every}):
        return None
    layers: list[_Linear | _Function] = []
    flat = example.dim() == 1
    for name, part in every:
        kind = type(part)
        if _altered(part):
            return None
        if kind is nn.Linear and flat:
            prefix = f"{name}." if name else ""
            layers.append(_Linear(f"{prefix}weight", None if part.bias is None else f"{prefix}bias"))
        elif kind is nn.Flatten and (part.start_dim, part.end_dim) == (1, -1):
            flat = True
            layers.append(_FLATTEN)
        elif kind in _ACTIVATIONS:
            layers.append(_ACTIVATIONS[kind](part))
        elif kind is not nn.Sequential and kind is not nn.Identity:
            return None
    return layers if flat else None


def _altered(part: nn.Module) -> bool:
    """Whether calling a module does something besides its class's ``forward``."""
    hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
    return any(hooks) or "forward" in vars(part)
