"""What data sets there are, and which are on this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from tombola.data import places
from tombola.data.published import PUBLISHED


@final
@dataclass(frozen=True)
class Entry:
    """One line of a listing.

    Attributes:
        name: what :func:`tombola.data.load` takes.
        what: one line for a person.
        here: the folder it would be read from, ``"embedded"`` if it comes with tombola, ``None`` if it is not here.
        how: the sentence that says how to get it.
        licence: what its publisher allows.
        searched: the folders that were looked at, first to last.
    """

    name: str
    what: str
    here: Path | Literal["embedded"] | None
    how: str
    licence: str
    searched: tuple[Path, ...]


def catalogue() -> list[Entry]:
    """List the published data sets, the one that comes with tombola first.

    Looks for files and reads none; imports neither torch nor numpy.

    Example:
        >>> [(entry.name, entry.here) for entry in catalogue()][0]
        ('digits', 'embedded')
    """
    search = places.search_path()
    return [
        Entry(
            name=published.name,
            what=published.what,
            here=places.find(published, search) if published.layouts else "embedded",
            how=places.how(published),
            licence=published.licence,
            searched=search,
        )
        for published in PUBLISHED.values()
    ]
