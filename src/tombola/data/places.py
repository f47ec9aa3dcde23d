"""The one search path for data that was not shipped with tombola."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tombola.data.published import Layout, Published
from tombola.errors import DataMissing

SYSTEM_PLACES: Final = (Path("/usr/local/share/datasets"), Path("/usr/share/datasets"))
"""Where packages of an operating system put data; Debian's ``dataset-fashion-mnist`` uses the second."""


def cache(environment: Mapping[str, str] | None = None) -> Path:
    """Give the user's cache folder of tombola, which need not exist yet.

    Args:
        environment: the variables to read, ``os.environ`` if absent.

    Example:
        >>> cache({"XDG_CACHE_HOME": "/var/cache/me"}).as_posix()
        '/var/cache/me/tombola'
    """
    base = (os.environ if environment is None else environment).get("XDG_CACHE_HOME", "")
    # The XDG specification has relative values ignored.
    return (Path(base) if Path(base).is_absolute() else Path(os.path.expanduser("~/.cache"))) / "tombola"


def search_path(environment: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """List the folders where data is looked for, first to last.

    Each folder of ``TOMBOLA_DATA`` (separated by ``:``, or ``;`` on Windows), the user's cache, the system's places.

    Args:
        environment: the variables to read, ``os.environ`` if absent.

    Example:
        >>> [place.as_posix() for place in search_path({"TOMBOLA_DATA": "/a", "XDG_CACHE_HOME": "/c"})]
        ['/a', '/c/tombola', '/usr/local/share/datasets', '/usr/share/datasets']
    """
    variables = os.environ if environment is None else environment
    own = (
        Path(os.path.expanduser(text)) for text in variables.get("TOMBOLA_DATA", "").split(os.pathsep) if text.strip()
    )
    return tuple(dict.fromkeys((*own, cache(variables), *SYSTEM_PLACES)))


def present(folder: Path, name: str, *, zipped: bool) -> Path | None:
    """Give the path of ``name`` in ``folder``, if ``zipped`` also with ``.gz`` behind it, or ``None``."""
    for path in (folder / name, *([folder / f"{name}.gz"] if zipped else [])):
        if path.is_file():
            return path
    return None


def lacking(folder: Path, layout: Layout) -> list[str]:
    """Name the files of ``layout`` that ``folder`` does not have."""
    return [name for name in layout.files if present(folder, name, zipped=layout.zipped) is None]


def find(published: Published, search: Sequence[Path]) -> Path | None:
    """Give the first folder that holds all files of a data set, or ``None``; nothing is read."""
    for root in search:
        for layout in published.layouts:
            if not lacking(root / layout.folder, layout):
                return root / layout.folder
    return None


def located(published: Published, search: Sequence[Path]) -> Path:
    """Give the first folder that holds all files of a data set; nothing is read.

    Raises:
        DataMissing: no folder does; the message lists the folders searched, what an incomplete one lacks, and the
            commands that get the data.
    """
    folder = find(published, search)
    if folder is not None:
        return folder
    incomplete = [
        f" {root / layout.folder} lacks {', '.join(lacking(root / layout.folder, layout))}."
        for root in search
        for layout in published.layouts
        if 0 < len(lacking(root / layout.folder, layout)) < len(layout.files)
    ]
    raise DataMissing(
        f"the data set {published.name!r} is not on this machine. Looked for a folder "
        f"{' or '.join(layout.folder for layout in published.layouts)} in "
        f"{', '.join(map(str, search)) or 'no place at all'}.{''.join(incomplete)} {how(published)}"
    )


def unreadable(path: Path, error: OSError) -> DataMissing:
    """Build the error for a file that cannot be opened or read."""
    return DataMissing(f"cannot read {path}: {error.strerror or error}. A readable file is expected there.")


def how(published: Published) -> str:
    """Say how to get a data set.

    Example:
        >>> from tombola.data.published import MNIST
        >>> how(MNIST)
        'Get it with `tombola data fetch mnist`, or set TOMBOLA_DATA to the folder that holds mnist/.'
    """
    if not published.layouts:
        return "It comes with tombola."
    ways = " or ".join(published.get)
    return f"Get it with {ways}, or set TOMBOLA_DATA to the folder that holds {published.layouts[0].folder}/."
