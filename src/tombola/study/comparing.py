"""Whether two studies found the same."""

import json
from pathlib import Path
from typing import Any

from tombola.errors import InvalidResults
from tombola.study.running import RESULT_FILE

_CLOCK = "wall"
_PATHS = ("ticket", "trained")


def differences(one: Path, other: Path) -> list[str]:
    """Give a sentence for each difference between two studies' results; what the clock says is left out.

    Raises:
        InvalidResults: a folder has no result of a study.
    """
    first, second = _read(one / RESULT_FILE), _read(other / RESULT_FILE)
    for folder, body in ((one, first), (other, second)):
        if "searches" not in body:
            raise InvalidResults(f"{folder} holds one search and no study; `tombola study run` makes studies.")
    found = _apart("", first, second)
    for name in sorted(first["searches"].keys() & second["searches"].keys()):
        found += _apart(name, _read(one / name / RESULT_FILE), _read(other / name / RESULT_FILE))
        for file in ("ticket.safetensors", "trained.safetensors", "results.csv"):
            if _bytes(one / name / file) != _bytes(other / name / file):
                found.append(f"{name}/{file} differs")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise InvalidResults(f"{path} is no study's result: {error}. Run the study again.") from error
    if not isinstance(found, dict) or not isinstance(found.get("searches", {}), dict):
        raise InvalidResults(
            f"{path} is no study's result: it holds {found!r:.60}, and an object with a table of searches is expected. "
            "Run the study again."
        )
    return {key: value for key, value in found.items() if key not in _PATHS}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidResults(
            f"{path} cannot be read: {error.strerror}. A finished study has it; finish it: tombola study resume."
        ) from error


def _apart(where: str, one: Any, other: Any) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in dict.fromkeys([*one, *other]) if key != _CLOCK]
        return [
            line for key in keys for line in _apart(f"{where}.{key}" if where else key, one.get(key), other.get(key))
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line for at, pair in enumerate(zip(one, other, strict=True)) for line in _apart(f"{where}[{at}]", *pair)
        ]
    return [] if one == other else [f"{where}: {one!r:.60} and {other!r:.60}"]
