"""Tickets on the disk."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import final

from tombola import files
from tombola.errors import TicketError
from tombola.ticket import container
from tombola.ticket.decode import decode
from tombola.ticket.encode import encode
from tombola.ticket.layout import read_json
from tombola.ticket.replay import Factory
from tombola.ticket.ticket import Ticket


@final
@dataclass(frozen=True)
class Stored:
    """How a file holds its ticket, as it says itself.

    Attributes:
        schema: version of the layout.
        size: bytes.
        seed_only: the start values are not in it, and are drawn from the seed when it is read.
    """

    schema: int
    size: int
    seed_only: bool


def save(ticket: Ticket, path: Path | str, *, seed_only: bool = False, build: Factory | None = None) -> None:
    """Write a ticket to a file, wholly or not at all.

    Args:
        ticket: what to write.
        path: where to.
        seed_only: leave the start values out; see :func:`tombola.ticket.encode`.
        build: makes the network; see there.

    Raises:
        CannotWrite: the path cannot be written; nothing is left there.
        InvalidValue: names and provenance too long for a header, or start values that the seed does not draw.
    """
    files.write_all({Path(path): encode(ticket, seed_only=seed_only, build=build)})


def load(path: Path | str, *, build: Factory | None = None) -> Ticket:
    """Read a ticket from a file, checking everything; nothing is ever unpickled.

    Time and memory are bounded by the file's size: at most eight weights for a byte of mask. A file that leaves its
    start values to the seed may declare eight weights without a mask for a byte and ``layout.MOST_UNMASKED`` besides.

    Args:
        path: the file.
        build: makes the network of such a file; see :func:`tombola.ticket.decode`.

    Raises:
        TicketError: no such file, written in a schema that this version does not know, or start values that cannot be
            drawn from the seed here.
        CorruptTicket: the file was cut short, altered, or is no ticket.
    """
    return decode(read(path), str(path), build=build)


def stored(path: Path | str) -> Stored:
    """Say how a file holds its ticket, by its header alone; nothing else is checked.

    Raises:
        TicketError: the file cannot be read, or its schema is not known.
        CorruptTicket: the header is not a ticket's.
    """
    data, where = read(path), str(path)
    length = container.header_size(data[:8], len(data), where)
    body = read_json(container.read_header(data[8 : 8 + length], len(data) - 8 - length, where)[0], where)
    return Stored(body["schema"], len(data), body.get("drawn") is not None)


def read(path: Path | str) -> bytes:
    """Read a ticket's bytes, looking at the header first.

    Raises:
        TicketError: the file cannot be read.
        CorruptTicket: its header does not fit its size.
    """
    where = str(path)
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise TicketError(f"{where} is no ordinary file; a ticket is one. Give the path of the ticket itself.")
            length = container.header_size(first := file.read(8), status.st_size, where)
            header = file.read(length)
            container.read_header(header, status.st_size - 8 - length, where)
            return first + header + file.read()
    except FileNotFoundError as error:
        raise TicketError(f"there is no file {where}; a ticket was to be read from it. Look at the path.") from error
    except IsADirectoryError as error:
        raise TicketError(f"{where} is a folder, and a ticket is one file. Give the file's path.") from error
    except (OSError, ValueError) as error:
        raise TicketError(f"{where} cannot be read: {error}. Give a path that you may read.") from error


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for a writer, as a named pipe otherwise would."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
