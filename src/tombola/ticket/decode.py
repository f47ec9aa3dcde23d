"""From bytes to a ticket, step by step, trusting nothing."""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from tombola.errors import CorruptTicket, InvalidValue, TicketError
from tombola.prune import masks as mask_tools
from tombola.ticket import canonical, container
from tombola.ticket.container import corrupt
from tombola.ticket.payload import KEY, SCHEMA
from tombola.ticket.ticket import BUFFER_DTYPES, START_DTYPES, Ticket, plain_name

STEPS: Final = ("container", "schema", "shapes", "digest", "masks", "values", "provenance")
"""What is checked, in this order; each step relies on those before it."""

_Steps = Generator[str, None, Ticket]


def decode(data: bytes, where: str = "the ticket") -> Ticket:
    """Read a ticket from its bytes.

    Args:
        data: the whole file.
        where: the file's name, for messages.

    Raises:
        TicketError: written in a schema that this version does not know.
        CorruptTicket: anything else that is not exactly what :func:`tombola.ticket.encode` writes.
    """
    steps = stepwise(data, where)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            ticket: Ticket = end.value
            return ticket


def stepwise(data: bytes, where: str) -> _Steps:
    """Read a ticket, giving a sentence after each of ``STEPS``; returns the ticket; raises as :func:`decode`."""
    length = container.header_size(data[:8], len(data), where)
    metadata, shapes = container.read_header(data[8 : 8 + length], len(data) - 8 - length, where)
    yield f"{len(shapes)} tensors fill {len(data)} bytes exactly"
    body = _read_json(metadata, where)
    yield f"schema {SCHEMA}, canonical JSON"
    layout = _read_layout(body["tensors"], shapes, where)
    yield f"{len(layout.start)} parameters, {len(layout.masked)} of them masked, and {len(layout.buffers)} buffers"
    tensors = container.read_tensors(data, where)
    _check_dtypes(layout, tensors, where)
    _check_digest(body, tensors, where)
    yield f"SHA-256 {body['digest']}, recomputed"
    masks = {name: _read_mask(name, layout, tensors, where) for name in layout.masked}
    yield f"{mask_tools.kept(masks)} of {mask_tools.total(masks)} weights kept, no stray bits"
    start = {name: _read_start(name, masks, tensors, where) for name in layout.start}
    yield "all start values are finite"
    buffers = {name: tensors[f"buffer/{name}"] for name in layout.buffers}
    try:
        ticket = Ticket(start, masks, buffers, body["provenance"])
    except InvalidValue as error:
        raise CorruptTicket(f"{where}: {error}") from error
    yield "does not contradict the masks"
    return ticket


@dataclass
class _Layout:
    """What the JSON says there is: names -> dtype name and shape, and for masked parameters how many are kept."""

    start: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    buffers: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    masked: dict[str, int] = field(default_factory=dict)


def _read_json(metadata: dict[str, str], where: str) -> dict[str, Any]:
    if metadata.keys() != {KEY}:
        corrupt(where, f"has metadata keys {sorted(metadata)!r:.120}", f"the one key {KEY!r}",
                "It is no ticket; a ticket is written by `tombola find` or tombola.ticket.save.")  # fmt: skip
    try:
        body = canonical.loads(metadata[KEY])
        exact = canonical.dumps(body) == metadata[KEY]
    except (TypeError, ValueError, RecursionError) as error:
        corrupt(where, f"has a description that is not JSON ({error})"[:200], "canonical JSON")
    if not isinstance(body, dict) or type(body.get("schema")) is not int:
        corrupt(where, "has a description without a schema number", f"schema {SCHEMA}")
    if body["schema"] != SCHEMA:
        raise TicketError(
            f"{where} is written in schema {body['schema']!r:.20}; this tombola reads schema {SCHEMA}. Install the "
            "tombola that wrote it, or a newer one."
        )
    if not exact or body.keys() != {"schema", "digest", "provenance", "tensors"}:
        corrupt(where, "has a description that tombola did not write", "canonical JSON with the keys of schema 1")
    if not isinstance(body["provenance"], dict) or not isinstance(body["digest"], str):
        corrupt(where, "has no provenance or no digest", "both")
    return body


