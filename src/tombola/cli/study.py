"""``tombola study``: experiments that survive a crash and end by saying which published claims they bear out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from tombola.cli.words import Json, Whole, print_json
from tombola.saying import say

if TYPE_CHECKING:
    from tombola.study.spec import Spec

app = App(name="study", help="Run experiments that survive a crash, and say which published claims they bear out.")

_Workers = Annotated[Whole | None, Parameter(help="Parallel processes, one thread each. [default: one per core]")]
_Ray = Annotated[str | None, Parameter(help="Address of a Ray cluster, or `local` to start one here.")]
_Store = Annotated[
    Path | None,
    Parameter(
        help="Folder of finished units; studies on one store share them. [default: that of the run before, or store/ "
        "in the study's folder]"
    ),
]
_MAIN = "iterative"
"""What the named studies call the search that the others are compared with."""

_Size = Annotated[
    str, Parameter(help="Of a named study: smoke (digits, a minute), small (10,000 iterations) or paper.")
]


@app.command(name="list")
def listing(*, json: Json = False) -> None:
    """List the named studies."""
    from tombola.study.library import SIZES, STUDIES, named

    specs = {name: named(name) for name in STUDIES}
    if json:
        print_json({"studies": [{"name": n, "title": s.title, "sizes": list(SIZES)} for n, s in specs.items()]})
        return
    for name, spec in specs.items():
        print(f"{name}: {spec.title}\n    {len(spec.searches)} searches, {len(spec.claims)} claims; {', '.join(SIZES)}")


@app.command
def show(name: str, /, *, size: _Size = "small") -> None:
    """Print a study as the file that describes it.

    Args:
        name: A named study, or a file.
    """
    print(_spec(name, size).to_toml(), end="")


@app.command
def run(
    name: str,
    /,
    *,
    size: _Size = "small",
    out: Annotated[Path | None, Parameter(help="Folder of the study. [default: tombola-runs/NAME-KEY]")] = None,
    store: _Store = None,
    workers: _Workers = None,
    ray: _Ray = None,
    json: Json = False,
) -> int:
    """Run a study, or go on with it: what is finished is never trained again.

    Args:
        name: A named study, or a file that describes one.
    """
    spec = _spec(name, size)
    folder = out or Path("tombola-runs") / f"{spec.name}-{spec.key[:8]}"
    return _run(spec, folder, store, workers, ray, json)


@app.command
def resume(
    folder: Path, /, *, store: _Store = None, workers: _Workers = None, ray: _Ray = None, json: Json = False
) -> int:
    """Go on with the study in a folder.

    Args:
        folder: Where it was run.
    """
    from tombola.study.running import written

    return _run(written(folder), folder, store, workers, ray, json)


@app.command
def status(folder: Path, /, *, store: _Store = None, json: Json = False) -> None:
    """Say how far the study in a folder is.

    Args:
        folder: Where it was run.
    """
    from tombola.study.running import RESULT_FILE, store_of, written
    from tombola.study.store import Store

    spec, where = written(folder), store or store_of(folder)
    entries = Store(where).entries() if os.path.exists(where) else {}
    done, ended = len(entries), (folder / RESULT_FILE).exists()
    iterations = sum(entry.iterations for entry in entries.values())
    parts = len(list(where.glob("parts/*.json")))
    if json:
        print_json(
            {
                "study": spec.name,
                "key": spec.key,
                "finished": ended,
                "units": done,
                "units_in_progress": parts,
                "iterations": iterations,
            }
        )
        return
    print(
        f"{spec.name} in {folder}: {'finished' if ended else 'not finished'}; {done:,} units and {iterations:,} "
        f"training iterations are kept in {where}, {parts} units are in progress."
    )


@app.command
def compare(one: Path, other: Path, /, *, json: Json = False) -> int:
    """Compare two studies' results and claims, search by search; 1 where they differ.

    Args:
        one: A study's folder.
        other: Another's.
    """
    from tombola.study.comparing import differences

    found = differences(one, other)
    if json:
        print_json({"equal": not found, "differences": found})
    elif found:
        print("\n".join(found))
    else:
        print("The two are equal, but for what the clock says.")
    return 1 if found else 0


@app.command
def rank(
    folder: Path,
    /,
    *,
    density: Annotated[
        float | None, Parameter(help="Rank at this one, a fraction such as 0.05. [default: at every gate]")
    ] = None,
    reference: Annotated[
        str | None,
        Parameter(help="SEARCH/ARM that differences are taken to. [default: iterative/ticket, or the first search's]"),
    ] = None,
    markdown: Annotated[bool, Parameter(help="Print tables in Markdown.", negative="")] = False,
    json: Json = False,
) -> None:
    """Rank every arm of every finished search of a study by its test accuracy, and say what each cost.

    Args:
        folder: Where it was run.
    """
    from tombola.cli.verdicts import show_rankings
    from tombola.errors import InvalidValue
    from tombola.study.finished import finished
    from tombola.study.ranking import rankings
    from tombola.study.running import written

    if json and markdown:
        raise InvalidValue("--json and --markdown are two ways to print one thing. Give one of them.")
    spec = written(folder)
    found = finished(folder, spec.searches)
    usual = _MAIN if _MAIN in found.results else next(iter(found.results))
    to = f"{usual}/ticket" if reference is None else reference if "/" in reference else f"{reference}/ticket"
    ranked = rankings(found.results, to, density)
    if json:
        body = {"study": spec.name, "key": spec.key, "reference": to, "finished": list(found.results)}
        gone = {"unfinished": list(found.missing), "failed": dict(found.failed)}
        print_json({**body, **gone, "rankings": [one.as_json() for one in ranked]})
        return
    show_rankings(spec.name, to, ranked, found.sentences, markdown)


def _spec(name: str, size: str) -> "Spec":
    from tombola.errors import InvalidValue
    from tombola.study.library import named
    from tombola.study.spec import from_toml

    path = Path(name)
    if path.suffix != ".toml" and not os.path.isfile(path):
        return named(name, size)
    try:
        return from_toml(path.read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{name} cannot be read: {error}. Give a TOML file that describes a study.") from error


def _run(spec: "Spec", folder: Path, store: Path | None, workers: int | None, ray: str | None, as_json: bool) -> int:
    from dataclasses import replace

    from tombola.cli.app import INTERRUPTED
    from tombola.cli.interrupting import ends_promptly, forget_interrupt
    from tombola.cli.verdicts import show_study
    from tombola.errors import InvalidValue
    from tombola.files import check_writable
    from tombola.study.live import watching
    from tombola.study.running import Workers, run, store_of

    if workers is not None and ray is not None:
        raise InvalidValue("--workers is for processes of this machine, and --ray has its own. Give one of them.")
    elsewhere: Workers | None = None
    if ray is not None:
        from tombola.study.remote import on_ray

        elsewhere = on_ray(ray)
    if workers is not None:
        changed = {name: replace(one, workers=workers) for name, one in spec.searches.items()}
        spec = replace(spec, searches=changed)
    check_writable(folder)
    last_words = f"Interrupted; what is finished is kept. Go on with: tombola study resume {folder}"
    try:
        with ends_promptly(INTERRUPTED, lambda: last_words), watching() as observer:
            studied = run(spec, folder, store or store_of(folder), elsewhere, observer)
    except KeyboardInterrupt:
        forget_interrupt()
        say(last_words)
        return INTERRUPTED
    studied.save(folder)
    if as_json:
        print_json(studied.as_json())
    else:
        show_study(studied, folder)
    return 1 if studied.failed else 0
