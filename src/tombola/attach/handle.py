"""``attach``: two lines in any training loop."""

import sys
import weakref
from types import FrameType
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn.utils import stateless

from tombola.attach.pinned import Pinned, pinned_by
from tombola.attach.places import holders, resolve, unwrap
from tombola.attach.ranks import check_equal
from tombola.attach.steps import pin, unwatch_steps
from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune.masks import fingerprint
from tombola.types import Masks

_MARK: Final = "_tombola_attached"
"""The attribute of the attached module that says so; no buffer, so no state dict has it."""

_PINS: Final = "_tombola_pins"
"""The attribute of every module that holds masked parameters: attribute -> :class:`Pinned`. What hooks need is found
through the module they are given: a deep copy shares closures with its original."""


@final
class _Marker:
    """Says of a module that masks were attached to it, and finds the handle; a copy has no handle yet.

    The module does not own its handle, nor its masks the module: a model that is dropped is freed at once.
    """

    def __init__(self, on_all_ranks: bool) -> None:
        self.on_all_ranks = on_all_ranks
        self.handle: weakref.ref[Attached] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Marker, (self.on_all_ranks,)


@final
class Attached:
    """Masks that are on a module.

    A context manager: :meth:`detach` at the end of the block. Made by :func:`attach`, found again by :func:`attached`.

    Attributes:
        model: the module, without wrappers.
    """

    def __init__(self, model: nn.Module, marker: _Marker) -> None:
        self.model = model
        self._marker = marker
        marker.handle = weakref.ref(self)

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks: parameter name -> bool tensor on the parameter's device; a tied parameter once. Copies."""
        return {name: pinned.mask.to(pinned.param.device, copy=True) for name, pinned in self._pins().items()}

    def update(self, new_masks: Masks) -> None:
        """Put other masks in the place of these; a name that is absent from now on trains dense.

        At any moment: between the steps of a run, after ``torch.compile`` (the graph does not contain the mask). A
        weight that grows again starts at zero with zero moments.

        Args:
            new_masks: name -> bool tensor.

        Raises:
            ShapeMismatch, InvalidValue: as for :func:`attach`; the masks that were on stay.
            RanksDiffer: the handle was made on a ``DistributedDataParallel`` and the ranks' masks differ.
        """
        self._check_on()
        wanted = resolve(self.model, new_masks)
        if self._marker.on_all_ranks:
            check_equal(wanted)
        self.reapply()
        params = dict(self.model.named_parameters())
        for name, pinned in self._pins().items():
            if name in wanted:
                pinned.change(wanted[name])
            else:
                pinned.release()
        for part in self.model.modules():
            _drop(part, only_released=True)
        _pin(self.model, {name: mask for name, mask in wanted.items() if pinned_by(params[name]) is None})
        self.reapply()

    def reapply(self) -> None:
        """Zero what is pruned, now: weights and accumulated gradients.

        The one call to make after each step of an optimiser that is no ``torch.optim.Optimizer``, and after writing to
        parameters by hand. Parameters that were replaced are taken over.
        """
        self._check_on()
        for part in self.model.modules():
            _reapply(part)

    def fingerprint(self) -> str:
        """Hash the masks: 64 hexadecimal digits, equal on two ranks exactly when names, shapes and bits are."""
        return fingerprint(self.masks)

    def check_ranks(self) -> None:
        """Compare the masks of all processes; every rank must call it.

        Raises:
            RanksDiffer: two ranks hold different masks. Nothing is done where there is only one process.
        """
        check_equal(self.masks)

    def detach(self) -> None:
        """Leave the module as any other, with the values it has: no hooks, buffers or attributes of ours."""
        if self.model.__dict__.get(_MARK) is not self._marker:
            return
        for pinned in self._pins().values():
            pinned.release()
        for part in self.model.modules():
            _drop(part)
        del self.model.__dict__[_MARK]
        _remove(self.model._forward_pre_hooks, _before_forward)
        unwatch_steps()

    def __enter__(self) -> "Attached":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        masks = self.masks
        alive, size = sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())
        return f"Attached({type(self.model).__name__}: {alive} of {size} weights in {len(masks)} tensors)"

    def _check_on(self) -> None:
        if self.model.__dict__.get(_MARK) is not self._marker:
            raise InvalidValue("these masks were detached from their model. Call attach(model, masks) again.")

    def _pins(self) -> dict[str, Pinned]:
        held = {id(pinned.param): pinned for part in self.model.modules() for pinned in _pins_of(part).values()}
        return {name: held[id(p)] for name, p in self.model.named_parameters() if id(p) in held}


