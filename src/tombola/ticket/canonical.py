"""One text per JSON value, and one digest per set of tensors."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor


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


def digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """Give the SHA-256 over tensors and a text, in hexadecimal.

    Over, for every tensor in the order of the names: ``["name","dtype",[shape]]`` and a line feed, then its bytes in
    row-major order; and at last the text.

    Example:
        >>> digest({"a": torch.zeros(2)}, "{}")[:8]
        '5efc954a'
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        heading = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        total.update(f"{dumps(heading)}\n".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    total.update(text.encode())
    return total.hexdigest()


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors have one dtype, one shape and the same bits; or are both ``None``.

    Bits, not values: -0.0 equals 0.0, and NaN equals nothing.

    Example:
        >>> same(torch.tensor([0.0]), torch.tensor([-0.0])), same(None, None)
        (False, True)
    """
    if a is None or b is None:
        return a is b
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return torch.equal(*(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for x in (a, b)))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