def _read_layout(described: Any, shapes: dict[str, tuple[int, ...]], where: str) -> _Layout:
    """Compare what the JSON describes with the tensors that are there, before any is read."""
    if not isinstance(described, dict) or described.keys() != {"start", "buffer"}:
        corrupt(where, "does not describe its tensors", "start and buffer")
    layout, rest = _Layout(), dict(shapes)
    for group, entries in described.items():
        if not isinstance(entries, dict):
            corrupt(where, f"does not describe its {group} tensors", "a description by name")
        for name, entry in entries.items():
            dtype, shape, size = _read_outline(group, name, entry, where)
            (layout.start if group == "start" else layout.buffers)[name] = (dtype, shape)
            kept = entry.get("kept")
            expected: dict[str, tuple[int, ...]] = {f"{group}/{name}": shape}
            if kept is not None:
                if type(kept) is not int or not 0 <= kept <= size:
                    corrupt(where, f"keeps {kept!r:.40} of the {size} weights of {name!r}", "a count of them")
                layout.masked[name] = kept
                expected = {f"mask/{name}": ((size + 7) // 8,), f"start/{name}": (kept,)}
            for key, wanted in expected.items():
                found = rest.pop(key, None)
                if found != wanted:
                    corrupt(where, f"has tensor {key!r} of shape {found}", f"{wanted}, as {name!r} is described")
    if rest:
        corrupt(where, f"holds a tensor {next(iter(rest))!r:.80} that it does not describe", "no others")
    return layout


def _read_outline(group: str, name: str, entry: Any, where: str) -> tuple[str, tuple[int, ...], int]:
    keys = {"dtype", "shape", "kept"} if group == "start" else {"dtype", "shape"}
    if not plain_name(name) or not isinstance(entry, dict) or entry.keys() != keys:
        corrupt(where, f"describes {group} {name!r:.80} in other words", f"a plain name with {', '.join(sorted(keys))}")
    size = container.count(entry["shape"])
    known = [str(dtype).removeprefix("torch.") for dtype in (START_DTYPES if group == "start" else BUFFER_DTYPES)]
    if size is None or entry["dtype"] not in known:
        outline = f"{entry['dtype']!r:.20} of shape {entry['shape']!r:.80}"
        corrupt(where, f"has {group} {name!r} as {outline}", f"a tensor of {', '.join(known)}")
    return entry["dtype"], tuple(entry["shape"]), size


def _check_dtypes(layout: _Layout, tensors: dict[str, Tensor], where: str) -> None:
    expected = {f"mask/{name}": "uint8" for name in layout.masked}
    expected |= {f"start/{name}": dtype for name, (dtype, _) in layout.start.items()}
    expected |= {f"buffer/{name}": dtype for name, (dtype, _) in layout.buffers.items()}
    for key, dtype in expected.items():
        found = str(tensors[key].dtype).removeprefix("torch.")
        if found != dtype:
            corrupt(where, f"has tensor {key!r} in {found}", f"{dtype}, from its description")


def _check_digest(body: dict[str, Any], tensors: dict[str, Tensor], where: str) -> None:
    found = canonical.digest(tensors, canonical.dumps({key: body[key] for key in body if key != "digest"}))
    if found != body["digest"]:
        corrupt(where, f"has digest {found}", f"{body['digest']:.64}, which it was written with; it was altered since")


def _read_mask(name: str, layout: _Layout, tensors: dict[str, Tensor], where: str) -> Tensor:
    bits, shape = tensors[f"mask/{name}"], layout.start[name][1]
    padding = -_size(shape) % 8
    if padding and int(bits[-1]) & ((1 << padding) - 1):
        corrupt(where, f"has bits set behind the end of mask {name!r}", "zeros there")
    mask = mask_tools.unpack(bits, shape)
    if int(mask.sum()) != layout.masked[name]:
        corrupt(where, f"has a mask {name!r} that keeps {int(mask.sum())}", f"{layout.masked[name]}, as described")
    return mask


def _read_start(name: str, masks: dict[str, Tensor], tensors: dict[str, Tensor], where: str) -> Tensor:
    values = tensors[f"start/{name}"]
    if not bool(torch.isfinite(values).all()):
        corrupt(where, f"has NaN or Inf among the start values of {name!r}", "finite ones")
    if name not in masks:
        return values
    dense = torch.zeros(masks[name].shape, dtype=values.dtype)
    dense[masks[name]] = values
    return dense


def _size(shape: tuple[int, ...]) -> int:
    return container.count(list(shape)) or 0
