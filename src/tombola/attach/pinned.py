"""One parameter under one mask: its pruned entries are zero, and so are their gradients."""

import threading
import weakref
from typing import Any, Final, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_INTEGERS: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

_PINNED: "weakref.WeakValueDictionary[int, Pinned]" = weakref.WeakValueDictionary()
"""``id(parameter)`` -> what pins it, for the optimiser's hooks, which are handed parameters and nothing else."""

_LOCK: Final = threading.Lock()


class _Words(NamedTuple):
    """The mask as words of ones and zeros, for tensors of one kind; ``None`` for a kind that has no such words."""

    dtype: torch.dtype
    device: torch.device
    bits: Tensor | None


@final
class Pinned:
    """Holds a mask on a parameter.

    A deep copy pins the copied parameter, and so does an unpickled one: the hook is registered where the object is
    made, for neither carries hooks on tensors along.

    Attributes:
        param: the parameter; two modules that share it share this object.
        mask: bool, of its shape; replaced by :meth:`change`, never written to.
    """

    def __init__(self, param: nn.Parameter, mask: Tensor) -> None:
        self.param = param
        self.mask = mask.detach().clone()
        self._clean_gradient: tuple[int, int] | None = None
        self._bits: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._latest: _Words | None = None
        self._ones: Tensor | None = None
        self._hook: RemovableHandle | None = None
        with _LOCK:
            _PINNED[id(param)] = self
        self.ensure_hook()

    def __reduce__(self) -> tuple[Any, ...]:
        # Below this module in the file tree, above it in meaning: another process may not watch its optimisers yet.
        from tombola.attach.steps import pin

        return pin, (self.param, self.mask)

    def change(self, mask: Tensor) -> None:
        """Hold another mask from now on."""
        self.mask = mask.detach().clone()
        self._clean_gradient = self._ones = None
        # In place, so that a captured CUDA graph sees the new mask.
        for (device, dtype), bits in self._bits.items():
            bits.copy_(self.mask.to(device).to(dtype).neg_())

    def ensure_hook(self) -> None:
        """Mask gradients where they are accumulated; again where the hook got lost or the parameter was frozen."""
        if not self.param.requires_grad:
            return
        hooks = self.param._post_accumulate_grad_hooks
        if self._hook is None or self._hook.id not in (hooks or {}):
            self._hook = self.param.register_post_accumulate_grad_hook(_GradientHook(weakref.ref(self)))
        else:
            # After torch.utils.swap_tensors the dictionary is there and nobody calls what is in it, until it is set.
            self.param._post_accumulate_grad_hooks = hooks

    def release(self) -> None:
        """Leave the parameter as any other, with the values it has."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
            if not self.param._post_accumulate_grad_hooks:
                self.param._post_accumulate_grad_hooks = None  # type: ignore[assignment]
        with _LOCK:
            if _PINNED.get(id(self.param)) is self:
                del _PINNED[id(self.param)]

    def clean_weight(self) -> None:
        """Set the pruned entries of the parameter to zero."""
        self.clean(self.param.data)

    def clean_gradient(self) -> None:
        """Set the pruned entries of the accumulated gradient to zero, if there is one."""
        gradient = self.param.grad
        if gradient is None:
            return
        if gradient.is_sparse:
            # An embedding's: rows of values, which may repeat.
            pruned = ~self.mask.to(gradient.device)[tuple(gradient._indices())]
            gradient._values().masked_fill_(pruned, 0)
        elif gradient.requires_grad:
            # Under create_graph the mask is part of the graph.
            self.param.grad = torch.where(self.mask.to(gradient.device), gradient, torch.zeros_like(gradient))
        else:
            self.clean(gradient.data)
            self._clean_gradient = (gradient.data_ptr(), gradient._version)

    def clean_changed_gradient(self) -> None:
        """The same, unless nobody has written to the gradient or put another in its place since it was last done."""
        gradient = self.param.grad
        known = gradient is not None and not gradient.is_sparse and self._clean_gradient is not None
        if gradient is None or not known or self._clean_gradient != (gradient.data_ptr(), gradient._version):
            self.clean_gradient()

    def clean(self, tensor: Tensor) -> None:
        """Set the pruned entries of a tensor of the parameter's shape to zero, in place.

        The sign, exponent and mantissa are ANDed with a word of ones or zeros: as fast as a product and 25 to 50 times
        as fast as ``masked_fill_`` on a CPU, and unlike a product it gives +0 for NaN, Inf and negative numbers.
        """
        # Twice a step for every tensor: what a small network pays is this function, not the memory it moves.
        kept = self._latest
        if kept is None or kept.dtype is not tensor.dtype or kept.device != tensor.device:
            kept = self._latest = self._words_for(tensor)
        if kept.bits is None:
            tensor.masked_fill_(~self.mask.to(tensor.device), 0)
        else:
            # Through ``data`` (which every caller passes): no version counter moves, so a forward pass may do this
            # while an earlier one still waits for its backward pass.
            tensor.view(kept.bits.dtype).bitwise_and_(kept.bits)

    def fill(self, tensor: Tensor) -> None:
        """Raise the pruned entries of a tensor that is nowhere negative to at least 1, in place."""
        if self._ones is None or self._ones.dtype is not tensor.dtype or self._ones.device != tensor.device:
            self._ones = torch.empty_like(tensor, requires_grad=False).copy_(~self.mask)
        torch.maximum(tensor, self._ones, out=tensor)

    def _words_for(self, tensor: Tensor) -> "_Words":
        dtype = _INTEGERS.get(tensor.element_size())
        if dtype is None or tensor.is_complex():
            return _Words(tensor.dtype, tensor.device, None)
        key = (tensor.device, dtype)
        if key not in self._bits:
            self._bits = {k: v for k, v in self._bits.items() if k[0] == tensor.device}
            bits = torch.empty_like(tensor, dtype=dtype, requires_grad=False)
            self._bits[key] = bits.copy_(self.mask).neg_()
        return _Words(tensor.dtype, tensor.device, self._bits[key])


@final
class _GradientHook:
    """Cleans a gradient once it is accumulated; weak, so that a parameter does not keep its own mask alive."""

    def __init__(self, pinned: "weakref.ref[Pinned]") -> None:
        self.pinned = pinned

    def __call__(self, param: Tensor) -> None:
        pinned = self.pinned()
        if pinned is not None and pinned.param is param:
            pinned.clean_gradient()


def pinned_by(param: Any) -> Pinned | None:
    """Find what pins a parameter."""
    found = _PINNED.get(id(param))
    return found if found is not None and found.param is param else None


def anything_pinned() -> bool:
    """Say whether any parameter of this process is under a mask."""
    return bool(_PINNED)
