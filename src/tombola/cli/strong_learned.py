"""``tombola strong edge-popup`` and ``width``: masks that are learned over weights that are not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Parameter

from tombola.cli.words import Json, Whole, cores, print_json
from tombola.errors import InvalidValue
from tombola.saying import say

if TYPE_CHECKING:
    from torch import nn

    from tombola.train.recipe import Recipe
    from tombola.train.source import Splits
    from tombola.types import TrainFn

T = TypeVar("T")

_Store = Annotated[
    Path | None,
    Parameter(help="Folder of finished runs; what is there is not trained again. [default: store/ in --out]"),
]


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
    store: _Store = None,
    json: Json = False,
) -> int:
    """Learn which weights of a random network to keep; no weight is ever trained.

    Trains a score for every weight through the masked network and leaves the weights as they were drawn, bit for bit.
    Writes ticket.safetensors (of the network with the best validation: masks and random weights) and result.json.
    """
    from tombola import canonical
    from tombola import ticket as tickets
    from tombola.cli.app import INTERRUPTED
    from tombola.cli.verdicts import console
    from tombola.data import load
    from tombola.errors import UnknownName
    from tombola.files import check_writable, write_all
    from tombola.prune.learned import Popup, Supermask
    from tombola.search.named import builder
    from tombola.strong import edge_popup as popup
    from tombola.train.presets import default_model
    from tombola.train.recipe import Recipe
    from tombola.train.source import Splits
    from tombola.types import Seed

    if rule not in ("edge-popup", "supermask"):
        raise UnknownName.among("rule", rule, ("edge-popup", "supermask"))
    if rule == "supermask" and (density != 0.5 or scope != "layer"):
        raise InvalidValue("--density and --scope are of edge-popup; a supermask learns how many weights are in.")
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
    training = _trainer(build, name, splits, recipe, cores(workers), store or out / "store", aloud=True)
    found = _finished(
        lambda: popup.learn(
            build,
            training,
            [Seed(seed, replicate) for replicate in range(replicates)],
            scores,
            iterations,
            init=init,
            share=density if rule == "edge-popup" else 1.0 if rescale else 0.5,
        )
    )
    if found is None:
        return INTERRUPTED
    told = {"data": splits.dataset.name, "data_fingerprint": splits.dataset.fingerprint, "model": name}
    result = {**told, "seed": seed, "recipe": dict(recipe.as_json()), **popup.summary(found, scores, init)}
    best = max(found, key=lambda one: one.run.curve.accuracy[-1])
    ticket = best.ticket(
        {**told, "seed": seed, "replicate": best.seed.replicate, "strategy": rule, "score_rule": result["rule"],
         "init": init, "verdict_sentence": "not judged: no weight of it was trained"}
    )  # fmt: skip
    path = out / "ticket.safetensors"
    result["ticket"] = str(path)
    write_all({path: tickets.encode(ticket), out / "result.json": (canonical.dumps(result) + "\n").encode()})
    if json:
        print_json(result)
        return 0
    screen = console()
    spread = (
        "" if result["low"] is None else f" (95 % interval {100 * result['low']:.2f} to {100 * result['high']:.2f})"
    )
    total = sum(mask.numel() for mask in found[0].masks.values())
    screen.print(
        f"Without training a weight: test accuracy {100 * result['mean']:.2f} %{spread}, n = {replicates}; "
        f"{100 * found[0].density:.2f} % of {total:,} random weights are in."
    )
    screen.print(f"The ticket's weights are those that were drawn: digest {best.digest[:16]}.")
    screen.print(f"The subnetwork, masks and random weights: {path}")
    return 0


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
    store: _Store = None,
    json: Json = False,
) -> int:
    """Measure how good learned masks are in wider and wider random networks.

    Edge-popup on LeNet-300-100 at several widths. Writes width.json and, with matplotlib, width.svg.
    """
    from dataclasses import asdict

    from tombola import canonical
    from tombola.cli.app import INTERRUPTED
    from tombola.cli.words import numbers
    from tombola.data import load
    from tombola.files import check_writable, write_all
    from tombola.strong import figures
    from tombola.strong.measuring import measured_widths
    from tombola.train.recipe import Recipe
    from tombola.train.source import Splits

    check_writable(out)
    splits = Splits(partial(load, data))
    recipe = Recipe(iterations=iterations, batch_size=batch_size, eval_every=max(1, iterations // 4))
    shared, folder = cores(workers), store or out / "store"
    found = _finished(
        lambda: measured_widths(
            numbers(factors, "--factors"),
            splits.dataset,
            lambda build: _trainer(build, "wide", splits, recipe, shared, folder),
            iterations,
            density=density,
            replicates=replicates,
            seed=seed,
            told=say,
        )
    )
    if found is None:
        return INTERRUPTED
    told = {"data": splits.dataset.name, "density": density, "iterations": iterations, "seed": seed,
            "rows": [asdict(one) for one in found]}  # fmt: skip
    files = {out / "width.json": (canonical.dumps(told) + "\n").encode()}
    if figures.available():
        files[out / "width.svg"] = figures.width(found)
    write_all(files)
    if json:
        print_json(told)
        return 0
    for one in found:
        mean = 100 * sum(one.accuracy) / len(one.accuracy)
        print(f"{one.hidden[0]}-{one.hidden[1]}: {one.weights:,} random weights, test accuracy {mean:.2f} %")
    print(f"Numbers: {out}")
    return 0


class _Heard:
    """Says what validation sees, a line for each look at the first network."""

    def __init__(self, aloud: bool) -> None:
        self.aloud = aloud

    def stop(self) -> bool:
        return False

    def evaluated(self, number: int, step: int, _: float, accuracy: float) -> None:
        if number == 0 and self.aloud:
            say(f"iteration {step:,}: validation accuracy {100 * accuracy:.2f} %")


def _finished(work: Callable[[], T]) -> T | None:
    """Do long work on a store; ``None`` after Ctrl-C, when it is said that the same command goes on."""
    from tombola.cli.app import INTERRUPTED
    from tombola.cli.interrupting import ends_promptly, forget_interrupt

    words = "Interrupted. What is finished is kept, and the same command goes on from there."
    try:
        with ends_promptly(INTERRUPTED, lambda: words):
            return work()
    except KeyboardInterrupt:
        forget_interrupt()
        say(words)
        return None


@contextmanager
def _trainer(
    build: "Callable[[], nn.Module]",
    name: str,
    splits: "Splits",
    recipe: "Recipe",
    workers: int,
    store: Path,
    *,
    aloud: bool = False,
) -> "Iterator[TrainFn]":
    """Give what trains scores on the CPU, by way of a store; ``aloud`` says what validation sees."""
    from tombola import models
    from tombola.study.recalling import through
    from tombola.study.store import Store
    from tombola.study.units import Trained
    from tombola.train.plain import PlainTrainer

    trained = Trained(models.identity(name, build()), splits.dataset.fingerprint, recipe.digest, "plain on cpu")
    one = PlainTrainer(build, splits, recipe, "cpu")
    with through(Store(store), one, trained, workers, _Heard(aloud)) as train:
        yield train
