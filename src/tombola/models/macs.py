"""How many multiply-adds an example costs."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.errors import InvalidValue
from tombola.models.kinds import kinds, owners


def macs(
    module: nn.Module, input_shape: tuple[int, ...], names: Collection[str] | None = None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Count the multiply-adds of one example in each weight tensor, from one forward pass.

    Each weight counts once per position it is applied at: output positions of a convolution (input positions of a
    transposed one), positions of a linear layer, steps of a recurrent one, and query, key or value positions of
    attention projections. The products of attention itself, biases, norms and activations are left out. At density d
    in a tensor, d times these remain. The example is all zeros: floats, or integers where the network takes no floats.

    Args:
        module: any network; it runs in evaluation mode, and its mode is put back.
        input_shape: shape of one example, without the batch.
        names: parameter names wanted; all weights by default.

    Returns:
        weight tensor -> multiply-adds per example (an embedding's look-up has none), and the names of the weight
        tensors that could not be counted: held by a module of another type, or by one that the pass did not call.

    Raises:
        InvalidValue: the network does not take an example of this shape.

    Example:
        >>> macs(nn.Conv2d(1, 2, 3), (1, 5, 5))
        ({'weight': 162}, ())
    """
    weights = [name for name, kind in kinds(module).items() if kind not in ("bias", "norm")]
    wanted = [name for name in weights if names is None or name in names]
    counted: dict[str, int] = {}
    handles = [
        owner.register_forward_hook(_watcher(held, positions, counted), with_kwargs=True)
        for owner, held in _held(module)
        for positions in [next((rule for types, rule in _RULES if isinstance(owner, types)), None)]
        if positions is not None
    ]
    try:
        _pass_one(module, input_shape, counted)
    finally:
        for handle in handles:
            handle.remove()
    missing = tuple(name for name in wanted if name not in counted)
    return {name: counted[name] for name in wanted if name in counted}, missing


_Positions = Callable[[Any, str, list[Any], Any], int | Fraction]
"""(owner, attribute, inputs, output) -> how often each entry of the weight is used, in one example."""

_Weights = list[tuple[str, str, nn.Parameter]]
"""Name in the network, name in its module, and the parameter."""


def _held(module: nn.Module) -> list[tuple[nn.Module, _Weights]]:
    """Give every module that holds parameters, other than biases, with what it holds."""
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    places: dict[int, tuple[nn.Module, _Weights]] = {}
    for part, attribute, parameter, attention in owners(module):
        if "bias" not in attribute:
            # Attention uses the weight of its output projection without calling that module.
            owner = attention or part
            places.setdefault(id(owner), (owner, []))[1].append((first[id(parameter)], attribute, parameter))
    return list(places.values())


def _watcher(held: _Weights, positions: _Positions, counted: dict[str, int]) -> Callable[..., None]:
    def hook(owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        inputs = [*args, *(kwargs[key] for key in ("query", "key", "value", "input") if key in kwargs)]
        for name, attribute, parameter in held:
            applied = parameter.numel() * positions(owner, attribute, inputs, output)
            counted[name] = counted.get(name, 0) + int(applied)

    return hook


def _linear(owner: Any, _: str, __: list[Any], output: Any) -> int:
    return int(output.numel() // owner.out_features)


def _conv(owner: Any, _: str, __: list[Any], output: Any) -> int:
    return int(output.numel() // owner.out_channels)


def _conv_transpose(owner: Any, _: str, inputs: list[Any], __: Any) -> int:
    return int(inputs[0].numel() // owner.in_channels)


def _recurrent(owner: Any, _: str, inputs: list[Any], __: Any) -> int:
    entering = inputs[0]
    # A packed sequence holds its steps in .data.
    steps = entering if isinstance(entering, Tensor) else entering.data
    return int(steps.numel() // owner.input_size)


def _attention(owner: Any, attribute: str, inputs: list[Any], _: Any) -> int | Fraction:
    widths = (owner.embed_dim, owner.kdim, owner.vdim)
    query, key, value = (int(tensor.numel() // width) for tensor, width in zip(inputs[:3], widths, strict=True))
    if attribute == "in_proj_weight":
        # Its thirds are applied to query, key and value.
        return Fraction(query + key + value, 3)
    return {"k_proj_weight": key, "v_proj_weight": value}.get(attribute, query)


def _lookup(_: Any, __: str, ___: list[Any], ____: Any) -> int:
    return 0


_RULES: tuple[tuple[tuple[type[nn.Module], ...], _Positions], ...] = (
    ((nn.Linear, nn.Bilinear), _linear),
    ((_ConvTransposeNd,), _conv_transpose),
    ((_ConvNd,), _conv),
    ((nn.RNNBase, nn.RNNCellBase), _recurrent),
    ((nn.MultiheadAttention,), _attention),
    ((nn.Embedding, nn.EmbeddingBag), _lookup),
)


def _pass_one(module: nn.Module, input_shape: tuple[int, ...], counted: dict[str, int]) -> None:
    """Run one example of zeros through the network: floats first, then integers."""
    likeness = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    failure: Exception | None = None
    for dtype in (likeness.dtype, torch.long):
        counted.clear()
        try:
            with _evaluating(module), torch.no_grad(), torch.random.fork_rng(devices=()):
                module(torch.zeros(1, *input_shape, dtype=dtype, device=likeness.device))
            return
        except Exception as error:
            failure = failure or error
    raise InvalidValue(
        f"the network does not take one example of shape {input_shape}: {type(failure).__name__}: {failure}. "
        "Give the shape of one example without the batch, as the network's forward takes it."
    ) from failure


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    before = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in before:
            part.training = training
