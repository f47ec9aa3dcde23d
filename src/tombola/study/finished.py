"""What is finished of a study, read from its folder."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from tombola.errors import InvalidResults

_FILE: Final = "result.json"


@final
@dataclass(frozen=True)
class Finished:
    """The searches of a study.

    Attributes:
        results: search -> what its ``result.json`` holds, in the order of the study.
        failed: search -> why it has no result.
        missing: searches that are not finished.
    """

    results: Mapping[str, Mapping[str, Any]]
    failed: Mapping[str, str]
    missing: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """Say what is not there."""
        every = len(self.results) + len(self.failed) + len(self.missing)
        unfinished = (
            f"The study is not finished: {len(self.missing)} of {every} searches have no result yet "
            f"({', '.join(self.missing)})."
        )
        return (
            *([unfinished] if self.missing else []),
            *(f"{name} ended without a result: {why}" for name, why in self.failed.items()),
        )


def finished(folder: Path, searches: Iterable[str]) -> Finished:
    """Read the results of the searches that have one.

    Args:
        folder: of the study.
        searches: their names.

    Raises:
        InvalidResults: a result cannot be read, or there is none at all.
    """
    whole = _read(folder / _FILE) or {}
    results = {name: found for name in searches if (found := _read(folder / name / _FILE)) is not None}
    told = whole.get("failed", {})
    failed = {name: str(told[name]) for name in searches if name not in results and name in told}
    if not results:
        raise InvalidResults(
            f"no search of the study in {folder} has a result, so there is nothing to rank. Go on with it: tombola "
            f"study resume {folder}."
        )
    return Finished(results, failed, tuple(name for name in searches if name not in results and name not in failed))


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidResults(
            f"{path} cannot be read: {error}. Run the study again; it trains nothing twice."
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("failed", {}), dict):
        raise InvalidResults(
            f"{path} holds {found!r:.60}, and the object that a study writes is expected. Run the study again; it "
            "trains nothing twice."
        )
    return found
