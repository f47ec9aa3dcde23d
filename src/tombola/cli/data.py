"""``tombola data``: which data sets there are, and how to get them."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from tombola.cli.words import print_json

app = App(name="data", help="List the data sets: whether each is here, and how to get it.")


@app.default
def listing(
    *, json: Annotated[bool, Parameter(help="Print one JSON object and nothing else.", negative="")] = False
) -> None:
    """List the data sets: whether each is here, and how to get it."""
    from tombola.data import catalogue

    entries = catalogue()
    searched = [str(folder) for folder in entries[0].searched]
    if json:
        print_json(
            {
                "searched": searched,
                "data": [
                    {
                        "name": entry.name,
                        "what": entry.what,
                        "here": None if entry.here is None else str(entry.here),
                        "how": entry.how,
                        "licence": entry.licence,
                    }
                    for entry in entries
                ],
            }
        )
        return
    for entry in entries:
        where = "not here" if entry.here is None else f"here ({entry.here})"
        print(f"{entry.name}: {entry.what}\n    {where}. Licence: {entry.licence}")
        if entry.here is None:
            print(f"    {entry.how}")
    print("Searched: " + ", ".join(searched) + ". Set TOMBOLA_DATA to a folder of your own to search it first.")
    print("Your own: an .npz file, a folder of images, or package.module:function.")


@app.command
def fetch(
    name: str,
    /,
    *,
    to: Annotated[Path | None, Parameter(help="Folder to put it in. [default: the user cache]")] = None,
) -> None:
    """Download a data set from its publisher and check it.

    Args:
        name: A name from the list.
    """
    import sys

    from rich.console import Console
    from rich.progress import Progress

    from tombola.data import fetch as fetch_data

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:
        tasks = {}

        def progress(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done, total=total)

        folder = fetch_data(name, to, progress=progress)
    print(f"{name} is in {folder}.")
