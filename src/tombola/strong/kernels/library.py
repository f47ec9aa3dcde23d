"""The compiled solver as Python sees it; absent where there was no C++ compiler."""

import ctypes
import os
from ctypes import c_int32, c_int64, c_void_p
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Final

from torch import Tensor

_INTERFACE: Final = 1
_OFF: Final = "TOMBOLA_KERNELS"


def available() -> bool:
    """Whether the compiled solver is here, and not switched off by ``TOMBOLA_KERNELS=none``."""
    return os.environ.get(_OFF) != "none" and _library() is not None


def nearest(items: Tensor, targets: Tensor, bits: int, codes: Tensor) -> None:
    """Do as :func:`tombola.strong.kernels.reference.nearest`, into ``codes``; other threads may run meanwhile.

    Args:
        items: int64 ``[rows, n]``, contiguous, on the CPU.
        targets: int64 ``[rows]``, likewise.
        bits: as there.
        codes: int64 ``[rows]``, likewise; is written.

    Raises:
        MemoryError: it does not suffice.
    """
    library = _library()
    assert library is not None
    assert items.is_contiguous() and targets.is_contiguous() and codes.is_contiguous()  # noqa: PT018
    rows, count = items.shape
    if library.tombola_nearest(items.data_ptr(), targets.data_ptr(), rows, count, bits, codes.data_ptr()):
        raise MemoryError(f"the sums of {count} candidates do not fit into memory.")


@cache
def _library() -> Any | None:
    here = Path(__file__).parent
    path = next((path for suffix in EXTENSION_SUFFIXES if (path := here / f"_subset{suffix}").exists()), None)
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
        if library.tombola_strong_interface() != _INTERFACE:
            return None
        library.tombola_nearest.restype = c_int32
        library.tombola_nearest.argtypes = (c_void_p, c_void_p, c_int64, c_int32, c_int32, c_void_p)
    except (OSError, AttributeError):
        # Built for another interpreter or by another version of this package.
        return None
    return library
