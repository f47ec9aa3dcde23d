"""``tombola analyze``: why a finished run came out as it did."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tombola.cli.words import Whole, names, print_json
from tombola.saying import say

if TYPE_CHECKING:
    from tombola.explain.material import Material


def analyze(
    run: Path,
    /,
    *,
    search: Annotated[str | None, Parameter(help="Which search of a study; not needed where there is one.")] = None,
    level: Annotated[
        Whole | None, Parameter(help="Level to look at. [default: the certified one, else the gate nearest 20 %]")
    ] = None,
    draws: Annotated[Whole, Parameter(help="Draws of the null that contains no seeking, for each family.")] = 8,
    seed: Annotated[Whole, Parameter(help="Seed of these draws.")] = 0,
    also: Annotated[
        str,
        Parameter(
            help="Comma list of what trains further networks: early (when the mask of the dense run is there), "
            "instability (from which step on two data orders lead into one valley), intervention (whether the mask "
            "follows its initial values); or none."
        ),
    ] = "none",
    why: Annotated[
        str | None,
        Parameter(
            help="A ticket file of this network that does not win, or own for the run's own at the level: one "
            "component after another (mask, values, signs, data order, rewinding step, learning rate) is exchanged for "
            "a healthy one and trained, and the cause is named. Takes about 30 trainings."
        ),
    ] = None,
    orders: Annotated[Whole, Parameter(help="Data orders in which --why trains each exchange, at least 3.")] = 3,
    build: Annotated[
        str | None,
        Parameter(help="For a loop of your own: pkg.module:function that builds the network. Its code is run."),
    ] = None,
    score: Annotated[
        str | None,
        Parameter(help="For a loop of your own: pkg.module:function that scores a network. Its code is run."),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="Folder for the numbers and the figures. [default: analysis/ in RUN]")
    ] = None,
    json: Annotated[
        bool, Parameter(help="Print one JSON object on standard output and nothing else.", negative="")
    ] = False,
) -> None:
    """Say why a finished run came out as it did.

    RUN is the folder of `tombola find --out`, of `tombola study run --out`, or of a finding of your own loop that was
    saved. Looks at what training did to the weights that the masks keep, each number beside the chance that contains no
    seeking; judges the conjecture that SGD seeks out and trains a well-initialised subset. Trains nothing but what
    --also and --why ask for, which is kept in the run's store. Writes analysis.json, a CSV for every table and, with
    matplotlib, figures.

    Args:
        run: The folder.
    """
    from tombola.explain import figures
    from tombola.explain.deeper import NAMES, check_names, deeper
    from tombola.explain.report import report
    from tombola.explain.why import OWN, check_orders, own_ticket, ticket_of, trainable
    from tombola.explain.why import why as explained
    from tombola.files import check_writable, write_all

    folder = out or run / "analysis"
    check_writable(folder)
    material = _read(run, search, build, score)
    say(f"{material.title}: {len(material.families)} families")
    wanted = names(also)
    check_names(wanted)
    patient = None
    if why is not None:
        # What is wrong with the call is said before anything is measured.
        check_orders(orders)
        trainable(material)
        patient = None if why == OWN else ticket_of(material, Path(why))
    found = report(material, level, draws=draws, seed=seed, told=lambda what: say(f"measured {what}"))
    if wanted:
        for name in wanted:
            say(f"training for {name}: {NAMES[name]}")
        found = replace(found, deeper=deeper(material, wanted, found.level, seed=seed))
    if why is not None:
        patient = patient or own_ticket(material, found.level)
        say(f"training exchanges for the ticket {patient.name}, each in {orders} data orders")
        found = replace(found, why=explained(material, patient, orders=orders))
    files = found.encoded(folder)
    if figures.available():
        files |= figures.encoded(found, folder)
    else:
        say("No figures: matplotlib is not here. Get it with pip install 'tombola[plots]'.")
    write_all(files)
    if json:
        print_json(found.as_json())
    else:
        from tombola.cli.verdicts import console
        from tombola.explain.shown import rendered

        screen = console()
        screen.print(rendered(found))
        screen.print(f"\nNumbers and figures: {folder}")


def _read(run: Path, search: str | None, build: str | None, score: str | None) -> "Material":
    from tombola import models
    from tombola.explain.material import read

    found = {
        name: models.importable(path, name) for name, path in (("build", build), ("score", score)) if path is not None
    }
    return read(run, search, **found)
