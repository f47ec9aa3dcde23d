"""Tickets on the disk."""

import os
import stat
from pathlib import Path

from tombola import files
from tombola.errors import TicketError
from tombola.ticket import container
from tombola.ticket.decode import decode
from tombola.ticket.encode import encode
from tombola.ticket.ticket import Ticket


def save(ticket: Ticket, path: Path | str) -> None:
    """Write a ticket to a file, wholly or not at all.

    Raises:
        CannotWrite: the path cannot be written; nothing is left there.
        InvalidValue: names and provenance too long for a header.
    """
    files.write_all({Path(path): encode(ticket)})


def load(path: Path | str) -> Ticket:
    """Read a ticket from a file, checking everything; nothing is ever unpickled.

    Time and memory are bounded by the file's size: at most eight weights for a byte of mask.

    Raises:
        TicketError: no such file, or written in a schema that this version does not know.
        CorruptTicket: the file was cut short, altered, or is no ticket.
    """
    return decode(read(path), str(path))


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
