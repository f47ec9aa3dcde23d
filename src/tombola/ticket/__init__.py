"""The artifact: masks, start values and provenance in one safetensors file, and the trained sparse network in another.

Lives here: what a ticket is, its bytes, and reading it back without trusting it; nothing is ever unpickled.
Imported here: torch, safetensors, ``tombola.prune.masks`` (packed bits) and ``types``, ``errors``, ``files``.
Proved by: ``tests/ticket`` (same bytes in every process; every truncation and every flipped bit is noticed).
"""

from tombola.ticket.decode import decode
from tombola.ticket.diff import Difference, TensorDifference, diff
from tombola.ticket.encode import encode
from tombola.ticket.file import load, save
from tombola.ticket.network import encode_network
from tombola.ticket.ticket import Ticket
from tombola.ticket.verify import Check, Verification, verify

__all__ = [
    "Check",
    "Difference",
    "TensorDifference",
    "Ticket",
    "Verification",
    "decode",
    "diff",
    "encode",
    "encode_network",
    "load",
    "save",
    "verify",
]
