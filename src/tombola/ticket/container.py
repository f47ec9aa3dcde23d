"""Safetensors bytes: written by the library, read back without trusting a number in them.

A file is an 8-byte little-endian length, a JSON header of that length (tensor name -> dtype, shape, offsets), and the
tensors' bytes without a gap: https://github.com/huggingface/safetensors. The library checks all that, and copies
whatever a flipped bit left; what is read here is checked against the bytes that are there before memory is taken for
it.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import safetensors.torch
from torch import Tensor

from tombola.errors import CorruptTicket, InvalidValue
from tombola.ticket import canonical

MOST_HEADER: Final = 1 << 25
"""Bytes, 32 MiB: room for a hundred thousand tensors. The library's own bound is 100 MB."""

_WIDTHS: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4, "F64": 8, "C64": 8,
}  # fmt: skip
_MOST_AXES: Final = 64
_MOST_ENTRIES: Final = 1 << 60

NEXT: Final = "Copy the file again from where it came from."


def write(tensors: Mapping[str, Tensor], key: str, text: str) -> bytes:
    """Give the safetensors bytes of some tensors and one metadata entry; equal arguments give equal bytes.

    Tensors that are not contiguous, or share memory, are copied first: the library refuses them.

    Raises:
        InvalidValue: a tensor that the library refuses, or a header larger than ``MOST_HEADER``.
    """
    own = {name: tensors[name].detach().to("cpu", copy=True).contiguous() for name in sorted(tensors)}
    try:
        data: bytes = safetensors.torch.save(own, metadata={key: text})
    except Exception as error:
        raise InvalidValue(
            f"safetensors refuses these tensors with {type(error).__name__}: {error}. It takes dense tensors of "
            "ordinary dtypes under printable names; convert them."
        ) from error
    if int.from_bytes(data[:8], "little") > MOST_HEADER:
        raise InvalidValue(
            f"the names, shapes and provenance take {int.from_bytes(data[:8], 'little')} bytes, at most {MOST_HEADER} "
            "are allowed. Keep long records in a file of their own and put its digest into the provenance."
        )
    return data


def header_size(first: bytes, size: int, where: str) -> int:
    """Read the header's length from the file's first eight bytes.

    Args:
        first: the file's first 8 bytes, or fewer if there are no more.
        size: the file's size in bytes.
        where: the file, for messages.

    Raises:
        CorruptTicket: a length that does not fit the file.
    """
    length = int.from_bytes(first[:8], "little")
    if len(first) < 8 or length > size - 8:
        claimed = f"says that its header takes {length} bytes" if len(first) == 8 else "has no header"
        corrupt(where, f"{claimed} and has {size} bytes in all", "a safetensors file, whole")
    if length > MOST_HEADER:
        corrupt(where, f"says that its header takes {length} bytes", f"at most {MOST_HEADER}")
    return length


def read_header(header: bytes, data_size: int, where: str) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Read the header and check every number in it.

    Args:
        header: the header's bytes.
        data_size: how many bytes follow it.
        where: the file, for messages.

    Returns:
        the metadata, and tensor name -> shape.

    Raises:
        CorruptTicket: not such a header, or one whose tensors do not fill the file exactly.
    """
    try:
        entries = canonical.loads(header)
    except (ValueError, RecursionError) as error:
        corrupt(where, f"has a header that is not JSON ({error})"[:200], "a safetensors header")
    if not isinstance(entries, dict) or not header.startswith(b"{"):
        corrupt(where, "has a header that is no JSON object", "a safetensors header")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        corrupt(where, "has metadata that are not texts", "text by name")
    shapes, spans = {}, []
    for name, entry in entries.items():
        shapes[name], span = _read_entry(name, entry, where)
        spans.append(span)
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            corrupt(where, f"has a tensor that begins at byte {begin} of the data", f"{end}, where the one before ends")
        end = stop
    if end != data_size:
        corrupt(where, f"holds {data_size} bytes of tensors", f"{end}; the file was cut short or added to")
    return metadata, shapes


def read_tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """Read the tensors of a file whose header has been checked.

    Raises:
        CorruptTicket: the library refuses the bytes.
    """
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except Exception as error:
        raise CorruptTicket(f"{where} is not a safetensors file: {error}. {NEXT}") from error
    return tensors


def corrupt(where: str, found: str, expected: str, more: str = NEXT) -> NoReturn:
    """Raise the error for a ticket file that is not what it should be."""
    raise CorruptTicket(f"{where} {found}; expected {expected}. {more}")


def count(shape: object) -> int | None:
    """Give the number of entries of a declared shape in exact integers, or ``None`` for one that no tensor has.

    Example:
        >>> count([2, 3]), count([]), count([2**40, 2**40]), count([-1]), count([True])
        (6, 1, None, None, None)
    """
    if not isinstance(shape, list) or len(shape) > _MOST_AXES:
        return None
    if any(type(side) is not int or not 0 <= side <= _MOST_ENTRIES for side in shape):
        return None
    # Zeros aside, because torch multiplies the other sides for its strides.
    return math.prod(shape) if math.prod(side or 1 for side in shape) <= _MOST_ENTRIES else None


def _read_entry(name: str, entry: Any, where: str) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Give a tensor's shape and its place among the data, or raise."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        corrupt(where, f"describes tensor {name!r:.80} in other words", "dtype, shape and data_offsets")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _WIDTHS:
        corrupt(where, f"has tensor {name!r:.80} of dtype {entry['dtype']!r:.20}", f"one of {', '.join(_WIDTHS)}")
    entries, offsets = count(entry["shape"]), entry["data_offsets"]
    if entries is None:
        corrupt(where, f"has tensor {name!r:.80} of shape {entry['shape']!r:.80}", "a shape that a tensor can have")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or any(type(at) is not int or not 0 <= at <= _MOST_ENTRIES for at in offsets)
    ):
        corrupt(where, f"has tensor {name!r:.80} at offsets {offsets!r:.80}", "two byte offsets")
    if offsets[1] - offsets[0] != entries * _WIDTHS[entry["dtype"]]:
        size = entries * _WIDTHS[entry["dtype"]]
        corrupt(where, f"has {offsets[1] - offsets[0]} bytes for tensor {name!r:.80}", f"{size}, from its shape")
    return tuple(entry["shape"]), (offsets[0], offsets[1])
