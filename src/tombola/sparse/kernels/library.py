"""The compiled kernels as Python sees them: structures, functions, and the choice of a level."""

import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_double, c_float, c_int32, c_int64, c_uint16, c_void_p
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tombola.errors import InvalidValue, UnknownName

LEVELS: Final = ("plain", "avx2", "avx512")
"""What the kernels are compiled for, slowest first."""

CHOICE: Final = "TOMBOLA_KERNELS"
"""The environment variable that forces a level, or switches the kernels off: ``none``."""

_NONE: Final = "none"
_ABSENT: Final = "the compiled kernels are not here: install a C++ compiler and reinstall"
_OFF: Final = f"{CHOICE}={_NONE} switches the compiled kernels off: unset it to have them"

LANES: Final = 16
PANEL: Final = 64
_INTERFACE: Final = 3

Floats = NDArray[np.float32]
Indices = NDArray[np.int32]

_floats, _indices = POINTER(c_float), POINTER(c_int32)


class Lines(Structure):
    """One way through a sparse matrix; see ``rows.h``."""

    _fields_ = (
        ("count", c_int32),
        ("blocks", c_int32),
        ("starts", _indices),
        ("across", _indices),
    )


class Rows(Structure):
    """A sparse matrix; see ``rows.h``."""

    _fields_ = (("forth", Lines), ("back", Lines), ("at", _indices))


class Dense(Structure):
    """A dense matrix in panels; see ``dense.h``."""

    _fields_ = (("outputs", c_int32), ("inputs", c_int32))


class Entries(Structure):
    """A tensor's entries and the optimiser's state of them."""

    _fields_ = (("value", _floats), ("first", _floats), ("second", _floats), ("count", c_int64))


class Linear(Structure):
    """A linear layer."""

    _fields_ = (
        ("rows", Rows),
        ("weight", Entries),
        ("bias", Entries),
        ("idle_weight", Entries),
        ("idle_bias", Entries),
        ("bias_factor", _floats),
        ("kept", POINTER(c_uint16)),
        ("weight_step", c_int64),
        ("bias_step", c_int64),
        ("dense", c_int32),
    )


class Operation(Structure):
    """One operation of a network."""

    _fields_ = (
        ("kind", c_int32),
        ("which", c_int32),
        ("slope", c_float),
        ("width", c_int32),
        ("full", c_int32),
        ("target", _indices),
    )


class Rule(Structure):
    """An optimiser and its constants."""

    _fields_ = (
        ("kind", c_int32),
        ("momentum", c_double),
        ("weight_decay", c_double),
        ("beta1", c_double),
        ("beta2", c_double),
        ("eps", c_double),
    )


class Plan(Structure):
    """A network to make."""

    _fields_ = (
        ("linears", POINTER(Linear)),
        ("operations", POINTER(Operation)),
        ("target", _indices),
        ("rule", Rule),
        ("linear_count", c_int32),
        ("operation_count", c_int32),
        ("inputs", c_int32),
        ("features", c_int32),
        ("batch_size", c_int32),
        ("evaluation_batch", c_int32),
        ("loss", c_int32),
    )


class Data(Structure):
    """Examples and their labels."""

    _fields_ = (("x", _floats), ("y", POINTER(c_int64)))


class Block(Structure):
    """Iterations to make in one call."""

    _fields_ = (
        ("order", POINTER(c_int64)),
        ("rates", POINTER(c_double)),
        ("dropout", POINTER(_floats)),
        ("steps", c_int64),
        ("seconds", c_double),
    )


class Examples(Structure):
    """Rows to gather."""

    _fields_ = (
        ("first", _floats),
        ("stride", c_int64),
        ("which", POINTER(c_int64)),
        ("count", c_int32),
        ("features", c_int32),
    )


