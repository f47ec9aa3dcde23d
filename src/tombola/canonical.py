"""One text per JSON value. Torch-free."""

import json
from typing import Any, NoReturn


def dumps(value: Any) -> str:
    """Write JSON canonically: ASCII, sorted keys, no spaces, no NaN.

    Raises:
        TypeError, ValueError, RecursionError: ``value`` is not JSON.

    Example:
        >>> dumps({"b": 1, "a": (0.5, None)})
        '{"a":[0.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """Read JSON, refusing what Python's reader lets pass: NaN, infinities and keys given twice.

    Raises:
        ValueError, RecursionError: not JSON.
    """
    return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
