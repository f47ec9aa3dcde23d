"""What a state dict holds besides parameters, and what it does not hold."""

import io
import pickle
import types
from typing import Any, Final, final

from torch import Tensor, nn

_SEEN: Final = frozenset({"_parameters", "_buffers", "_modules", "training"})


def state_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Give the buffers that the module's state dict has, by name; a buffer that is not persistent is none of them.

    Example:
        >>> sorted(state_buffers(nn.BatchNorm1d(4)))
        ['num_batches_tracked', 'running_mean', 'running_var']
    """
    state = module.state_dict(keep_vars=True)
    return {name: value for name, value in module.named_buffers() if name in state}


def unseen_state(module: nn.Module) -> bytes | None:
    """Write down what the modules of a network hold outside its state dict: attributes, and buffers that are not kept.

    Two calls give the same bytes only where none of it has changed; what a function has closed over, and what stands in
    a module's globals, is not seen.

    Returns:
        ``None`` where something cannot be written down.
    """
    kept = {id(value) for value in state_buffers(module).values()}
    written = io.BytesIO()
    try:
        for name, one in module.named_modules():
            attributes = {key: value for key, value in vars(one).items() if key not in _SEEN}
            unkept = {key: value for key, value in one._buffers.items() if id(value) not in kept}
            _Writer(written, kept).dump((name, attributes, unkept))
    except Exception:  # Pickling runs code of the network's own, which may raise anything.
        return None
    return written.getvalue()


@final
class _Writer(pickle.Pickler):
    """Leaves out what the state dict has, and functions."""

    def __init__(self, file: io.BytesIO, kept: set[int]) -> None:
        super().__init__(file)
        self._kept = kept

    def persistent_id(self, thing: Any) -> Any:
        if (
            isinstance(thing, nn.Module | nn.Parameter | types.FunctionType | types.MethodType)
            or id(thing) in self._kept
        ):
            return id(thing)
        return None
