"""The artifact: masks, start values and provenance in one safetensors file, and the trained sparse network in another.

Lives here: what a ticket is, its bytes, and reading it back without trusting it; nothing is ever unpickled.
Imported here: torch, safetensors, ``tombola.prune.masks`` (packed bits), ``tombola.models`` (start values drawn again)
and ``types``, ``errors``, ``files``.
Proved by: ``tests/ticket`` (same bytes in every process; every truncation and every flipped bit is noticed).
"""

from tombola.ticket.decode import decode
from tombola.ticket.descent import descends
from tombola.ticket.diff import Difference, TensorDifference, diff
from tombola.ticket.encode import encode
from tombola.ticket.file import Stored, load, save, stored
from tombola.ticket.network import encode_network
from tombola.ticket.ticket import Ticket
from tombola.ticket.verify import Check, Verification, verify

__all__ = [
    "Check",
    "Difference",
    "Stored",
    "TensorDifference",
    "Ticket",
    "Verification",
    "decode",
    "descends",
    "diff",
    "encode",
    "encode_network",
    "load",
    "save",
    "stored",
    "verify",
]
