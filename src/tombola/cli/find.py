"""``tombola find``: search for a ticket and judge it."""

import hashlib
import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tombola.cli.words import Whole, densities, listed, names, print_json, schedule
from tombola.prune.catalogue import CRITERIA, STRATEGIES, STRUCTURES
from tombola.saying import say
from tombola.search.settings import Settings, how_many

if TYPE_CHECKING:
    from tombola.search.keeping import Keeping

PARTIAL = "results.partial.csv"
"""The finished levels of a search that was stopped; the results of one that ended are left as they are."""


METHODS = "\n\n".join(
    f"**{title}**\n\n" + "\n".join(f"* `{name}`: {text}" for name, text in lines.items())
    for title, lines in {
        "Strategies": {name: f"{one.what} ({one.source})" for name, one in STRATEGIES.items()},
        "Criteria: kept is what the score is high for": {
            name: f"{one.what} ({one.source})" for name, one in CRITERIA.items()
        },
        "Structures": dict(STRUCTURES),
    }.items()
)
"""Every method in one line, under the flags."""


def find(
    *,
    data: Annotated[
        str, Parameter(help="Data set: a name (see `tombola data`), an .npz, an image folder, or pkg.module:function.")
    ] = "digits",
    model: Annotated[
        str | None,
        Parameter(
            help="Network: lenet-300-100, lenet-5, conv-2, conv-4, conv-6, resnet-20, resnet-50, vgg-11, vgg-16, "
            "vgg-19, or pkg.module:factory. [default: lenet-300-100; conv-2 on cifar-10]"
        ),
    ] = None,
    strategy: Annotated[
        str, Parameter(help=f"How the subnetwork is found: {listed(STRATEGIES)}. Each in one line below.")
    ] = "imp",
    density: Annotated[
        float | None, Parameter(help="Fraction of the prunable weights to keep after the last round.")
    ] = None,
    rounds: Annotated[Whole | None, Parameter(help="Levels after the dense one. [default: 12]")] = None,
    rate: Annotated[float | None, Parameter(help="Fraction of the survivors pruned in a round. [default: 0.2]")] = None,
    densities_: Annotated[
        str | None,
        Parameter(name="--densities", help="Comma list of every level's density, in place of the three above."),
    ] = None,
    source: Annotated[
        Path | None, Parameter(help="Folder of the finished search that the strategy transfer takes its masks from.")
    ] = None,
    criterion: Annotated[
        str | None,
        Parameter(
            help="Score by which weights are kept, a name from the list below or pkg.module:function. [default: the "
            "strategy's; magnitude for most]"
        ),
    ] = None,
    allocation: Annotated[
        str | None,
        Parameter(
            help="Weights per layer: layer-rates, uniform, global, erk, lamp, or pkg.module:name. [default: the "
            "paper's for the strategy, the criterion or the model]"
        ),
    ] = None,
    structure: Annotated[
        str, Parameter(help=f"What is kept or pruned together: {listed(STRUCTURES)}; below.")
    ] = "none",
    scope: Annotated[
        str, Parameter(help="What is pruned: weights, linear, conv, weights+embeddings or everything.")
    ] = "weights",
    exclude: Annotated[str, Parameter(help="Comma list of parameters to leave dense; * matches any text.")] = "none",
    min_keep: Annotated[
        Whole, Parameter(help="Keep at least this many weights in every layer; 0 refuses to empty one.")
    ] = 0,
    rewind: Annotated[str, Parameter(help="What survivors restart from: init, step:K, or lr.")] = "init",
    extra: Annotated[
        Whole | None, Parameter(help="Iterations of each fine-tuning. [default: as many as the dense run had]")
    ] = None,
    recalibrate: Annotated[
        bool,
        Parameter(
            help="Take batch norm's statistics anew, on training data, after a cut whose survivors keep their weights.",
            negative="",
        ),
    ] = False,
    round_iterations: Annotated[
        Whole | None,
        Parameter(
            help="Iterations of a round that only makes the next mask (imp, continued, settled); the tickets are then "
            "trained at the gates alone. [default: the strategy's]"
        ),
    ] = None,
    round_data: Annotated[
        float | None, Parameter(help="Share of the training examples that such a round sees. [default: all]")
    ] = None,
    controls: Annotated[
        str,
        Parameter(
            help="Comma list of reinit, permute, shuffle, global-shuffle, random, random-erk, sign, one-shot, noise:K "
            "(K standard deviations on the initial values), small-dense and small-dense-flops (a dense network as "
            "small as the ticket, by parameters or operations); or none."
        ),
    ] = "reinit,shuffle",
    replicates: Annotated[
        str,
        Parameter(
            help="Families; each has its own initialisation and data order. auto or auto:N adds them in looks, from 3 "
            "up to 12 or N, until the verdict at every gate is settled."
        ),
    ] = "5",
    dense_runs: Annotated[Whole, Parameter(help="Dense runs per family: same initialisation, other data orders.")] = 3,
    gates: Annotated[
        str | None,
        Parameter(
            help="Comma list of densities at which to certify. [default: the levels nearest 0.5,0.2,0.1,0.05,0.02,0.01]"
        ),
    ] = None,
    margin: Annotated[
        float | None, Parameter(help="Accuracy that may be lost, as a fraction. [default: the data set's]")
    ] = None,
    alpha: Annotated[float, Parameter(help="Error rate of each certificate.")] = 0.05,
    iterations: Annotated[
        Whole | None,
        Parameter(help="Training iterations of a run, T. [default: the paper's for the model; 200 on digits]"),
    ] = None,
    batch_size: Annotated[Whole | None, Parameter(help="Examples in an iteration.")] = None,
    lr: Annotated[float | None, Parameter(help="Base learning rate.")] = None,
    optimizer: Annotated[str | None, Parameter(help="adam, adamw or sgd.")] = None,
    momentum: Annotated[float | None, Parameter(help="Momentum of sgd.")] = None,
    nesterov: Annotated[bool | None, Parameter(help="Nesterov's momentum.", negative="")] = None,
    weight_decay: Annotated[float | None, Parameter(help="Weight decay.")] = None,
    schedule_: Annotated[
        str | None,
        Parameter(name="--schedule", help="Learning rate: constant, cosine, or step:K,K (times 0.1 at each)."),
    ] = None,
    loss: Annotated[
        str | None,
        Parameter(help="cross-entropy, or mse: squared difference to the one-hot label. [default: cross-entropy]"),
    ] = None,
    augment: Annotated[
        str | None, Parameter(help="none, or crop-flip: random crops and flips of the training images.")
    ] = None,
    warmup: Annotated[Whole | None, Parameter(help="Iterations of linear warm-up.")] = None,
    eval_every: Annotated[Whole | None, Parameter(help="Spacing of the validation grid, in iterations.")] = None,
    seed: Annotated[Whole, Parameter(help="Seed of everything random.")] = 0,
    engine: Annotated[
        str,
        Parameter(
            help="What trains: plain; sparse (cost falls with density; linear layers, CPU); replicas (families as one "
            "stack); or auto, which picks and says why."
        ),
    ] = "auto",
    device: Annotated[str, Parameter(help="cpu, cuda or cuda:N.")] = "cpu",
    workers: Annotated[
        Whole | None, Parameter(help="Parallel processes, one thread each. [default: one per core]")
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(help="Folder for the ticket, the trained network and the results. [default: tombola-runs/...]"),
    ] = None,
    store: Annotated[
        Path | None,
        Parameter(help="Folder of finished runs; searches on one store share them. [default: store/ in the folder]"),
    ] = None,
    json: Annotated[
        bool, Parameter(help="Print one JSON object on standard output and nothing else.", negative="")
    ] = False,
) -> int:
    """Search for a winning ticket, with replicates, controls and a verdict.

    Trains dense networks, prunes them level by level, trains the survivors from their initial values, and compares
    them with the dense networks and with controls of equal density. Recipe flags left out follow the paper's recipe
    for the model. Writes ticket.safetensors, trained.safetensors, result.json and results.csv; after Ctrl-C the levels
    that are finished, as results.partial.csv, and the same command goes on.
    """
    recipe: dict[str, Any] = {
        "iterations": iterations,
        "batch_size": batch_size,
        "lr": lr,
        "optimizer": optimizer,
        "momentum": momentum,
        "nesterov": nesterov,
        "weight_decay": weight_decay,
        "loss": loss,
        "augment": augment,
        "warmup": warmup,
        "eval_every": eval_every,
        **(schedule(schedule_) if schedule_ is not None else {}),
    }
    settings = Settings(
        data=data,
        model=model,
        strategy=strategy,
        density=density,
        rounds=rounds,
        rate=rate,
        densities=densities(densities_, "--densities"),
        source=None if source is None else str(source),
        criterion=criterion,
        allocation=allocation,
        structure=structure,
        extra=extra,
        recalibrate=recalibrate,
        round_iterations=round_iterations,
        round_data=round_data,
        min_keep=min_keep,
        scope=scope,
        exclude=names(exclude),
        rewind=rewind,
        controls=names(controls),
        replicates=how_many(replicates)[0],
        sequential=how_many(replicates)[1],
        dense_runs=dense_runs,
        gates=densities(gates),
        margin=margin,
        alpha=alpha,
        seed=seed,
        engine=engine,
        device=device,
        workers=workers,
        recipe={name: value for name, value in recipe.items() if value is not None},
    )
    return _run(settings, out, store, json)


