"""What two tickets have in common, and what not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from tombola.errors import ShapeMismatch
from tombola.prune.masks import Overlap, overlap
from tombola.ticket import canonical
from tombola.ticket.ticket import Ticket
from tombola.types import Masks

Nesting = Literal["equal", "first in second", "second in first", "no"]

Having = Literal["neither", "first only", "second only", "equal", "they differ"]
"""Which of two tickets has a part, and whether both have the same."""


@final
@dataclass(frozen=True)
class TensorDifference:
    """One tensor in two tickets.

    Attributes:
        overlap: kept by the first, by the second and by both; a tensor without a mask keeps everything.
        masked: at least one of the tickets has a mask for it.
        equal: of the entries that both keep, how many start from the same value.
        equal_theta_0: of the entries that both keep, how many have the same initial value; ``None`` unless both
            tickets have ``theta_0``.
    """

    overlap: Overlap
    masked: bool
    equal: int
    equal_theta_0: int | None = None

    @property
    def same_start(self) -> bool:
        """Whether every common survivor starts from the same value."""
        return self.equal == self.overlap.shared

    @property
    def nested(self) -> Nesting:
        """Which of the two subnetworks lies in the other."""
        return _nesting(self.overlap)


@final
@dataclass(frozen=True)
class Difference:
    """Two tickets compared.

    Attributes:
        tensors: parameter name -> the comparison, in the order of the first ticket.
        buffers: names of buffers that differ, or that one of them lacks.
        provenance: key -> what the first and the second say, ``None`` where one is silent; differing keys only.
        theta_0: who has initial values beside the start values; equal if all common survivors' are.
        parent: who has its parent's masks; equal if all of them are.
        lineage: how many levels the first and the second record, and how many of them, from level 0, are the same.
    """

    tensors: Mapping[str, TensorDifference]
    buffers: tuple[str, ...]
    provenance: Mapping[str, tuple[Any, Any]]
    theta_0: Having = "neither"
    parent: Having = "neither"
    lineage: tuple[int, int, int] = (0, 0, 0)

    @property
    def overlap(self) -> Overlap:
        """The counts over all tensors that have a mask in either."""
        found = [tensor.overlap for tensor in self.tensors.values() if tensor.masked]
        return Overlap(
            shared=sum(one.shared for one in found),
            first=sum(one.first for one in found),
            second=sum(one.second for one in found),
            size=sum(one.size for one in found),
        )

    @property
    def nested(self) -> Nesting:
        """Which of the two subnetworks lies in the other, all tensors together."""
        return _nesting(self.overlap)

    @property
    def same_start(self) -> bool:
        """Whether every common survivor starts from the same value, tensors without a mask included."""
        return all(tensor.same_start for tensor in self.tensors.values())

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        parts = {self.theta_0, self.parent} <= {"neither", "equal"}
        return self.nested == "equal" and self.same_start and not self.buffers and not self.provenance and parts


def diff(first: Ticket, second: Ticket) -> Difference:
    """Compare two tickets of one network.

    Raises:
        ShapeMismatch: their parameters do not have the same names and shapes.

    Example:
        >>> a = Ticket({"w": torch.arange(1.0, 5.0)}, {"w": torch.tensor([True, True, False, False])})
        >>> b = Ticket({"w": torch.arange(1.0, 5.0)}, {"w": torch.tensor([True, False, False, False])})
        >>> diff(a, b).nested, diff(a, b).overlap.jaccard, diff(a, b).same_start
        ('second in first', 0.5, True)
    """
    if first.start.keys() != second.start.keys():
        odd = ", ".join(map(repr, sorted(first.start.keys() ^ second.start.keys())[:6]))
        raise ShapeMismatch(
            f"only one of the two tickets has {odd}. Tickets are compared tensor by tensor; give two of one network."
        )
    for name, value in first.start.items():
        if value.shape != second.start[name].shape:
            raise ShapeMismatch(
                f"{name!r} has shape {tuple(value.shape)} in the first ticket and {tuple(second.start[name].shape)} in "
                "the second. Tickets are compared entry by entry; give two of one network."
            )
    tensors = _compare(first, second)
    return Difference(
        tensors=tensors,
        buffers=tuple(
            name
            for name in sorted(first.buffers.keys() | second.buffers.keys())
            if not canonical.same(first.buffers.get(name), second.buffers.get(name))
        ),
        provenance={
            key: (first.provenance.get(key), second.provenance.get(key))
            for key in sorted(first.provenance.keys() | second.provenance.keys())
            if key not in first.provenance
            or key not in second.provenance
            or first.provenance[key] != second.provenance[key]
        },
        theta_0=_having(
            first.theta_0,
            second.theta_0,
            all(one.equal_theta_0 in (None, one.overlap.shared) for one in tensors.values()),
        ),
        parent=_having(first.parent, second.parent, _same_masks(first.parent, second.parent)),
        lineage=_common(first.lineage, second.lineage),
    )


def _compare(first: Ticket, second: Ticket) -> dict[str, TensorDifference]:
    masks, others = _full(first), _full(second)
    return {
        name: TensorDifference(
            overlap=one,
            masked=name in first.masks or name in second.masks,
            equal=_count_equal(first.start[name], second.start[name], masks[name] & others[name]),
            equal_theta_0=None
            if first.theta_0 is None or second.theta_0 is None
            else _count_equal(first.theta_0[name], second.theta_0[name], masks[name] & others[name]),
        )
        for name, one in overlap(masks, others).items()
    }


def _having(first: object, second: object, equal: bool) -> Having:
    if first is None or second is None:
        return "neither" if first is second else "second only" if first is None else "first only"
    return "equal" if equal else "they differ"


def _same_masks(first: Masks | None, second: Masks | None) -> bool:
    first, second = first or {}, second or {}
    return first.keys() == second.keys() and all(canonical.same(mask, second[name]) for name, mask in first.items())


def _common(first: Sequence[object], second: Sequence[object]) -> tuple[int, int, int]:
    same = next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    return len(first), len(second), same


def _full(ticket: Ticket) -> dict[str, Tensor]:
    """Give a mask for every parameter; a name without one is dense."""
    return {
        name: ticket.masks[name] if name in ticket.masks else torch.ones(value.shape, dtype=torch.bool)
        for name, value in ticket.start.items()
    }


def _count_equal(first: Tensor, second: Tensor, common: Tensor) -> int:
    return int((first == second)[common].sum()) if first.dtype == second.dtype else 0


def _nesting(one: Overlap) -> Nesting:
    first, second = one.shared == one.first, one.shared == one.second
    if first and second:
        return "equal"
    return "first in second" if first else "second in first" if second else "no"
