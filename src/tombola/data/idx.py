"""The IDX format, in which MNIST and Fashion-MNIST are published.

The format is described on the MNIST page (LeCun, Cortes and Burges): two zero bytes, a byte for the type, a byte for
the number of dimensions, each dimension as a big-endian 32-bit integer, then the values, big-endian, row by row.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from tombola.data.places import unreadable
from tombola.errors import CorruptData

_DTYPES: Final = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_File: TypeAlias = IO[bytes] | gzip.GzipFile
_CHUNK: Final = 1 << 20


def read_idx(path: Path) -> npt.NDArray[Any]:
    """Read an IDX file, plain or gzipped (told apart by its first bytes, not by its name).

    Returns:
        An array of the shape and type that the header states, in the machine's byte order, writable.

    Raises:
        DataMissing: the file cannot be opened.
        CorruptData: not an IDX file, an unknown type byte, fewer or more values than the header states, or a damaged
            gzip stream.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                return _parse(path, raw)
            with gzip.GzipFile(fileobj=raw) as unzipped:
                return _parse(path, unzipped)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorruptData(
            f"{path} is a damaged gzip file ({error}). A complete IDX file is expected; get it again."
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _parse(path: Path, file: _File) -> npt.NDArray[Any]:
    head = _read(file, 4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES or not 1 <= head[3] <= 64:
        raise CorruptData(
            f"{path} begins with the bytes {head.hex(' ') or '(none)'}, so it is not an IDX file. Expected 00 00, a "
            f"type among {', '.join(f'{code:02x}' for code in _DTYPES)}, and 1 to 64 dimensions; get the file again."
        )
    dtype = np.dtype(_DTYPES[head[2]])
    sizes = _read(file, 4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise CorruptData(f"{path} ends within its header of {head[3]} dimensions. Get the file again.")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    expected = math.prod(shape) * dtype.itemsize
    body = _read(file, expected + 1)  # One byte more than promised, so that trailing bytes show.
    if len(body) != expected:
        found = f"only {len(body):,}" if len(body) < expected else "more"
        raise CorruptData(
            f"{path} states the shape {shape} of {dtype.name}, so {expected:,} bytes after its header, and has "
            f"{found}. Get the file again."
        )
    try:
        values = np.frombuffer(body, dtype).reshape(shape)
    except ValueError as error:  # Nothing times something huge: as many values as promised, and yet no array.
        raise CorruptData(f"{path} states the shape {shape}, which no array has. Get the file again.") from error
    return values.astype(dtype.newbyteorder("="), copy=False)


def _read(file: _File, most: int) -> bytearray:
    """Read up to ``most`` bytes piece by piece: a lying header must not make us reserve what it claims."""
    content = bytearray()
    while len(content) < most and (piece := file.read(min(_CHUNK, most - len(content)))):
        content += piece
    return content