def attach(model: nn.Module, masks: Masks) -> Attached:
    """Hold masks on a module through any training loop.

    Pruned weights become zero and get a zero gradient before anything global looks at it (``clip_grad_norm_``), after
    every step of every ``torch.optim.Optimizer``, made before or after, they are zero again, and their moments are
    erased when a mask changes. Training equals masks inside the graph (:func:`masked_call`), bit for bit for SGD, Adam
    and AdamW. Names, order and classes of the model stay as they are. ``torch.autograd.grad`` still gives the dense
    gradient, which regrowth looks at. Deep copies, pickles and averaged models carry their own masks.

    Args:
        model: any module; inside ``DistributedDataParallel`` or ``torch.compile``, the one within. Under the former,
            all ranks' masks are compared, here and at every update.
        masks: name -> bool tensor, names as in ``named_parameters`` of the module within; an absent name stays dense.
            A tied parameter takes one mask, under any of its names.

    Returns:
        A handle, which is also a context manager.

    Raises:
        ShapeMismatch: a mask of another shape, or for no parameter (under ``weight_norm`` or ``spectral_norm`` mask
            ``parametrizations.weight.original...``).
        InvalidValue: a mask that is not bool, masks that are on already, a tied parameter with two masks, a lazy,
            sharded (FSDP, DTensor), sparse or integer parameter, a scripted module.
        RanksDiffer: the ranks' masks differ.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> with attach(net, {"weight": torch.tensor([[True, False]])}) as on:
        ...     net.weight.tolist()[0][1], on
        (0.0, Attached(Linear: 1 of 2 weights in 1 tensors))
    """
    inner = unwrap(model)
    if isinstance(inner, torch.jit.ScriptModule):
        raise InvalidValue("a scripted module runs no Python hooks. Attach to the module it was made from.")
    wanted = resolve(inner, masks)
    _refuse_taken(inner)
    on_all_ranks = isinstance(model, nn.parallel.DistributedDataParallel)
    if on_all_ranks:
        check_equal(wanted)
    _pin(inner, wanted)
    inner.__dict__[_MARK] = marker = _Marker(on_all_ranks)
    inner.register_forward_pre_hook(_before_forward)
    handle = Attached(inner, marker)
    handle.reapply()
    return handle


def attached(model: nn.Module) -> Attached:
    """Find the handle of the masks on a module, a deep copy of one, or a wrapper such as ``AveragedModel`` around one.

    Raises:
        InvalidValue: there is none, or several submodules have one each.
    """
    found = [part for part in unwrap(model).modules() if _MARK in part.__dict__]
    if len(found) != 1:
        raise InvalidValue(
            f"{len(found) or 'no'} masks are on this {type(model).__name__}; one set is needed. "
            + ("Ask for one of its submodules." if found else "Call attach(model, masks) first.")
        )
    marker: _Marker = found[0].__dict__[_MARK]
    handle = marker.handle() if marker.handle is not None else None
    return Attached(found[0], marker) if handle is None else handle


def _refuse_taken(inner: nn.Module) -> None:
    """Raise if masks are on any of the module's parameters."""
    names = {id(param): name for name, param in inner.named_parameters()}
    taken = [names[id(p)] for _, _, p in holders(inner) if pinned_by(p) is not None]
    if taken or _MARK in inner.__dict__:
        raise InvalidValue(
            f"masks are on this model already ({', '.join(dict.fromkeys(taken)) or 'none of its tensors'}). "
            "Change them with attached(model).update(masks), or detach() first."
        )


