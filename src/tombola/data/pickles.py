"""Pickles of plain values and byte arrays, read without running anything they ask for.

The published python version of CIFAR-10 is a pickle, and a pickle may name any function to call. This reader gives
the four names that an array needs (and ``_codecs.encode``, which old protocols use for bytes) to stand-ins of its own,
made anew for each file, and refuses every other name; numpy itself is never called with what the file says.
"""

import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt

from tombola.errors import CorruptData

Bytes = npt.NDArray[np.uint8]

_REBUILD: Final = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}
_BUFFER: Final = {("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer")}


def read_pickle(path: Path, content: bytes) -> Any:
    """Read a pickle of dictionaries, lists, numbers, texts, bytes and uint8 arrays.

    Texts of Python 2 come back as bytes.

    Args:
        path: the file's name, for messages.
        content: the pickle.

    Raises:
        CorruptData: the pickle names anything else (nothing is run), holds an array of another type, or is damaged.
    """
    try:
        return _unwrap(_Reader(path, content).load())
    except CorruptData:
        raise
    except Exception as error:  # A damaged pickle can fail in any way that its opcodes can.
        raise CorruptData(
            f"{path} is not a readable pickle ({type(error).__name__}: {error}). The python version of CIFAR-10 is "
            "expected; get the file again, or better the binary version."
        ) from error


@final
class _Dtype:
    """Stands for ``numpy.dtype``: takes uint8 and nothing else."""

    def __init__(self, kind: object, *_flags: object) -> None:
        if kind not in ("u1", b"u1", "|u1", b"|u1"):
            raise ValueError(f"an array of type {kind!r}; uint8 ('u1') is expected")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and the rest: a byte has none."""


@final
class _Array:
    """Stands for an array until its bytes are known."""

    values: Bytes | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _build(shape, dtype, "F" if fortran else "C", data)


def _build(shape: Any, dtype: Any, order: Any, data: Any) -> Bytes:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray) or not isinstance(shape, tuple):
        raise ValueError("an array that is not made of a shape, a type and bytes")
    if any(type(size) is not int or size < 0 for size in shape) or math.prod(shape) != len(data):
        raise ValueError(f"an array of shape {shape} made of {len(data)} bytes")
    return np.frombuffer(bytearray(data), np.uint8).reshape(shape, order="F" if order == "F" else "C")


@final
class _Reader(pickle.Unpickler):
    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str, /) -> Any:
        """Hand out stand-ins, each a new function, so that a file can leave nothing behind in them."""
        stand_in = _stand_in(module, name)
        if stand_in is None:
            raise CorruptData(
                f"{self._path} is a pickle that asks for {module}.{name}; an array of bytes needs no such thing, so "
                "nothing was run. Do not trust this file; get the binary version with `tombola data fetch cifar-10`."
            )
        return stand_in

    def persistent_load(self, _pid: Any, /) -> Any:
        raise ValueError("a reference to something outside the file")


def _stand_in(module: str, name: str) -> Callable[..., object] | None:
    asked = (module, name)
    if asked in _REBUILD:
        return lambda *_: _Array()
    if asked in _BUFFER:
        return lambda data, dtype, shape, order="C": _build(shape, dtype, order, data)
    if asked == ("numpy", "dtype"):
        return lambda *arguments: _Dtype(*arguments)
    if asked == ("numpy", "ndarray"):
        return lambda *_: None  # Only ever an argument of _reconstruct.
    if asked == ("_codecs", "encode"):
        return lambda text, _codec="latin1": str(text).encode("latin1")
    return None


def _unwrap(value: Any) -> Any:
    """Replace the stand-ins of arrays at the top of a dictionary by their values."""
    if isinstance(value, dict):
        return {key: item.values if isinstance(item, _Array) else item for key, item in value.items()}
    return value