_SIGNATURES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "runs": (c_int32, (c_int32,)),
    "interface": (c_int32, ()),
    "peak": (c_int64, (c_int64,)),
    "network": (c_void_p, (POINTER(Plan),)),
    "free": (None, (c_void_p,)),
    "train": (c_int64, (c_void_p, POINTER(Data), POINTER(Block))),
    "evaluate": (None, (c_void_p, POINTER(Data), c_int64, POINTER(c_double), POINTER(c_int64))),
    "gather": (None, (POINTER(Examples), _indices, _floats, c_int32)),
    "rows_forward": (None, (POINTER(Rows), *[_floats] * 4, c_int32)),
    "rows_backward": (None, (POINTER(Rows), *[_floats] * 3, c_int32)),
    "rows_gradient": (None, (POINTER(Rows), *[_floats] * 3, c_int32)),
    "dense_forward": (None, (POINTER(Dense), *[_floats] * 4, c_int32)),
    "dense_backward": (None, (POINTER(Dense), *[_floats] * 3, c_int32)),
    "dense_gradient": (None, (POINTER(Dense), *[_floats] * 3, c_int32, c_int32)),
    "activate": (None, (c_int32, c_float, _floats, _floats, c_int64)),
    "activate_backward": (None, (c_int32, c_float, _floats, _floats, _floats, c_int64)),
    "loss_gradient": (None, (c_int32, _floats, POINTER(c_int64), c_int32, c_int32, c_int32, _floats)),
    "add_loss": (
        None,
        (c_int32, _floats, POINTER(c_int64), c_int32, c_int32, c_int32, POINTER(c_double), POINTER(c_int64)),
    ),
    "update": (None, (POINTER(Rule), c_double, c_int64, POINTER(Entries), _floats)),
}

_POINTERS: Final[dict[type[np.generic], Any]] = {
    np.float32: _floats,
    np.int32: _indices,
    np.int64: POINTER(c_int64),
    np.uint16: POINTER(c_uint16),
    np.float64: POINTER(c_double),
}


def pointer(array: NDArray[Any] | None) -> Any:
    """Give the address of an array's first entry for a structure or a call; the caller keeps the array alive."""
    if array is None:
        return None
    assert array.flags.c_contiguous
    return array.ctypes.data_as(_POINTERS[array.dtype.type])


def zeros(count: int) -> Floats:
    """Make zeros that begin at a cache line, with room for whole vectors: a multiple of 16, at least 16."""
    size = max(padded(count), LANES)
    raw = np.zeros(size + LANES, dtype=np.float32)
    first = -(raw.ctypes.data // 4) % LANES
    return raw[first : first + size]


def padded(count: int) -> int:
    """Give the next multiple of 16."""
    return -(-count // LANES) * LANES


class Kernels:
    """The functions of one level, without their prefix: ``kernels.rows_forward(...)``.

    Attributes:
        level: one of ``LEVELS``.
    """

    def __init__(self, level: str, path: Path) -> None:
        self.level = level
        self._library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self._library, f"tombola_{name}")
            function.restype, function.argtypes = result, arguments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, f"tombola_{name}")


def kernels(level: str | None = None) -> Kernels:
    """Give the kernels of a level; without one that of ``TOMBOLA_KERNELS``, or the fastest that runs here.

    Raises:
        UnknownName: there is no such level.
        InvalidValue: it is not compiled, this processor cannot run it, or the variable switches the kernels off.
    """
    asked = level or os.environ.get(CHOICE) or None
    if asked not in (None, _NONE, *LEVELS):
        raise UnknownName.among("level of kernels", str(asked), (*LEVELS, _NONE))
    if asked == _NONE:
        raise InvalidValue(f"{_OFF}.")
    if not available():
        raise InvalidValue(f"{_ABSENT}.")
    if asked is not None and asked not in available():
        raise InvalidValue(f"the {asked} kernels do not run here; {' and '.join(available())} do.")
    return _loaded(asked or available()[-1])


def missing() -> str | None:
    """Say in one sentence why there are no kernels; ``None`` where there are."""
    try:
        kernels()
    except InvalidValue as error:
        return str(error).removesuffix(".")
    return None


@cache
def available() -> Sequence[str]:
    """Give the levels that are compiled and that this processor runs, slowest first."""
    return tuple(level for number, level in enumerate(LEVELS) if _runs(level, number))


def _runs(level: str, number: int) -> bool:
    # Each level is asked of the plain library: another may hold instructions that this processor does not have.
    if _path(level) is None or _path("plain") is None:
        return False
    try:
        plain = _loaded("plain")
        if plain.interface() != _INTERFACE or not plain.runs(number):
            return False
        return bool(_loaded(level).interface() == _INTERFACE)
    except (OSError, AttributeError):
        # Built for another interpreter or by another version of this package.
        return False


def _path(level: str) -> Path | None:
    here = Path(__file__).parent
    return next((path for suffix in EXTENSION_SUFFIXES if (path := here / f"_{level}{suffix}").exists()), None)


@cache
def _loaded(level: str) -> Kernels:
    path = _path(level)
    assert path is not None
    return Kernels(level, path)
