"""Which tensors and which JSON a ticket's file holds, and what its digest covers.

Tensors: ``mask/<name>``, the mask's packed bits; ``start/<name>``, the surviving values in row-major order of the mask,
or the whole tensor where there is no mask; ``theta_0/<name>``, likewise; ``parent/<name>``, the packed bits of the mask
XOR the parent's mask; ``buffer/<name>``. The ticket's digest is that of ``canonical.digest`` over these tensors and the
canonical JSON of ``schema``, ``provenance``, ``tensors`` and, where there is a ``theta_0`` or a ``parent``, ``parts``.

Schema 1 is a ticket without those two, its tensors and this JSON as they are::

    {"digest": "...", "schema": 1, "provenance": {...}, "tensors": {
        "start": {name: {"dtype": "float32", "shape": [...], "kept": n or null}}, "buffer": {name: {"dtype", "shape"}}}}

``kept`` is null for a parameter without a mask. Schema 2 is any other file. It holds ``parent/<name>`` compressed by
zlib, leaves out every ``start/<name>`` where the start values are drawn from the seed, and says three things more::

    {"schema": 2, ..., "parts": ["parent", "theta_0"], "drawn": null or "...", "seal": "..."}

``parts`` names those that are there. ``drawn`` is the digest of the start values that the file leaves out. ``seal`` is
the digest of the file as it stands: of its tensors, compressed, and its JSON without the seal. Two versions of zlib
may write the same parent in different bytes, so only the seal knows those; ``digest`` is the ticket's, whichever way
and wherever it is written.
"""

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from tombola.prune import masks as mask_tools
from tombola.ticket import canonical
from tombola.types import Masks, Params

if TYPE_CHECKING:
    from tombola.ticket.ticket import Ticket

SCHEMAS: Final = (1, 2)
"""The versions of the layout above."""

KEY: Final = "ticket"
"""The one metadata key. With several, safetensors writes them in an order that changes from process to process."""

_LEVEL: Final = 9


def contents(ticket: "Ticket") -> dict[str, Tensor]:
    """Give the tensors that the digest covers, nothing compressed."""
    tensors = {f"buffer/{name}": value for name, value in ticket.buffers.items()}
    tensors |= {f"mask/{name}": mask_tools.pack(mask) for name, mask in ticket.masks.items()}
    tensors |= survivors("start", ticket.start, ticket.masks)
    if ticket.theta_0 is not None:
        tensors |= survivors("theta_0", ticket.theta_0, ticket.masks)
    if ticket.parent is not None:
        tensors |= {
            f"parent/{name}": mask_tools.pack(mask ^ ticket.parent[name]) for name, mask in ticket.masks.items()
        }
    return tensors


def survivors(group: str, values: Params, masks: Masks) -> dict[str, Tensor]:
    """Give ``group/name`` -> the surviving values in row-major order, or all of them where there is no mask."""
    return {f"{group}/{name}": value[masks[name]] if name in masks else value for name, value in values.items()}


def describe(ticket: "Ticket") -> dict[str, Any]:
    """Give the JSON part that says what the tensors are."""
    kept = mask_tools.counts(ticket.masks)
    return {
        "start": {name: {**_outline(value), "kept": kept.get(name)} for name, value in ticket.start.items()},
        "buffer": {name: _outline(value) for name, value in ticket.buffers.items()},
    }


def digest(ticket: "Ticket") -> str:
    """Give the ticket's digest."""
    return canonical.digest(contents(ticket), canonical.dumps(_body(ticket)))


def start_digest(start: Params, masks: Masks) -> str:
    """Give the digest of start values alone: ``canonical.digest`` over their tensors and an empty text."""
    return canonical.digest(survivors("start", start, masks), "")


def written(ticket: "Ticket", *, drawn: bool) -> tuple[dict[str, Tensor], str]:
    """Give the tensors and the JSON of a file.

    Args:
        ticket: what to write.
        drawn: leave the start values out.
    """
    tensors, body = contents(ticket), _body(ticket)
    body["digest"] = canonical.digest(tensors, canonical.dumps(body))
    if body["schema"] == 1 and not drawn:
        return tensors, canonical.dumps(body)
    if drawn:
        tensors = {name: value for name, value in tensors.items() if not name.startswith("start/")}
    tensors = {name: compress(value) if name.startswith("parent/") else value for name, value in tensors.items()}
    body["schema"] = 2
    body["parts"] = parts(ticket)
    body["drawn"] = start_digest(ticket.start, ticket.masks) if drawn else None
    body["seal"] = canonical.digest(tensors, canonical.dumps(body))
    return tensors, canonical.dumps(body)


def parts(ticket: "Ticket") -> list[str]:
    """Name the parts that schema 1 does not have, in the order of the alphabet."""
    return [name for name in ("parent", "theta_0") if getattr(ticket, name) is not None]


def compress(bits: Tensor) -> Tensor:
    """Compress packed bits by zlib at a fixed level; uint8 in, uint8 out, one axis each."""
    return torch.frombuffer(bytearray(zlib.compress(bits.numpy().tobytes(), _LEVEL)), dtype=torch.uint8)


def decompress(data: Tensor, size: int) -> Tensor | None:
    """Undo :func:`compress` in bounded memory.

    Args:
        data: uint8, one axis.
        size: how many bytes must come out.

    Returns:
        uint8, shape ``[size]``; ``None`` unless ``data`` is one whole zlib stream of exactly that many bytes with
        nothing behind it. At most one byte more than ``size`` is ever written.
    """
    reader = zlib.decompressobj()
    try:
        # One byte more than there should be: a limit of 0 means none, and one of exactly ``size`` stops before the
        # checksum.
        bits = reader.decompress(data.numpy().tobytes(), size + 1)
    except zlib.error:
        return None
    if len(bits) != size or not reader.eof or reader.unused_data:
        return None
    return torch.frombuffer(bytearray(bits), dtype=torch.uint8) if bits else torch.zeros(0, dtype=torch.uint8)


def _body(ticket: "Ticket") -> dict[str, Any]:
    """Give the JSON that the digest covers."""
    body: dict[str, Any] = {"schema": 1, "tensors": describe(ticket), "provenance": dict(ticket.provenance)}
    if named := parts(ticket):
        body |= {"schema": 2, "parts": named}
    return body


def _outline(value: Tensor) -> Mapping[str, Any]:
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
