"""Records that show when a byte of them has changed: canonical JSON with its own digest."""

import hashlib
from collections.abc import Mapping
from typing import Any

from tombola import canonical
from tombola.errors import CorruptStore


def seal(body: Mapping[str, Any]) -> bytes:
    """Give the file of a record; equal records have equal files.

    Raises:
        TypeError, ValueError: ``body`` is not JSON.
    """
    text = canonical.dumps(body)
    return f'{{"body":{text},"sha256":"{hashlib.sha256(text.encode()).hexdigest()}"}}\n'.encode()


def unseal(data: bytes, where: str) -> dict[str, Any]:
    """Read a record.

    Raises:
        CorruptStore: the file was cut short or altered, by a single bit too.
    """
    try:
        body = canonical.loads(data)["body"]
        whole = isinstance(body, dict) and seal(body) == data
    except (ValueError, RecursionError, KeyError, TypeError):
        whole = False
    if not whole:
        raise CorruptStore(f"{where} was cut short or altered: its digest does not fit. It is set aside and redone.")
    found: dict[str, Any] = body
    return found
