"""From bytes to a ticket, step by step, trusting nothing."""

import platform
from collections.abc import Generator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from tombola.errors import CorruptTicket, InvalidValue, TicketError
from tombola.prune import masks as mask_tools
from tombola.ticket import canonical, container, lineage, payload
from tombola.ticket.container import corrupt
from tombola.ticket.layout import Layout, read_json, read_layout
from tombola.ticket.replay import Factory, draw
from tombola.ticket.ticket import Ticket

STEPS: Final = ("container", "schema", "shapes", "digest", "masks", "lineage", "values", "provenance")
"""What is checked, in this order; each step relies on those before it."""

_Steps = Generator[str, None, Ticket]


def decode(data: bytes, where: str = "the ticket", *, build: Factory | None = None) -> Ticket:
    """Read a ticket from its bytes.

    Args:
        data: the whole file.
        where: the file's name, for messages.
        build: makes the network, where the file leaves the start values to the seed and the network is not one of
            :func:`tombola.models.registry`; never called otherwise. It may ask for ``input_shape`` and ``classes``.

    Raises:
        TicketError: written in a schema that this version does not know, or start values that cannot be drawn from
            the seed here.
        CorruptTicket: anything else that is not what :func:`tombola.ticket.encode` writes.
    """
    steps = stepwise(data, where, build)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            ticket: Ticket = end.value
            return ticket


def stepwise(data: bytes, where: str, build: Factory | None = None) -> _Steps:
    """Read a ticket, giving a sentence after each of ``STEPS``; returns the ticket; raises as :func:`decode`."""
    length = container.header_size(data[:8], len(data), where)
    metadata, shapes = container.read_header(data[8 : 8 + length], len(data) - 8 - length, where)
    yield f"{len(shapes)} tensors fill {len(data)} bytes exactly"
    body = read_json(metadata, where)
    yield f"schema {body['schema']}, canonical JSON"
    layout = read_layout(body, shapes, len(data), where)
    yield f"{len(layout.start)} parameters, {len(layout.masked)} of them masked, and {len(layout.buffers)} buffers"
    tensors = container.read_tensors(data, where)
    _check_dtypes(layout, tensors, where)
    yield _check_digest(body, tensors, where)
    masks = {name: _read_mask(name, layout, tensors, where) for name in layout.masked}
    yield f"{mask_tools.kept(masks)} of {mask_tools.total(masks)} weights kept, no stray bits"
    about = body["provenance"]
    parent = {name: _read_parent(name, masks, tensors, where) for name in masks} if layout.parent else None
    try:
        if parent is not None:
            lineage.check_parent(masks, parent)
        lineage.check_lineage(about, masks, parent)
    except InvalidValue as error:
        raise CorruptTicket(f"{where}: {error}") from error
    yield lineage.sentence(about, masks, parent)
    theta_0 = _read_values("theta_0", layout, masks, tensors, where) if layout.theta_0 else None
    if layout.drawn is None:
        start = _read_values("start", layout, masks, tensors, where)
    else:
        start = _draw(layout, masks, about, build, where)
    yield "all start values are finite" if layout.drawn is None else f"drawn from the seed, with SHA-256 {layout.drawn}"
    buffers = {name: tensors[f"buffer/{name}"] for name in layout.buffers}
    try:
        ticket = Ticket(start, masks, buffers, about, theta_0, parent)
    except InvalidValue as error:
        raise CorruptTicket(f"{where}: {error}") from error
    if ticket.digest != body["digest"]:
        corrupt(where, f"holds the ticket {ticket.digest}", f"{body['digest']:.64}, which it says it holds")
    yield f"does not contradict the masks; the ticket's digest is {ticket.digest}"
    return ticket


def _check_dtypes(layout: Layout, tensors: dict[str, Tensor], where: str) -> None:
    for key, dtype in layout.dtypes().items():
        found = str(tensors[key].dtype).removeprefix("torch.")
        if found != dtype:
            corrupt(where, f"has tensor {key!r} in {found}", f"{dtype}, from its description")


def _check_digest(body: dict[str, Any], tensors: dict[str, Tensor], where: str) -> str:
    """Compare the file with the digest that covers it as it stands; in schema 1 that is the ticket's."""
    key = "seal" if "seal" in body else "digest"
    found = canonical.digest(tensors, canonical.dumps({name: body[name] for name in body if name != key}))
    if found != body[key]:
        corrupt(where, f"has digest {found}", f"{body[key]:.64}, which it was written with; it was altered since")
    return f"SHA-256 {found}, recomputed"


def _read_mask(name: str, layout: Layout, tensors: dict[str, Tensor], where: str) -> Tensor:
    mask = _unpack(tensors[f"mask/{name}"], layout.start[name][1], f"mask {name!r}", where)
    if int(mask.sum()) != layout.masked[name]:
        corrupt(where, f"has a mask {name!r} that keeps {int(mask.sum())}", f"{layout.masked[name]}, as described")
    return mask


def _read_parent(name: str, masks: dict[str, Tensor], tensors: dict[str, Tensor], where: str) -> Tensor:
    size = (masks[name].numel() + 7) // 8
    bits = payload.decompress(tensors[f"parent/{name}"], size)
    if bits is None:
        corrupt(where, f"has a parent {name!r} that does not decompress", f"one zlib stream of {size} bytes")
    return masks[name] ^ _unpack(bits, tuple(masks[name].shape), f"parent {name!r}", where)


def _unpack(bits: Tensor, shape: tuple[int, ...], what: str, where: str) -> Tensor:
    padding = -(container.count(list(shape)) or 0) % 8
    if padding and int(bits[-1]) & ((1 << padding) - 1):
        corrupt(where, f"has bits set behind the end of {what}", "zeros there")
    return mask_tools.unpack(bits, shape)


def _read_values(
    group: str, layout: Layout, masks: dict[str, Tensor], tensors: dict[str, Tensor], where: str
) -> dict[str, Tensor]:
    found = {}
    for name in layout.start:
        values = tensors[f"{group}/{name}"]
        if not bool(torch.isfinite(values).all()):
            corrupt(where, f"has NaN or Inf among the {group} values of {name!r}", "finite ones")
        if name in masks:
            dense = torch.zeros(masks[name].shape, dtype=values.dtype)
            dense[masks[name]] = values
            values = dense
        found[name] = values
    return found


def _draw(
    layout: Layout, masks: dict[str, Tensor], about: Mapping[str, Any], build: Factory | None, where: str
) -> dict[str, Tensor]:
    start = {name: value.cpu() for name, value in draw(about, layout.start, build, where).params.items()}
    found = payload.start_digest(start, masks)
    if found != layout.drawn:
        versions = about.get("versions")
        then = versions.get("torch") if isinstance(versions, dict) else None
        raise TicketError(
            f"{where} leaves its start values to the seed, and those drawn here have SHA-256 {found}, expected "
            f"{layout.drawn:.64}. Every bit must be equal. Another torch, another CPU or another network draws others: "
            f"it was written with torch {then!r:.40} on {about.get('cpu_capability')!r:.40}, and here are torch "
            f"{torch.__version__} and {torch.backends.cpu.get_cpu_capability()} ({platform.machine()}). Where it "
            "was written, `tombola ticket export --to full` makes a file that holds its values."
        )
    return start
