"""``tombola strong``: subnetworks of random networks that do the job without any training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from tombola.cli import strong_learned
from tombola.cli.words import Json, Whole, cores, print_json
from tombola.errors import InvalidValue
from tombola.saying import say

if TYPE_CHECKING:
    from tombola.strong.making import Made

app = App(name="strong", help="Subnetworks of random networks that do the job without any training.")

app.command(strong_learned.edge_popup, name="edge-popup")
app.command(strong_learned.width, name="width")


@app.command
def construct(
    trained: str,
    /,
    *,
    error: Annotated[
        float | None, Parameter(help="What every weight is to be reached to, in its own units. [default: 0.001]")
    ] = None,
    agreement: Annotated[
        float | None, Parameter(help="In place of --error: the largest one at which so many predictions agree, 0 to 1.")
    ] = None,
    certified: Annotated[
        float | None, Parameter(help="In place of --error: the largest one at which so many are certified, 0 to 1.")
    ] = None,
    dense: Annotated[
        bool, Parameter(help="Of a run: its dense network, read from its store, and not its ticket.", negative="")
    ] = False,
    search: Annotated[str | None, Parameter(help="Of a study: which search.")] = None,
    model: Annotated[
        str | None, Parameter(help="The network of a file: a name, or pkg.module:factory, whose code is run.")
    ] = None,
    data: Annotated[
        str | None, Parameter(help="What to measure it on. [default: the run's; none for a module of your own]")
    ] = None,
    depth: Annotated[
        str,
        Parameter(help="Of the random network: 2L, twice the target's; or L+1, one layer more, and far wider."),
    ] = "2L",
    candidates: Annotated[
        Whole | None, Parameter(help="Random neurons for each input. [default: 72, and more where weights are missed]")
    ] = None,
    seed: Annotated[Whole, Parameter(help="Seed of the random network.")] = 0,
    threads: Annotated[Whole | None, Parameter(help="That share the work. [default: one per core]")] = None,
    out: Annotated[Path, Parameter(help="Folder for the strong ticket and its numbers.")] = Path("strong"),
    json: Json = False,
) -> None:
    """Find a trained network inside a random one: nothing is trained, each weight is a sum of random products.

    Draws a random network of twice the depth and about 72 times the width, and finds the mask under which it computes
    what the trained network computes, to the error: Malach et al. (2020), by the subset sums of Pensia et al. (2020),
    for convolutions as da Cunha et al. (2022), with --depth L+1 as Burkholz (2022). Runs the masked random network on
    the test split, and bounds from above how far its logits can be from the trained network's, so that most predictions
    are certified to be the same. Writes strong.safetensors (seed, sizes and mask; no weight) and result.json. It is an
    existence proof, no compression.

    Args:
        trained: The folder of `tombola find --out` or of a study (its trained ticket, or with --dense its dense
            network), the trained.safetensors of one, or pkg.module:function that gives a trained nn.Module, whose code
            is run.
    """
    from tombola.cli.trained import open_trained
    from tombola.errors import UnknownName
    from tombola.files import check_writable, write_all
    from tombola.strong.making import make

    goals = {"--error": error, "--agreement": agreement, "--certified": certified}
    given = [name for name, value in goals.items() if value is not None]
    if len(given) > 1:
        raise InvalidValue(f"{' and '.join(given)} each say how near to come. Give one of them.")
    for name in ("--agreement", "--certified"):
        value = goals[name]
        if value is not None and not 0 < value <= 1:
            raise InvalidValue(f"{name} is {value}; it is a share above 0, up to 1.")
    if depth not in ("2L", "L+1"):
        raise UnknownName.among("depth", depth, ("2L", "L+1"))
    check_writable(out)
    target, dataset, title = open_trained(trained, dense=dense, search=search, model=model, data=data)
    if (agreement is not None or certified is not None) and dataset is None:
        raise InvalidValue("--agreement and --certified are measured on data, and there are none here. Add --data.")
    say(f"{title}: {target.weights:,} weights and biases in {len(target.layers)} layers")
    made = make(
        target,
        dataset,
        title=title,
        seed=seed,
        error=1e-3 if error is None else error,
        agreement=agreement,
        certified=certified,
        doubled=depth == "2L",
        candidates=candidates,
        threads=cores(threads),
        told=say,
    )
    path = out / "strong.safetensors"
    write_all({path: made.encoded(), out / "result.json": made.result_bytes(path)})
    if json:
        print_json(made.as_json(path))
    else:
        _print(made, path)


@app.command
def bounds(
    *,
    error: Annotated[float, Parameter(help="What every weight is to be reached to.")] = 1e-3,
    weights: Annotated[Whole, Parameter(help="Of the whole network.")] = 266_610,
    failure: Annotated[float, Parameter(help="Probability that any of them is missed.")] = 0.01,
    weight: Annotated[float, Parameter(help="A typical weight, up to 1/2.")] = 0.25,
    json: Json = False,
) -> None:
    """Say how many random candidates each weight needs, by the theorems and by what is seen."""
    from tombola.strong import bounds as law

    if weights < 1:
        raise InvalidValue(f"the network has {weights} weights; it has at least one.")
    found = {
        "malach": law.malach(weight, error, weights, failure),
        "orseau": law.orseau(error, failure, weights),
        "lueker": law.lueker(error, failure / max(1, weights)),
        "median": law.candidates(error, weight),
    }
    if json:
        print_json({"error": error, "weights": weights, "failure": failure, "weight": weight, "candidates": found})
        return
    said = {
        "malach": "one product for each weight, Malach et al. (2020); exact",
        "orseau": "powers of a golden ratio, Orseau et al. (2020); the order, constant 1",
        "lueker": "subset sums, Lueker (1998) and Pensia et al. (2020); the order, constant 1",
        "median": "subset sums, the number at which half of the weights come so near; as measured",
    }
    from rich.table import Table

    from tombola.cli.verdicts import console

    table = Table(title=f"random candidates for each of {weights:,} weights, error {error:g}")
    table.add_column("candidates", justify="right")
    table.add_column("for")
    for name, value in found.items():
        table.add_row(f"{value:,.1f}", said[name])
    console().print(table)


@app.command
def law(
    *,
    counts: Annotated[str, Parameter(help="Comma list of the numbers of candidates.")] = "10,12,14,16,18,20,22,24",
    lists: Annotated[Whole, Parameter(help="Lists of candidates for each number.")] = 20_000,
    seed: Annotated[Whole, Parameter(help="Of the lists.")] = 0,
    threads: Annotated[Whole | None, Parameter(help="That share the work. [default: one per core]")] = None,
    out: Annotated[Path, Parameter(help="Folder for the numbers and the figure.")] = Path("strong-law"),
    json: Json = False,
) -> None:
    """Measure how the error of a subset sum falls with its candidates, beside the law.

    Solves random problems at five targets and fits the candidates needed against log2(1/error). Writes law.json,
    law.csv and, with matplotlib, law.svg.
    """
    from dataclasses import asdict

    from tombola import canonical
    from tombola.files import check_writable, write_all
    from tombola.strong import figures
    from tombola.strong.measuring import measured_law

    check_writable(out)
    found = measured_law(_wholes(counts), lists=lists, seed=seed, threads=cores(threads), told=say)
    rows = [asdict(one) for one in found.rows]
    told = {
        "slope": found.slope, "law_slope": found.law_slope, "furthest": found.furthest, "seed": seed,
        "rows": rows,
    }  # fmt: skip
    heads = list(rows[0])
    lines = [",".join(heads), *(",".join(str(row[name]) for name in heads) for row in rows)]
    files = {
        out / "law.json": (canonical.dumps(told) + "\n").encode(),
        out / "law.csv": ("\n".join(lines) + "\n").encode(),
    }
    if figures.available():
        files[out / "law.svg"] = figures.law(found)
    else:
        say("No figure: matplotlib is not here. Get it with pip install 'tombola[plots]'.")
    write_all(files)
    if json:
        print_json(told)
        return
    from tombola.cli.verdicts import console

    console().print(
        f"Candidates needed rise by {found.slope:.3f} for every halving of the error, by the law "
        f"{found.law_slope:.3f}. No median error is further from the law than by a factor of {found.furthest:.2f}. "
        f"Numbers: {out}"
    )


def _wholes(text: str) -> tuple[int, ...]:
    from tombola.cli.words import numbers

    found = numbers(text, "--counts")
    if any(value != int(value) for value in found):
        raise InvalidValue(f"--counts is {text!r}; numbers of candidates are whole.")
    return tuple(map(int, found))


def _print(made: "Made", path: Path) -> None:
    from rich.table import Table

    from tombola.cli.verdicts import console

    screen = console()
    found: dict[str, Any] = made.as_json(path)
    table = Table(title=f"{made.title}: weights solved as subset sums, error {found['error']:.3g}")
    for heading in ("layer", "sums", "solved", "largest error", "mean error", "candidates tried", "kept"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for one in found["layers"]:
        table.add_row(
            one["name"], f"{one['sums']:,}", f"{one['solved']:,}", f"{one['max_error']:.2e}",
            f"{one['mean_error']:.2e}", f"{one['mean_candidates']:.1f}", f"{one['kept']:,}",
        )  # fmt: skip
    screen.print(table)
    what = "weights" if found["sums"] == found["weights"] else "subset sums"
    screen.print(
        f"Solved: {found['solved']:,} of {found['sums']:,} {what} in {found['seconds']:.2f} s, "
        f"{found['sums'] / found['seconds']:,.0f} a second; {found['unresolved']} unresolved. The others are within "
        "the error of 0 and keep nothing."
    )
    screen.print(
        f"Kept: {found['kept']:,} of {found['total']:,} random weights in {found['depth']} layers, "
        f"{100 * found['kept'] / found['total']:.2f} %."
    )
    if found["agreement"] is not None:
        screen.print(
            f"On {found['examples']:,} examples of {found['data']}: {100 * found['agreement']:.2f} % of the "
            f"predictions agree; accuracy {100 * found['ticket_accuracy']:.2f} %, the trained network's "
            f"{100 * found['target_accuracy']:.2f} %; no logit is further than {found['furthest_logit']:.3g} away. "
            f"Certified: {100 * found['certified']:.2f} %."
        )
    if found["domain"] is not None:
        screen.print(
            f"Every input in {found['domain']} whose margin exceeds {found['uniform_margin']:.3g} is certain to keep "
            "its prediction."
        )
    size = found["sizes"]
    screen.print(
        f"Seed and mask: {size['mask']:,.0f} bytes raw ({size['mask_second']:,.0f} in the file), "
        f"{size['mask_entropy']:,.0f} entropy-coded; the plain network in float32: {size['network']:,.0f} bytes. An "
        "existence proof, no compression."
    )
    screen.print(f"Strong ticket: {path}. Check it anywhere with tombola ticket verify {path}")
