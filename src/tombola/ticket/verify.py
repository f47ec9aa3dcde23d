"""Checking a ticket's file without a trainer."""

from dataclasses import dataclass
from pathlib import Path

from tombola.errors import TicketError
from tombola.ticket.decode import STEPS, stepwise
from tombola.ticket.file import read
from tombola.ticket.replay import Factory


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: ``"file"``, one of ``tombola.ticket.decode.STEPS``, or what :func:`tombola.ticket.descends` looks at.
        ok: whether it holds.
        sentence: what was found, for a person.
    """

    name: str
    ok: bool
    sentence: str


@dataclass(frozen=True)
class Verification:
    """What the checks found.

    Attributes:
        ok: all of them hold.
        checks: those that were made, in order; after one that fails, the rest cannot be.
    """

    ok: bool
    checks: tuple[Check, ...]


def verify(path: Path | str, *, build: Factory | None = None) -> Verification:
    """Check a ticket's file: whole, unaltered, consistent, nested in its parent, finite.

    Raises nothing about the file; the answer says it. It cannot tell whether the ticket wins, which takes a trainer;
    nor whether start values that the file holds follow from the seed. Where it leaves them to the seed, they are drawn
    and compared with the digest that it has of them.

    Args:
        path: the file.
        build: makes the network of a file that leaves its start values to the seed; see
            :func:`tombola.ticket.decode`.
    """
    try:
        data = read(path)
    except TicketError as error:
        return Verification(False, (Check("file", False, str(error)),))
    checks = [Check("file", True, f"{len(data)} bytes")]
    steps = stepwise(data, str(path), build)
    for name in STEPS:
        try:
            checks.append(Check(name, True, next(steps)))
        except TicketError as error:
            return Verification(False, (*checks, Check(name, False, str(error))))
    return Verification(True, tuple(checks))