def _pin(model: nn.Module, masks: Masks) -> None:
    """Put masks on parameters, and leave at each module that holds one what its hooks need."""
    params = dict(model.named_parameters())
    pins = {id(params[name]): pin(params[name], mask) for name, mask in masks.items()}
    for part, attribute, param in holders(model):
        if id(param) in pins:
            if _PINS not in part.__dict__:
                part.__dict__[_PINS] = {}
                part.register_load_state_dict_post_hook(_after_load)
            part.__dict__[_PINS][attribute] = pins[id(param)]


def _pins_of(part: nn.Module) -> dict[str, Pinned]:
    return part.__dict__.get(_PINS, {})


def _drop(part: nn.Module, *, only_released: bool = False) -> None:
    """Forget a module's pins, or those of parameters that are free."""
    pins = _pins_of(part)
    for attribute, pinned in list(pins.items()):
        if not only_released or pinned_by(pinned.param) is None:
            del pins[attribute]
    if _PINS in part.__dict__ and not pins:
        del part.__dict__[_PINS]
        _remove(part._load_state_dict_post_hooks, _after_load)


def _reapply(part: nn.Module) -> None:
    """Zero what is pruned among a module's own parameters, and take over those that were replaced."""
    for attribute in list(_pins_of(part)):
        if part._parameters.get(attribute) is not None:
            pinned = _take_over(part, attribute)
            pinned.ensure_hook()
            pinned.clean_weight()
            pinned.clean_gradient()


def _take_over(part: nn.Module, attribute: str) -> Pinned:
    """Give what pins a module's parameter, which may have been loaded with assign=True, converted or tied anew."""
    pins, param = _pins_of(part), part._parameters[attribute]
    if param is None or param is pins[attribute].param:
        return pins[attribute]
    mask = pins[attribute].mask
    if param.shape != mask.shape:
        raise ShapeMismatch(
            f"parameter {attribute!r} of a {type(part).__name__} was replaced by one of shape {tuple(param.shape)}, "
            f"and its mask has {tuple(mask.shape)}. Call attached(model).update(masks) with masks for it."
        )
    # A parameter that is pinned elsewhere in the network keeps the mask it has.
    pins[attribute] = pinned_by(param) or pin(param, mask.to(param.device))
    return pins[attribute]


def _after_load(part: nn.Module, keys: Any) -> None:  # noqa: ARG001
    _reapply(part)


def _before_forward(model: nn.Module, args: Any) -> None:  # noqa: ARG001
    """Zero what was written to pruned entries behind our back.

    Not in a graph that is being captured, which would contain the write, and not to stand-ins of ``functional_call``:
    those are the caller's tensors.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() or torch._C._functorch.peek_interpreter_stack():
        return
    for part, pins in _parts_with_pins(model):
        for attribute, pinned in tuple(pins.items()):
            param = part._parameters.get(attribute)
            if param is not pinned.param:
                if type(param) is not nn.Parameter or _in_functional_call():
                    continue
                pinned = _take_over(part, attribute)
            pinned.ensure_hook()
            pinned.clean_weight()


def _parts_with_pins(model: nn.Module) -> list[tuple[nn.Module, dict[str, Pinned]]]:
    """Walk as ``modules()`` does, which takes ten times as long, for it makes names."""
    found, seen = [], set()
    waiting: list[nn.Module | None] = [model]
    while waiting:
        part = waiting.pop()
        if part is None or part in seen:
            continue
        seen.add(part)
        if pins := part.__dict__.get(_PINS):
            found.append((part, pins))
        if part._modules:
            waiting.extend(reversed(part._modules.values()))
    return found


def _in_functional_call() -> bool:
    """Look whether parameters are swapped for a caller's own; asked only where they are not the ones known."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != stateless.__file__:
        frame = frame.f_back
    return frame is not None


def _remove(hooks: Any, function: Any) -> None:
    for number in [number for number, hook in hooks.items() if hook is function]:
        del hooks[number]
