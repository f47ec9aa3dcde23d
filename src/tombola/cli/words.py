"""Small readers and printers shared by the commands."""

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token

from tombola.errors import InvalidValue


def whole(_: object, tokens: Sequence[Token]) -> int:
    """Read a whole number; ``1.5`` is a slip and not 2.

    Raises:
        ValueError: anything else.
    """
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


Whole = Annotated[int, Parameter(converter=whole)]
"""A flag that takes a whole number."""

Json = Annotated[bool, Parameter(help="Print one JSON object on standard output and nothing else.", negative="")]
"""The flag of commands that can print JSON."""


def cores(asked: int | None) -> int:
    """Give how many threads or processes share the work: as asked, or one for each core.

    Raises:
        InvalidValue: fewer than one.
    """
    if asked is not None:
        if asked < 1:
            raise InvalidValue(f"{asked} are to share the work; at least one does it. Leave it out for one per core.")
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def names(text: str) -> tuple[str, ...]:
    """Read a comma list; ``none`` is the empty one, and a name counts once."""
    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    return () if parts == ("none",) else parts


def listed(names: Iterable[str]) -> str:
    """Write names as a sentence has them.

    Example:
        >>> listed(["a", "b", "c"])
        'a, b or c'
    """
    *first, last = names
    return f"{', '.join(first)} or {last}"


def densities(text: str | None, flag: str = "--gates") -> tuple[float, ...] | None:
    """Read a comma list of densities.

    Raises:
        InvalidValue: a part that is no number, or no part at all.
    """
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InvalidValue(f"{text!r} is no list of densities. Write fractions with commas: 0.5,0.2,0.1.") from None
    if not found:
        raise InvalidValue(f"{flag} is empty. Write fractions with commas: 0.5,0.2,0.1.")
    return found


def schedule(text: str) -> dict[str, Any]:
    """Read ``constant``, ``cosine`` or ``step:K,K`` into recipe fields.

    Raises:
        InvalidValue: milestones that are no increasing whole numbers.
    """
    word, colon, rest = text.partition(":")
    if not colon:
        return {"schedule": word}
    try:
        milestones = tuple(int(part) for part in rest.split(","))
    except ValueError:
        milestones = ()
    if word != "step" or not milestones or list(milestones) != sorted(set(milestones)) or milestones[0] < 1:
        raise InvalidValue(f"{text!r} is no schedule. Known: constant, cosine, step:K,K,... such as step:20000,25000.")
    return {"schedule": word, "milestones": milestones}


def print_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    json.dump(value, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def numbers(text: str, flag: str) -> tuple[float, ...]:
    """Read a comma list of numbers.

    Raises:
        InvalidValue: a part that is no finite number, or no part at all.
    """
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found or not all(math.isfinite(value) for value in found):
        raise InvalidValue(f"{flag} is {text!r}, no list of numbers. Write them with commas: 1,2.")
    return found
