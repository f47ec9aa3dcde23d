"""A network as pure functions of its values: what the criteria look at a module through."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.errors import ShapeMismatch
from tombola.models.chain import chain
from tombola.models.kinds import kinds, tied_names
from tombola.prune.layers import Stage, Use
from tombola.types import Params, Snapshot

Pass = Callable[[Params, Tensor], Tensor]
"""``(values, inputs) -> outputs``, pure."""

_COVERED: Final = (nn.Linear, _ConvNd)


@final
@dataclass(frozen=True)
class View:
    """A network as pure functions; the fields are those of :class:`~tombola.prune.evidence.Evidence` of that name.

    Attributes:
        buffers: the network's buffers.
        kinds: name -> what the parameter is.
        forward: gives the outputs in evaluation mode.
        forward_training: gives the outputs as in training, but for dropout.
        uses: gives the outputs of ``forward`` and every use of a linear or convolutional weight.
        stages: the network as a chain; ``None`` where it is none.
    """

    buffers: Params
    kinds: Mapping[str, str]
    forward: Pass
    forward_training: Pass
    uses: Callable[[Params, Tensor], tuple[Tensor, Sequence[Use]]]
    stages: Sequence[Stage] | None


def view(module: nn.Module, snapshot: Snapshot) -> View:
    """Look at a network through pure functions, at a snapshot's values or at others.

    Nothing of the module is written to, and it is not run: a copy of its structure is, without its weights. ``values``
    go by the names of ``named_parameters`` and ``named_buffers``; of a tied parameter's names the first one rules. What
    ``values`` leaves out is the snapshot's, and what the snapshot leaves out is the module's. Where all floating-point
    values share a dtype and a device, inputs and everything that is left out follow them there.

    In ``forward_training`` batch norm uses the batch's statistics and writes none; every other module is in evaluation
    mode. Weights that a module applies by other means than its own linear and convolutional layers, such as those of
    ``nn.MultiheadAttention``, have no uses.

    Args:
        module: any network from one tensor to one tensor.
        snapshot: parameters and buffers of the network; held, not copied.

    Returns:
        The functions; each raises ``ShapeMismatch`` for a value that the network has no name for, or another shape.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> seen = view(net, Snapshot(0, {"0.weight": torch.tensor([[1.0, 2.0]])}))
        >>> seen.forward({}, torch.ones(1, 2))
        tensor([[3.]])
        >>> seen.forward({"0.weight": torch.zeros(1, 2)}, torch.ones(1, 2))
        tensor([[0.]])
    """
    held = _held(module, snapshot)
    tied = tied_names(module)
    plain, training = _structure(module).eval(), _structure(module).eval()
    for part in training.modules():
        if isinstance(part, _NormBase):
            # Batch statistics, and none kept: without running ones there is nothing that a pass could write to.
            part.train()
            part.running_mean = part.running_var = part.num_batches_tracked = None

    def forward(values: Params, inputs: Tensor) -> Tensor:
        found, inputs = _settle(held, values, tied, inputs)
        return _call(plain, found, inputs)

    def forward_training(values: Params, inputs: Tensor) -> Tensor:
        found, inputs = _settle(held, values, tied, inputs)
        return _call(training, found, inputs)

    def uses(values: Params, inputs: Tensor) -> tuple[Tensor, Sequence[Use]]:
        found, inputs = _settle(held, values, tied, inputs)
        return _recorded(plain, found, inputs)

    def settle(values: Params, inputs: Tensor, names: Iterable[str]) -> tuple[dict[str, Tensor], Tensor]:
        return _settle({name: held[name] for name in names}, {k: values[k] for k in names if k in values}, {}, inputs)

    return View(
        buffers={name: held[name] for name, _ in module.named_buffers()},
        kinds=kinds(module),
        forward=forward,
        forward_training=forward_training,
        uses=uses,
        stages=chain(plain, settle, tied),
    )


def _held(module: nn.Module, snapshot: Snapshot) -> dict[str, Tensor]:
    """Give every value by name: the snapshot's, and the module's where the snapshot has none."""
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    given = {**snapshot.params, **snapshot.buffers}
    return {name: given.get(name, value).detach() for name, value in own.items()}


def _structure(module: nn.Module) -> nn.Module:
    """Copy a module without its weights, and with nothing in it that works in place."""
    # What deepcopy finds in its memo it does not copy: tied parameters stay tied, and take no memory.
    memo: dict[int, Any] = {
        id(value): nn.Parameter(torch.empty_like(value, device="meta"), requires_grad=value.requires_grad)
        for value in module.parameters()
    }
    found = copy.deepcopy(module, memo)
    for part in found.modules():
        # An activation in place would overwrite the outputs that a use records.
        if isinstance(getattr(part, "inplace", None), bool):
            part.inplace = False  # type: ignore[assignment]
    return found


def _settle(held: Params, values: Params, tied: Mapping[str, str], inputs: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Put the values in place of those held, all of one dtype and device where the values share one; inputs too."""
    mine = {name: value for name, value in values.items() if name not in tied}
    _check(held, mine)
    dtypes = {value.dtype for value in mine.values() if value.is_floating_point()}
    devices = {value.device for value in mine.values()}
    if not mine:
        dtypes = {value.dtype for value in held.values() if value.is_floating_point()}
        devices = {value.device for value in held.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    device = devices.pop() if len(devices) == 1 else None

    def follow(value: Tensor) -> Tensor:
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None)

    return {name: mine[name] if name in mine else follow(value) for name, value in held.items()}, follow(inputs)


