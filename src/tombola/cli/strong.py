"""``tombola strong``: subnetworks of random networks that do the job without any training."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from tombola.cli.words import Whole, print_json
from tombola.errors import InvalidValue
from tombola.saying import say

if TYPE_CHECKING:
    from tombola.strong.making import Made
    from tombola.train.watch import Watcher

app = App(name="strong", help="Subnetworks of random networks that do the job without any training.")

_Json = Annotated[bool, Parameter(help="Print one JSON object on standard output and nothing else.", negative="")]


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
    search: Annotated[str | None, Parameter(help="With --dense: which search of a study.")] = None,
    model: Annotated[
        str | None, Parameter(help="The network of a file: a name, or pkg.module:factory, whose code is run.")
    ] = None,
    data: Annotated[
        str | None, Parameter(help="What to measure it on. [default: the run's; none for a module of your own]")
    ] = None,
    candidates: Annotated[
        Whole | None, Parameter(help="Random neurons for each input. [default: 72, and more where weights are missed]")
    ] = None,
    seed: Annotated[Whole, Parameter(help="Seed of the random network.")] = 0,
    threads: Annotated[Whole | None, Parameter(help="That share the work. [default: one per core]")] = None,
    out: Annotated[Path, Parameter(help="Folder for the strong ticket and its numbers.")] = Path("strong"),
    json: _Json = False,
) -> None:
    """Find a trained network inside a random one: nothing is trained, each weight is a sum of random products.

    Draws a random network of twice the depth and about 72 times the width, and finds the mask under which it computes
    what the trained network computes, to the error: Malach et al. (2020), by the subset sums of Pensia et al. (2020),
    for convolutions as da Cunha et al. (2022). Runs the masked random network on the test split, and bounds from above
    how far its logits can be from the trained network's, so that most predictions are certified to be the same. Writes
    strong.safetensors (seed, sizes and mask; no weight) and result.json. It is an existence proof, no compression.

    Args:
        trained: The folder of `tombola find --out` or of a study (its trained ticket, or with --dense its dense
            network), the trained.safetensors of one, or pkg.module:function that gives a trained nn.Module, whose code
            is run.
    """
    from tombola.cli.trained import open_trained
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
        candidates=candidates,
        threads=_shared(threads),
        told=say,
    )
    path = out / "strong.safetensors"
    write_all({path: made.encoded(), out / "result.json": made.result_bytes(path)})
    if json:
        print_json(made.as_json(path))
    else:
        _print(made, path)


@app.command(name="edge-popup")
def edge_popup(
    *,
    data: Annotated[str, Parameter(help="What to learn on.")] = "digits",
    model: Annotated[
        str | None, Parameter(help="A name, or pkg.module:factory, whose code is run. [default: the data's]")
    ] = None,
    rule: Annotated[
        str,
        Parameter(
            help="edge-popup: the share of largest score is in, Ramanujan et al. (2020), equation 3; or supermask: "
            "each weight is in with a learned probability, Zhou et al. (2019), section 5."
        ),
    ] = "edge-popup",
    density: Annotated[float, Parameter(help="Of edge-popup: the share of the weights that is in (kept).")] = 0.5,
    scope: Annotated[
        str, Parameter(help="Of edge-popup: the share of each layer, or of all together: global.")
    ] = "layer",
    rescale: Annotated[bool, Parameter(help="Of supermask: dynamic weight rescaling, its section 5.1.")] = True,
    init: Annotated[
        str, Parameter(help="Weights: signed-constant or kaiming-normal, scaled for the share that is in.")
    ] = "signed-constant",
    iterations: Annotated[Whole, Parameter(help="Of the training of the scores.")] = 2_000,
    batch_size: Annotated[Whole, Parameter(help="Examples in an iteration.")] = 128,
    lr: Annotated[float | None, Parameter(help="Of the scores. [default: 0.1; of supermask 0.1 by Adam]")] = None,
    replicates: Annotated[Whole, Parameter(help="Random networks.")] = 1,
    seed: Annotated[Whole, Parameter(help="Of everything random.")] = 0,
    workers: Annotated[Whole | None, Parameter(help="Parallel processes. [default: one per core]")] = None,
    out: Annotated[Path, Parameter(help="Folder for the subnetwork and its numbers.")] = Path("strong"),
    json: _Json = False,
) -> None:
    """Learn which weights of a random network to keep; no weight is ever trained.

    Trains a score for every weight through the masked network and leaves the weights as they were drawn, bit for bit.
    Writes ticket.safetensors (of the network with the best validation: masks and random weights) and result.json.
    """
    from functools import partial

    from tombola.cli.verdicts import console
    from tombola.data import load
    from tombola.errors import UnknownName
    from tombola.files import check_writable, write_all
    from tombola.prune.learned import Popup, Supermask
    from tombola.search.find import Silent
    from tombola.search.named import builder
    from tombola.strong import edge_popup as popup
    from tombola.train.engines import trainer
    from tombola.train.presets import default_model
    from tombola.train.recipe import Recipe
    from tombola.train.source import Splits
    from tombola.types import Seed

    if rule not in ("edge-popup", "supermask"):
        raise UnknownName.among("rule", rule, ("edge-popup", "supermask"))
    if replicates < 1:
        raise InvalidValue(f"replicates is {replicates}; there is at least one random network.")
    rate = {} if lr is None else {"lr": lr}
    scores = Popup(density, scope, **rate) if rule == "edge-popup" else Supermask(rescale, **rate)
    check_writable(out)
    splits = Splits(partial(load, data))
    name = model or default_model(splits.dataset.name)
    build = builder(name, splits.dataset)
    recipe = Recipe(iterations=iterations, batch_size=batch_size, eval_every=max(1, iterations // 20))
    say(f"{name} on {splits.dataset.name}, {rule}: {replicates} random networks, {iterations:,} iterations of scores")
    found = popup.learn(
        build,
        trainer("plain", build, splits, recipe, "cpu", _shared(workers), _Heard(Silent())),
        [Seed(seed, replicate) for replicate in range(replicates)],
        scores,
        iterations,
        init=init,
        share=density if rule == "edge-popup" else 1.0 if rescale else 0.5,
    )
    told = {"data": splits.dataset.name, "data_fingerprint": splits.dataset.fingerprint, "model": name}
    result = {**told, "seed": seed, "recipe": dict(recipe.as_json()), **popup.summary(found, scores, init)}
    best = max(found, key=lambda one: one.run.curve.accuracy[-1])
    ticket = best.ticket(
        {**told, "seed": seed, "replicate": best.seed.replicate, "strategy": rule, "score_rule": result["rule"],
         "init": init, "verdict_sentence": "not judged: no weight of it was trained"}
    )  # fmt: skip
    path = out / "ticket.safetensors"
    from tombola import canonical
    from tombola import ticket as tickets

    result["ticket"] = str(path)
    write_all({path: tickets.encode(ticket), out / "result.json": (canonical.dumps(result) + "\n").encode()})
    if json:
        print_json(result)
        return
    screen = console()
    spread = (
        "" if result["low"] is None else f" (95 % interval {100 * result['low']:.2f} to {100 * result['high']:.2f})"
    )
    total = sum(mask.numel() for mask in found[0].masks.values())
    screen.print(
        f"Without training a weight: test accuracy {100 * result['mean']:.2f} %{spread}, n = {replicates}; "
        f"{100 * found[0].density:.2f} % of {total:,} random weights are in."
    )
    screen.print(f"The weights are those that were drawn: digest {best.digest[:16]} before and after.")
    screen.print(f"The subnetwork, masks and random weights: {path}")


class _Heard:
    """Says what validation sees, a line for each look at the first network."""

    def __init__(self, inner: "Watcher") -> None:
        self.inner = inner

    def stop(self) -> bool:
        return self.inner.stop()

    def evaluated(self, number: int, step: int, loss: float, accuracy: float) -> None:
        self.inner.evaluated(number, step, loss, accuracy)
        if number == 0:
            say(f"iteration {step:,}: validation accuracy {100 * accuracy:.2f} %")


@app.command
def bounds(
    *,
    error: Annotated[float, Parameter(help="What every weight is to be reached to.")] = 1e-3,
    weights: Annotated[Whole, Parameter(help="Of the whole network.")] = 266_610,
    failure: Annotated[float, Parameter(help="Probability that any of them is missed.")] = 0.01,
    weight: Annotated[float, Parameter(help="A typical weight, up to 1/2.")] = 0.25,
    json: _Json = False,
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
    json: _Json = False,
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
    found = measured_law(_wholes(counts), lists=lists, seed=seed, threads=_shared(threads), told=say)
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


@app.command
def width(
    *,
    data: Annotated[str, Parameter(help="What to learn on.")] = "digits",
    factors: Annotated[
        str, Parameter(help="Comma list: what LeNet-300-100's widths are multiplied by.")
    ] = "0.25,0.5,1,2",
    density: Annotated[float, Parameter(help="The share of the weights that is in (kept).")] = 0.5,
    iterations: Annotated[Whole, Parameter(help="Of the training of the scores.")] = 2_000,
    batch_size: Annotated[Whole, Parameter(help="Examples in an iteration.")] = 128,
    replicates: Annotated[Whole, Parameter(help="Random networks of each width.")] = 1,
    seed: Annotated[Whole, Parameter(help="Of everything random.")] = 0,
    workers: Annotated[Whole | None, Parameter(help="Parallel processes. [default: one per core]")] = None,
    out: Annotated[Path, Parameter(help="Folder for the numbers and the figure.")] = Path("strong-width"),
    json: _Json = False,
) -> None:
    """Measure how good learned masks are in wider and wider random networks.

    Edge-popup on LeNet-300-100 at several widths. Writes width.json and, with matplotlib, width.svg.
    """
    from dataclasses import asdict
    from functools import partial

    from tombola import canonical
    from tombola.cli.words import numbers
    from tombola.data import load
    from tombola.files import check_writable, write_all
    from tombola.search.find import Silent
    from tombola.strong import figures
    from tombola.strong.measuring import measured_widths
    from tombola.train.engines import trainer
    from tombola.train.recipe import Recipe
    from tombola.train.source import Splits

    check_writable(out)
    splits = Splits(partial(load, data))
    recipe = Recipe(iterations=iterations, batch_size=batch_size, eval_every=max(1, iterations // 4))
    found = measured_widths(
        numbers(factors, "--factors"),
        splits.dataset,
        lambda build: trainer("plain", build, splits, recipe, "cpu", _shared(workers), Silent()),
        iterations,
        density=density,
        replicates=replicates,
        seed=seed,
        told=say,
    )
    told = {"data": splits.dataset.name, "density": density, "iterations": iterations, "seed": seed,
            "rows": [asdict(one) for one in found]}  # fmt: skip
    files = {out / "width.json": (canonical.dumps(told) + "\n").encode()}
    if figures.available():
        files[out / "width.svg"] = figures.width(found)
    write_all(files)
    if json:
        print_json(told)
        return
    for one in found:
        mean = 100 * sum(one.accuracy) / len(one.accuracy)
        print(f"{one.hidden[0]}-{one.hidden[1]}: {one.weights:,} random weights, test accuracy {mean:.2f} %")
    print(f"Numbers: {out}")


def _wholes(text: str) -> tuple[int, ...]:
    from tombola.cli.words import numbers

    found = numbers(text, "--counts")
    if any(value != int(value) for value in found):
        raise InvalidValue(f"--counts is {text!r}; numbers of candidates are whole.")
    return tuple(map(int, found))


def _shared(asked: int | None) -> int:
    """Give how many share the work: as asked, or one for each core."""
    if asked is not None:
        if asked < 1:
            raise InvalidValue(f"{asked} are to share the work; at least one does it. Leave it out for one per core.")
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _print(made: "Made", path: Path) -> None:
    from rich.table import Table

    from tombola.cli.verdicts import console

    screen = console()
    found: dict[str, Any] = made.as_json(path)
    table = Table(title=f"{made.title}: weights solved as subset sums, error {found['error']:.3g}")
    for heading in ("layer", "weights", "solved", "largest error", "mean error", "candidates tried", "kept"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for one in found["layers"]:
        table.add_row(
            one["name"], f"{one['weights']:,}", f"{one['solved']:,}", f"{one['max_error']:.2e}",
            f"{one['mean_error']:.2e}", f"{one['mean_candidates']:.1f}", f"{one['kept']:,}",
        )  # fmt: skip
    screen.print(table)
    screen.print(
        f"Solved: {found['solved']:,} of {found['weights']:,} weights in {found['seconds']:.2f} s, "
        f"{found['weights_per_second']:,.0f} a second; {found['unresolved']} unresolved. The others are within the "
        "error of 0 and keep nothing."
    )
    screen.print(
        f"Kept: {found['kept']:,} of {found['total']:,} random weights, {100 * found['kept'] / found['total']:.2f} %."
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
