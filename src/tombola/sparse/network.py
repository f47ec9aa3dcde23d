"""A sparse network that trains and evaluates in compiled code."""

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tombola.errors import InvalidValue, ShapeMismatch, UnknownName
from tombola.prune.masks import check as check_masks
from tombola.sparse.chain import ACTIVATIONS, ActivationLayer, Chain, DropoutLayer, LinearLayer
from tombola.sparse.kernels import library
from tombola.sparse.kernels.library import Kernels, kernels, padded, pointer
from tombola.sparse.layers import LinearPart, Survivors, live_features
from tombola.types import Masks, Params

OPTIMIZERS: Final = ("sgd", "momentum", "nesterov", "adam", "adamw")
LOSSES: Final = ("cross-entropy", "mse")
_SLOTS: Final = {
    "sgd": (),
    "momentum": ("momentum_buffer",),
    "nesterov": ("momentum_buffer",),
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
}
_EVALUATION_BATCH: Final = 64
_EXAMPLES_A_CALL: Final = 500
_MOST: Final = float(np.finfo(np.float32).max)


@final
@dataclass(frozen=True)
class Rule:
    """An optimiser, as ``torch.optim`` defines it.

    Attributes:
        optimizer: one of ``OPTIMIZERS``; ``nesterov`` is SGD with Nesterov's momentum.
        momentum: of ``momentum`` and ``nesterov``.
        weight_decay: decoupled for ``adamw``, added to the gradient for the others.

    Raises:
        UnknownName: there is no such optimiser.
    """

    optimizer: str
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UnknownName.among("optimiser", self.optimizer, OPTIMIZERS)

    @property
    def slots(self) -> tuple[str, ...]:
        """What torch calls the tensors that it keeps for each parameter."""
        return _SLOTS[self.optimizer]

    @property
    def counts_steps(self) -> bool:
        """Whether torch keeps the number of steps as well."""
        return self.optimizer in ("adam", "adamw")

    def structure(self) -> library.Rule:
        """Give it to the kernels, with the constants that torch takes by default."""
        kind = OPTIMIZERS.index(self.optimizer)
        return library.Rule(kind, self.momentum, self.weight_decay, 0.9, 0.999, 1e-8)