def _check(held: Params, values: Params) -> None:
    for name, value in values.items():
        if name not in held:
            raise ShapeMismatch(
                f"there is a value for {name!r}, and the network has no parameter or buffer of that name. It has: "
                f"{', '.join(held)}. Pass values by the names of the network's state dict."
            )
        if value.shape != held[name].shape:
            raise ShapeMismatch(
                f"the value of {name!r} has shape {tuple(value.shape)}, and the network's has "
                f"{tuple(held[name].shape)}. Pass a tensor of the same shape."
            )


def _call(part: nn.Module, values: Params, inputs: Tensor) -> Tensor:
    names = {name for name, _ in (*part.named_parameters(), *part.named_buffers())}
    buffers = {name for name, _ in part.named_buffers()}
    # A module of the user's own may write to its buffers in place; let it write to copies.
    mine = {n: v.clone() if n in buffers else v for n, v in values.items() if n in names}
    outputs: Tensor = functional_call(part, mine, (inputs,))
    return outputs


def _recorded(part: nn.Module, values: Params, inputs: Tensor) -> tuple[Tensor, list[Use]]:
    """Run a module and write down its linear and convolutional layers' uses, in the order of the calls."""
    names = {id(layer): name for name, layer in part.named_modules()}
    first = tied_names(part)
    found: list[Use] = []

    def record(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Tensor) -> Tensor:
        entered = args[0] if args else kwargs["input"]
        name = f"{names[id(layer)]}.weight".lstrip(".")
        found.append(_use(layer, first.get(name, name), entered, outputs))
        # The network goes on with a copy: what it does to that in place does not change the outputs recorded.
        return outputs.clone()

    hooks = [
        layer.register_forward_hook(record, with_kwargs=True)
        for layer in part.modules()
        if isinstance(layer, _COVERED) and not isinstance(layer, _ConvTransposeNd)
    ]
    try:
        return _call(part, values, inputs), found
    finally:
        for hook in hooks:
            hook.remove()


def _use(layer: nn.Module, weight: str, entered: Tensor, outputs: Tensor) -> Use:
    if not isinstance(layer, _ConvNd):
        return Use(weight, "linear", entered, outputs)
    sides = tuple(layer.kernel_size)
    padding = layer.padding if not isinstance(layer.padding, str) else (0,) * len(sides)
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        # Padding that is not zeros, or not the same on both ends, enters with the input.
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        entered = nn.functional.pad(entered, layer._reversed_padding_repeated_twice, mode=mode)
        padding = (0,) * len(sides)
    return Use(
        weight,
        "conv",
        entered,
        outputs,
        stride=tuple(layer.stride),
        padding=tuple(padding),
        dilation=tuple(layer.dilation),
        groups=layer.groups,
    )
