"""What a ticket's JSON says, compared with the tensors that are there, before any of them is read."""

import re
from dataclasses import dataclass, field
from typing import Any, Final, final

from tombola.errors import TicketError
from tombola.ticket import canonical, container
from tombola.ticket.container import corrupt
from tombola.ticket.payload import KEY, SCHEMAS
from tombola.ticket.ticket import BUFFER_DTYPES, START_DTYPES, plain_name

MOST_UNMASKED: Final = 1 << 20
"""Parameters without a mask, beyond eight for a byte of the file, that a file may leave to the seed: a mask's bits are
in the file and bound what it declares, and of these nothing is."""

_KEYS: Final = {1: {"schema", "digest", "provenance", "tensors"}}
_KEYS[2] = _KEYS[1] | {"parts", "drawn", "seal"}
_PARTS: Final[tuple[list[str], ...]] = ([], ["parent"], ["theta_0"], ["parent", "theta_0"])


@final
@dataclass
class Layout:
    """What the JSON says there is.

    Attributes:
        start: parameter name -> dtype name and shape.
        buffers: buffer name -> dtype name and shape.
        masked: masked parameter name -> how many are kept.
        theta_0: whether initial values are there.
        parent: whether the parent's masks are there.
        drawn: the digest of the start values, where the file leaves them out.
    """

    start: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    buffers: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    masked: dict[str, int] = field(default_factory=dict)
    theta_0: bool = False
    parent: bool = False
    drawn: str | None = None

    def dtypes(self) -> dict[str, str]:
        """Give the tensors that the file must have, each with its dtype's name."""
        found = {f"mask/{name}": "uint8" for name in self.masked}
        found |= {f"{group}/{name}": dtype for group in self.groups() for name, (dtype, _) in self.start.items()}
        found |= {f"buffer/{name}": dtype for name, (dtype, _) in self.buffers.items()}
        return found | ({f"parent/{name}": "uint8" for name in self.masked} if self.parent else {})

    def groups(self) -> list[str]:
        """Name the value sets that are stored."""
        return ["start"] * (self.drawn is None) + ["theta_0"] * self.theta_0


def read_json(metadata: dict[str, str], where: str) -> dict[str, Any]:
    """Read the one metadata entry.

    Raises:
        TicketError: a schema that this version does not know.
        CorruptTicket: anything that tombola does not write.
    """
    if metadata.keys() != {KEY}:
        corrupt(where, f"has metadata keys {sorted(metadata)!r:.120}", f"the one key {KEY!r}",
                "It is no ticket; a ticket is written by `tombola find` or tombola.ticket.save.")  # fmt: skip
    try:
        body = canonical.loads(metadata[KEY])
        exact = canonical.dumps(body) == metadata[KEY]
    except (TypeError, ValueError, RecursionError) as error:
        corrupt(where, f"has a description that is not JSON ({error})"[:200], "canonical JSON")
    known = " or ".join(map(str, SCHEMAS))
    if not isinstance(body, dict) or type(body.get("schema")) is not int:
        corrupt(where, "has a description without a schema number", f"schema {known}")
    schema = body["schema"]
    if schema not in SCHEMAS:
        raise TicketError(
            f"{where} is written in schema {schema!r:.20}; this tombola reads schema {known}. Install the tombola that "
            "wrote it, or a newer one."
        )
    if not exact or body.keys() != _KEYS[schema]:
        corrupt(
            where, "has a description that tombola did not write", f"canonical JSON with the keys of schema {schema}"
        )
    if not isinstance(body["provenance"], dict) or not _is_digest(body["digest"]):
        corrupt(where, "has no provenance or no digest", "both")
    if schema == 2:
        _check_parts(body, where)
    return body


def read_layout(body: dict[str, Any], shapes: dict[str, tuple[int, ...]], size: int, where: str) -> Layout:
    """Compare what the JSON describes with the tensors that are there.

    Args:
        body: the JSON, from :func:`read_json`.
        shapes: tensor name -> shape, from the header.
        size: of the file, in bytes.
        where: the file, for messages.

    Raises:
        CorruptTicket: they differ, or something is described that no file of this size can hold.
    """
    described, parts = body["tensors"], body.get("parts", [])
    if not isinstance(described, dict) or described.keys() != {"start", "buffer"}:
        corrupt(where, "does not describe its tensors", "start and buffer")
    layout = Layout(theta_0="theta_0" in parts, parent="parent" in parts, drawn=body.get("drawn"))
    rest, unmasked = dict(shapes), 0
    for group, entries in described.items():
        if not isinstance(entries, dict):
            corrupt(where, f"does not describe its {group} tensors", "a description by name")
        for name, entry in entries.items():
            dtype, shape, entries_of = _read_outline(group, name, entry, where)
            (layout.start if group == "start" else layout.buffers)[name] = (dtype, shape)
            kept = entry.get("kept")
            if kept is not None:
                if type(kept) is not int or not 0 <= kept <= entries_of:
                    corrupt(where, f"keeps {kept!r:.40} of the {entries_of} weights of {name!r}", "a count of them")
                layout.masked[name] = kept
                _take(rest, f"mask/{name}", ((entries_of + 7) // 8,), name, where)
                if layout.parent and len(rest.pop(f"parent/{name}", ())) != 1:
                    corrupt(where, f"has no tensor {f'parent/{name}'!r:.90} of one axis", "compressed bits")
                shape = (kept,)
            elif group == "start":
                unmasked += entries_of
            for stored in layout.groups() if group == "start" else [group]:
                _take(rest, f"{stored}/{name}", shape, name, where)
    if rest:
        corrupt(where, f"holds a tensor {next(iter(rest))!r:.80} that it does not describe", "no others")
    if layout.drawn is not None:
        check_unmasked(unmasked, size, where)
    return layout


def check_unmasked(entries: int, size: int, where: str) -> None:
    """Raise if a file of ``size`` bytes leaves more to the seed than its masks account for.

    Raises:
        CorruptTicket: more parameters without a mask than eight for a byte, and ``MOST_UNMASKED``.
    """
    if entries > 8 * size + MOST_UNMASKED:
        corrupt(where, f"leaves {entries} parameters without a mask to the seed", f"at most {8 * size + MOST_UNMASKED}",
                "A network that is hardly masked is written with its values.")  # fmt: skip


def _check_parts(body: dict[str, Any], where: str) -> None:
    """Look at what schema 2 says more."""
    parts, drawn = body["parts"], body["drawn"]
    if parts not in _PARTS or not (drawn is None or _is_digest(drawn)) or not _is_digest(body["seal"]):
        corrupt(where, f"has parts {parts!r:.80}, drawn {drawn!r:.80} or a seal that is none", "those of schema 2")
    if drawn is not None and "theta_0" in parts:
        corrupt(where, "has initial values beside start values that are drawn", "one of the two")
    if drawn is None and not parts:
        corrupt(where, "is written in schema 2 without a part of it", "schema 1, in which tombola writes such a ticket")


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _take(rest: dict[str, tuple[int, ...]], key: str, wanted: tuple[int, ...], name: str, where: str) -> None:
    found = rest.pop(key, None)
    if found != wanted:
        corrupt(where, f"has tensor {key!r} of shape {found}", f"{wanted}, as {name!r} is described")


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
