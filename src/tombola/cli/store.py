"""``tombola store``: look at a folder of finished units, check it and clean it."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from tombola.cli.words import Json, print_json

app = App(name="store", help="Look at a folder of finished units, check every byte of it, or clean it.")


@app.command
def ls(folder: Path, /, *, json: Json = False) -> None:
    """List the units.

    Args:
        folder: The store.
    """
    from tombola.study.store import Store

    entries = Store(_existing(folder)).entries()
    if json:
        print_json({"units": [vars(entry) for entry in entries.values()]})
        return
    for entry in sorted(entries.values(), key=lambda one: (one.replicate, one.name, -one.density, one.data_order)):
        print(
            f"{entry.key[:12]}  family {entry.replicate}  {entry.name:12} {100 * entry.density:6.2f} %  "
            f"to iteration {entry.stop:,}  {entry.result}"
        )
    print(f"{len(entries):,} units")


@app.command
def check(folder: Path, /, *, json: Json = False) -> int:
    """Read every file and set aside what was cut short or altered; 1 where there was any.

    Args:
        folder: The store.
    """
    from tombola.study.store import Store

    health = Store(_existing(folder)).check()
    if json:
        print_json({"whole": health.units, "bytes": health.bytes, "altered": health.altered, "unused": health.unused})
    else:
        print(f"{health.units:,} units are whole, {health.bytes / 2**20:.1f} MiB in all.")
        for name in health.altered:
            print(f"altered: {name}, now in quarantine/; its unit is trained again when a study asks for it")
        if health.unused:
            print(f"{len(health.unused)} files are of no use any more: tombola store gc {folder}")
    return 1 if health.altered else 0


@app.command
def gc(
    folder: Path,
    /,
    *,
    rehearse: Annotated[bool, Parameter(help="Count and delete nothing.", negative="")] = False,
    json: Json = False,
) -> None:
    """Delete what no unit refers to, what was set aside, and the torn files of killed processes.

    Units in progress are kept, however old; to be rid of them delete the folder parts/ while nothing runs.

    Args:
        folder: The store.
    """
    from tombola.study.store import Store

    files, size = Store(_existing(folder)).clean(rehearse=rehearse)
    if json:
        print_json({"files": files, "bytes": size, "deleted": not rehearse})
    else:
        print(f"{files:,} files, {size / 2**20:.1f} MiB, {'could be' if rehearse else 'were'} deleted.")


def _existing(folder: Path) -> Path:
    from tombola.errors import StoreError

    if not os.path.isdir(folder / "units") and not os.path.isfile(folder / "store.json"):
        raise StoreError(f"there is no store in {folder}. A study keeps its own in the folder store/.")
    return folder