def _run(settings: Settings, out: Path | None, store: Path | None, as_json: bool) -> int:
    # Imported here: torch takes seconds, and a wrong flag should not.
    from tombola.cli.app import INTERRUPTED
    from tombola.cli.interrupting import ends_promptly, forget_interrupt
    from tombola.cli.verdicts import show_finding
    from tombola.errors import CannotWrite
    from tombola.explain.material import ready
    from tombola.files import check_writable, write_all
    from tombola.search.find import Silent, run
    from tombola.search.keeping import Keeping
    from tombola.search.live import watching
    from tombola.study.recalling import recalling
    from tombola.study.running import one_search

    kept, folder = Keeping(Silent()), out

    def last_words() -> str:
        return _interrupted(kept, folder)

    try:
        with ends_promptly(INTERRUPTED, last_words):
            setup = ready(settings)
            folder = out or _default_folder(settings, setup.about["data"], setup.about["model"])
            check_writable(folder)
            with watching() as observer:
                kept = Keeping(observer)
                finding = run(recalling(setup, store or folder / "store"), kept)
    except KeyboardInterrupt:
        forget_interrupt()
        say(last_words())
        return INTERRUPTED
    try:
        finding = finding.save(folder)
        write_all(one_search(settings, folder, store or folder / "store"))
        (folder / PARTIAL).unlink(missing_ok=True)
    except CannotWrite:
        # What took hours to find is at least seen.
        if not as_json:
            show_finding(finding)
        raise
    except KeyboardInterrupt:
        say(last_words())
        return INTERRUPTED
    if as_json:
        print_json(finding.as_json())
    else:
        show_finding(finding)
    return 0


def _interrupted(kept: "Keeping", folder: Path | None) -> str:
    """Save what is finished, and say where it is."""
    from tombola.errors import CannotWrite

    if folder is None:
        return "Interrupted; nothing was written."
    on = "What is finished is kept, and the same command goes on from there."
    if not kept.levels:
        return f"Interrupted. {on}"
    path = folder / PARTIAL
    try:
        finished = kept.save(path)
    except CannotWrite as error:
        return f"Interrupted; what was finished could not be kept: {error}"
    levels = "the dense level is" if finished == 1 else f"levels 0 to {finished - 1} are"
    judge = "" if finished == 1 else f" `tombola judge {path}` judges them."
    return f"Interrupted; {levels} finished, and in {path}.{judge} {on}"


def _default_folder(settings: Settings, data: str, model: str) -> Path:
    """Name a folder by what decides the result, so that no two searches share one."""
    text = json_format.dumps(settings.as_json(), sort_keys=True, default=list)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    readable = "-".join(part.replace("/", "_").replace(":", ".") for part in (data, model, settings.strategy))
    return Path("tombola-runs") / f"{readable}-{digest}"
