"""Checking a ticket's file without a trainer."""

from dataclasses import dataclass
from pathlib import Path

from tombola.errors import TicketError
from tombola.ticket.decode import STEPS, stepwise
from tombola.ticket.file import read


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: ``"file"`` or one of ``tombola.ticket.decode.STEPS``.
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


def verify(path: Path | str) -> Verification:
    """Check a ticket's file: whole, unaltered, consistent, finite. Raises nothing about the file; the answer says it.

    It cannot tell whether the start values follow from the seed, or whether the ticket wins: that takes the model and a
    trainer.
    """
    try:
        data = read(path)
    except TicketError as error:
        return Verification(False, (Check("file", False, str(error)),))
    checks = [Check("file", True, f"{len(data)} bytes")]
    steps = stepwise(data, str(path))
    for name in STEPS:
        try:
            checks.append(Check(name, True, next(steps)))
        except TicketError as error:
            return Verification(False, (*checks, Check(name, False, str(error))))
    return Verification(True, tuple(checks))
