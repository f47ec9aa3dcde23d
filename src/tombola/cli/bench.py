"""``tombola bench``: what training costs here, next to its rivals."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tombola.bench.settings import Settings
from tombola.cli.words import Whole, names, print_json
from tombola.cli.words import densities as densities_of
from tombola.errors import InvalidValue
from tombola.saying import say


def bench(
    *benchmarks: str,
    model: Annotated[
        list[str] | None,
        Parameter(
            help="Comma list of 64-300-100-10, lenet-300-100, mlp-3072-1024-1024-10; may be repeated. "
            "[default: lenet-300-100; in replicas the first two]",
            negative="",
        ),
    ] = None,
    densities: Annotated[
        str | None,
        Parameter(
            help="Comma list of fractions kept. [default: 1,0.5,0.2,0.1,0.036,0.012 for iteration, 1,0.1 for scaling, "
            "0.2 for replicas; the ladder has its own; fewer in the short form]"
        ),
    ] = None,
    rivals: Annotated[
        str, Parameter(help="Comma list of eager, compiled, prune, csr, sparseprop, jax; or all that run here.")
    ] = "all",
    turns: Annotated[
        Whole | None,
        Parameter(
            help="How often each is timed. [default: 40 for iteration, 5 for ladder, 9; fewer in the short form]"
        ),
    ] = None,
    threads: Annotated[Whole, Parameter(help="Threads of the rivals in iteration; ours is always one.")] = 1,
    iterations: Annotated[
        Whole | None,
        Parameter(help="Training iterations of a level's slice of the ladder. [default: 300; 100 in the short form]"),
    ] = None,
    out: Annotated[Path | None, Parameter(help="File for the JSON, written again after each part.")] = None,
    json: Annotated[
        bool, Parameter(help="Print one JSON object on standard output and nothing else.", negative="")
    ] = False,
) -> int:
    """Time training by density and engine, next to rivals on the same recipe in the same run.

    iteration is one step at each density; ladder the paper's twenty levels, with evaluations; scaling independent jobs
    on several cores; replicas eight networks at a time. All of them, in a short form of a few minutes, by default. Ways
    of training take turns, and each is first checked to compute the plain loop's losses. The JSON is described in
    docs/bench.md.

    Args:
        benchmarks: Any of iteration, ladder, scaling, replicas.
    """
    settings = Settings(
        benchmarks=benchmarks,
        models=tuple(name for text in model or () for name in names(text)),
        densities=_fractions(densities),
        rivals=names(rivals),
        turns=turns,
        threads=threads,
        iterations=iterations,
    )
    # Libraries with threads of their own read it when they are loaded, and torch is not loaded yet.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    return _run(settings, out, json)


def _fractions(text: str | None) -> tuple[float, ...]:
    if text is not None and not text.strip(" ,"):
        raise InvalidValue("--densities is empty. Write fractions with commas: 0.5,0.2,0.1.")
    return densities_of(text) or ()


def _run(settings: Settings, out: Path | None, as_json: bool) -> int:
    # Imported here: torch takes seconds, and a wrong flag should not.
    from tombola.bench.report import Report, encoded
    from tombola.bench.run import run
    from tombola.bench.shown import rendered
    from tombola.cli.app import INTERRUPTED
    from tombola.cli.interrupting import forget_interrupt
    from tombola.cli.verdicts import console
    from tombola.errors import CannotWrite
    from tombola.files import check_writable, write_all

    if out is not None:
        if out.is_dir():
            raise CannotWrite(f"{out} is a folder, and a file should be written there. Choose another path.")
        check_writable(out.parent)

    measured = 0

    def grown(report: Report) -> None:
        nonlocal measured
        measured += 1
        if out is not None:
            write_all({out: encoded(report.as_json())})

    try:
        report = run(settings, say=say, grown=grown)
    except KeyboardInterrupt:
        forget_interrupt()
        kept = f"what was measured is in {out}" if out is not None and measured else "nothing was written"
        say(f"Interrupted; {kept}.")
        return INTERRUPTED
    if as_json:
        print_json(report.as_json())
    else:
        console().print(rendered(report))
    return 0