@final
class SparseNetwork:
    """A chain under masks: float32, state for the survivors alone.

    The same calls give the same bits, whatever else runs and however the iterations are cut into calls.
    """

    def __init__(
        self,
        chain: Chain,
        params: Params,
        masks: Masks,
        rule: Rule,
        *,
        batch_size: int,
        loss: str = "cross-entropy",
        level: str | None = None,
    ) -> None:
        """Lay out what is left and make the network.

        Args:
            chain: what it computes.
            params: name -> float32, zero where pruned; copied.
            masks: name -> bool; an absent name stays dense.
            rule: the optimiser, with no state yet.
            batch_size: examples of an iteration.
            loss: one of ``LOSSES``; ``mse`` is the mean over examples and classes of the squared difference to the
                label's unit vector (Hui & Belkin, 2021, without their factors).
            level: of the kernels; see :func:`~tombola.sparse.kernels.library.kernels`.

        Raises:
            UnknownName: there is no such loss.
            InvalidValue: parameters that are not float32 on the CPU, masks that are not bool, no examples in a batch.
            ShapeMismatch: parameters or masks that are not the chain's.
        """
        if loss not in LOSSES:
            raise UnknownName.among("loss", loss, LOSSES)
        if batch_size < 1:
            raise InvalidValue(f"the batch size is {batch_size}; an iteration takes 1 example at least.")
        shapes = _shapes(chain)
        _check_params(params, shapes)
        check_masks(params, masks)
        self._kernels: Kernels = kernels(level)
        self._rule, self._batch_size, self._loss = rule, batch_size, LOSSES.index(loss)
        self._shapes = {name: shapes[name] for name in params}
        kept = {name: _mask_of(name, params, masks) for name in params}
        live = live_features([kept[layer.weight] for layer in chain.linears])
        self._live_inputs = live[0]
        self._layers: dict[str, tuple[LinearPart, str]] = {}
        self._parts: list[LinearPart] = []
        for layer, into, out in zip(chain.linears, live, live[1:], strict=False):
            part = LinearPart(
                kept[layer.weight],
                bias=kept[layer.bias] if layer.bias else None,
                live=(into, out),
                batch=padded(batch_size),
                slots=len(rule.slots),
            )
            self._parts.append(part)
            self._layers[layer.weight] = part, "weight"
            if layer.bias:
                self._layers[layer.bias] = part, "bias"
        for name, value in params.items():
            for survivors in self._survivors(name):
                survivors.take(_array(value), survivors.value)
        self._dropouts: list[tuple[float, int]] = []
        self._keep: list[object] = []
        self._began = False
        self._seen: object = None
        self._data = library.Data()
        self._handle = self._make(chain, live)

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            self._kernels.free(self._handle)
            self._handle = 0

    @property
    def dropout_floats(self) -> int:
        """How many numbers the dropout masks of one iteration are."""
        return self._batch_size * sum(width for _, width in self._dropouts)

    @property
    def dense_layers(self) -> tuple[bool, ...]:
        """For each linear layer whether the dense kernels run it."""
        return tuple(part.dense for part in self._parts)

    def draw_dropout(self, draw: torch.Generator) -> list[Tensor]:
        """Draw one iteration's masks, as torch's own dropout does with its global generator in the same state.

        Returns:
            For each dropout float32 ``[batch_size, features]``: 0, or what the entries that are left are multiplied by.
        """
        return [_dropout_mask(p, torch.empty(self._batch_size, width), draw) for p, width in self._dropouts]

    def train(
        self,
        x: Tensor,
        y: Tensor,
        order: Tensor,
        rates: Sequence[float],
        *,
        dropout: Sequence[Tensor] = (),
        seconds: float = float("inf"),
    ) -> int:
        """Make iterations.

        Args:
            x: float32 ``[N, ...]``, contiguous, on the CPU.
            y: int64 ``[N]``, the same.
            order: int64 ``[iterations, batch_size]``, numbers of examples.
            rates: the learning rate of each iteration.
            dropout: for each dropout float32 ``[iterations, batch_size, features]``.
            seconds: no iteration begins after so many; at least one is made.

        Returns:
            How many iterations were made.

        Raises:
            InvalidValue: a tensor of another kind, order or dropout masks of another shape, or labels that are none.
            ShapeMismatch: examples that the network does not take.
        """
        self._check(x, y)
        _check_tensor("order", order, torch.int64)
        for mask in dropout:
            _check_tensor("a dropout mask", mask, torch.float32)
        held = _array(order.contiguous()), np.array(rates, dtype=np.float64), [_array(d.contiguous()) for d in dropout]
        numbers, lr, drawn = held
        if len(lr) == 0:
            return 0
        # Without a sign, what is below zero is above everything.
        if numbers.shape != (len(lr), self._batch_size) or numbers.view(np.uint64).max() >= len(y):
            raise InvalidValue(
                f"the order of the examples does not fit the batch size and the data: it is {numbers.shape} for "
                f"{len(lr)} rates, a batch of {self._batch_size} and {len(y)} examples."
            )
        if [d.shape for d in drawn] != [(len(lr), self._batch_size, width) for _, width in self._dropouts]:
            raise InvalidValue(
                f"the dropout masks do not fit the network: they are {[d.shape for d in drawn]}; draw_dropout gives "
                f"those of an iteration, and {len(lr)} are stacked."
            )
        masks = (ctypes.POINTER(ctypes.c_float) * max(1, len(drawn)))(*map(pointer, drawn))
        block = library.Block(pointer(numbers.reshape(-1)), pointer(lr), masks, len(lr), seconds)
        done = int(self._kernels.train(self._handle, ctypes.byref(self._data), ctypes.byref(block)))
        for part in self._parts:
            part.weight_step += done
            part.bias_step += done
        self._began = True
        return done

    def evaluate(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """Give the mean loss (cross-entropy in nats) and accuracy (fraction) in evaluation mode."""
        self._check(x, y)
        total, right = 0.0, ctypes.c_int64(0)
        # Cut into calls, so that Ctrl-C is heard between them.
        for first in range(0, len(y), _EXAMPLES_A_CALL):
            some_x, some_y = _array(x[first : first + _EXAMPLES_A_CALL]), _array(y[first : first + _EXAMPLES_A_CALL])
            data, loss = library.Data(pointer(some_x), pointer(some_y)), ctypes.c_double(0)
            self._kernels.evaluate(
                self._handle, ctypes.byref(data), len(some_y), ctypes.byref(loss), ctypes.byref(right)
            )
            # The plain loop adds as many in float32: what is infinite there is so here, at the same evaluation.
            total += loss.value if abs(loss.value) <= _MOST else loss.value * math.inf
        return total / len(y), right.value / len(y)

    def params(self) -> dict[str, Tensor]:
        """Give the dense parameters, zero where pruned."""
        return {name: self._dense(name, None) for name in self._shapes}

    def load_params(self, params: Params) -> None:
        """Take other values; what the masks prune is left out.

        Raises:
            InvalidValue: they are not float32 on the CPU.
            ShapeMismatch: they are not the chain's.
        """
        _check_params(params, self._shapes)
        for name in self._shapes:
            for survivors in self._survivors(name):
                survivors.take(_array(params[name]), survivors.value)

    def optimizer(self) -> dict[str, dict[str, Tensor]] | None:
        """Give the optimiser's state as torch names it, dense; ``None`` where there is none yet."""
        if not self._rule.slots or not self._began:
            return None
        found: dict[str, dict[str, Tensor]] = {}
        for name in self._shapes:
            part, kind = self._layers[name]
            found[name] = {}
            if self._rule.counts_steps:
                taken = part.weight_step if kind == "weight" else part.bias_step
                found[name]["step"] = torch.tensor(float(taken))
            for number, slot in enumerate(self._rule.slots):
                found[name][slot] = self._dense(name, number)
        return found

    def _dense(self, name: str, slot: int | None) -> Tensor:
        out = torch.zeros(self._shapes[name])
        for survivors in self._survivors(name):
            survivors.give(survivors.value if slot is None else survivors.state[slot], _array(out))
        return out

    def _survivors(self, name: str) -> tuple[Survivors, Survivors]:
        part, kind = self._layers[name]
        return (part.weight, part.idle_weight) if kind == "weight" else (part.bias, part.idle_bias)

    def load_optimizer(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take the optimiser's state, dense, before the first iteration; what the masks prune is left out.

        Raises:
            ShapeMismatch: it is not of these parameters.
        """
        for name, slots in state.items():
            shape = self._shapes.get(name)
            if shape is None or any(value.dim() and tuple(value.shape) != shape for value in slots.values()):
                raise ShapeMismatch(f"the saved optimiser state of {name!r} fits no parameter. It is another model's.")
            for number, slot in enumerate(self._rule.slots):
                if slot in slots:
                    for survivors in self._survivors(name):
                        survivors.take(_array(slots[slot]), survivors.state[number])
            if "step" in slots:
                part, kind = self._layers[name]
                setattr(part, f"{kind}_step", int(slots["step"]))
        self._began = True
        self._kernels.free(self._handle)
        self._handle = 0
        self._handle = self._remake()

    def _make(self, chain: Chain, live: Sequence[NDArray[np.intp]]) -> int:
        operations: list[library.Operation] = []
        linear = 0
        full = chain.linears[0].inputs
        for layer in chain.layers:
            width, target = len(live[linear]), None
            match layer:
                case LinearLayer():
                    kind, which, slope = 0, linear, 0.0
                    linear, full = linear + 1, layer.outputs
                    width = len(live[linear])
                case ActivationLayer():
                    kind, which, slope = 1, ACTIVATIONS.index(layer.function), layer.slope
                case DropoutLayer():
                    kind, which, slope = 2, len(self._dropouts), 0.0
                    self._dropouts.append((layer.p, full))
                    target = _target(live[linear], full)
                    self._keep.append(target)
            operations.append(library.Operation(kind, which, slope, width, full, pointer(target)))
        self._operations = (library.Operation * len(operations))(*operations)
        self._target = _target(live[0], chain.linears[0].inputs)
        self._features = chain.linears[0].inputs
        self._classes = len(live[-1])
        return self._remake()

    def _remake(self) -> int:
        linears = (library.Linear * len(self._parts))(*(part.structure() for part in self._parts))
        plan = library.Plan(
            linears,
            self._operations,
            pointer(self._target),
            self._rule.structure(),
            len(linears),
            len(self._operations),
            len(self._live_inputs),
            self._features,
            self._batch_size,
            _EVALUATION_BATCH,
            self._loss,
        )
        handle = self._kernels.network(ctypes.byref(plan))
        if not handle:
            raise MemoryError(f"the activations of a batch of {self._batch_size} do not fit into memory.")
        return int(handle)

    def _check(self, x: Tensor, y: Tensor) -> None:
        """Refuse what compiled code would read beyond the end of; the labels of one tensor are looked at once."""
        _check_tensor("x", x, torch.float32)
        _check_tensor("y", y, torch.int64)
        for name, value in (("x", x), ("y", y)):
            if not value.is_contiguous():
                raise InvalidValue(
                    f"{name} is not contiguous: its strides are {value.stride()}. Give {name}.contiguous()."
                )
        seen = (x.data_ptr(), x.shape, y.data_ptr(), y.shape, y._version)
        if seen == self._seen:
            return
        if not x.dim() or y.dim() != 1 or len(x) != len(y) or not len(y):
            raise ShapeMismatch(
                f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}. Give [N, ...] and [N], one label an example and "
                "one example at least."
            )
        if x[0].numel() != self._features:
            raise ShapeMismatch(
                f"an example has {x[0].numel()} features and the network takes {self._features}. Give the data that "
                "the chain was read for."
            )
        if int(y.min()) < 0 or int(y.max()) >= self._classes:
            raise InvalidValue(
                f"the labels run from {int(y.min())} to {int(y.max())} and there are {self._classes} outputs. Number "
                "the classes from 0."
            )
        self._seen, self._data = seen, library.Data(pointer(_array(x)), pointer(_array(y)))


def _shapes(chain: Chain) -> dict[str, tuple[int, ...]]:
    """Give the shapes of the parameters that a chain has."""
    weights = {layer.weight: (layer.outputs, layer.inputs) for layer in chain.linears}
    return weights | {layer.bias: (layer.outputs,) for layer in chain.linears if layer.bias}


def _check_params(params: Params, shapes: Mapping[str, tuple[int, ...]]) -> None:
    odd = sorted(params.keys() ^ shapes.keys())
    if odd:
        raise ShapeMismatch(
            f"the chain and the parameters do not have the same names: {', '.join(odd)} is in one only. Give "
            "the parameters of the network that the chain was read off."
        )
    for name, shape in shapes.items():
        _check_tensor(f"parameter {name!r}", params[name], torch.float32)
        if tuple(params[name].shape) != shape:
            raise ShapeMismatch(
                f"parameter {name!r} has shape {tuple(params[name].shape)}, in the chain {shape}. Give the "
                "parameters of the network that the chain was read off."
            )


def _check_tensor(what: str, value: object, dtype: torch.dtype) -> None:
    if not isinstance(value, Tensor):
        raise InvalidValue(f"{what} is {value!r:.40}; give a tensor, {dtype} on the CPU.")
    if value.dtype != dtype or value.device.type != "cpu":
        raise InvalidValue(f"{what} is {value.dtype} on {value.device}; give {dtype} on the CPU.")


def _mask_of(name: str, params: Params, masks: Masks) -> NDArray[np.bool_]:
    mask = masks.get(name)
    return np.ones(tuple(params[name].shape), dtype=bool) if mask is None else mask.detach().cpu().numpy()


def _array(value: Tensor) -> NDArray[np.float32]:
    """Look at a tensor's memory."""
    found: NDArray[np.float32] = value.detach().cpu().contiguous().numpy()
    return found


def _dropout_mask(p: float, mask: Tensor, draw: torch.Generator) -> Tensor:
    if p in (0.0, 1.0):
        return mask.fill_(1 - p)
    return mask.bernoulli_(1 - p, generator=draw).div_(1 - p)


def _target(live: NDArray[np.intp], full: int) -> NDArray[np.int32]:
    target = np.full(full, -1, dtype=np.int32)
    target[live] = np.arange(len(live), dtype=np.int32)
    return target
