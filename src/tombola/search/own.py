"""The one call for a network and a training loop of the user's own."""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

import torch
from torch import Tensor, distributed, nn

from tombola import models
from tombola.errors import InvalidValue
from tombola.prune.catalogue import CRITERIA, STRATEGIES
from tombola.prune.evidence import Criterion
from tombola.search.find import Observer, Silent, run
from tombola.search.finding import Finding
from tombola.search.levels import Family
from tombola.search.live import watching
from tombola.search.looking import Looking
from tombola.search.rounds import cautions
from tombola.search.settings import BESIDE, DEFAULT_CONTROLS, MOVING, Method, how_many
from tombola.search.setup import Setup, Work, check_own_values, decide, name_of
from tombola.stats import Scale
from tombola.train.own import EvaluateFn, OwnTrainer, TrainLoop
from tombola.train.watch import Watcher
from tombola.types import Seed, Snapshot, TrainFn

_MARGIN: Final = 0.005
"""What accuracy may be lost where nobody says otherwise: half a point."""

_REPLICATES: Final = 5


def find(
    build: Callable[[], nn.Module] | nn.Module,
    train: TrainLoop,
    evaluate: EvaluateFn | None = None,
    *,
    iterations: int,
    strategy: str = "imp",
    density: float | None = None,
    rounds: int | None = None,
    rate: float | None = None,
    densities: Sequence[float] | None = None,
    criterion: str | Criterion | None = None,
    allocation: str | None = None,
    structure: str = "none",
    min_keep: int = 0,
    scope: str = "weights",
    exclude: Sequence[str] = (),
    rewind: str | int = "init",
    extra: int | None = None,
    recalibrate: bool = False,
    round_iterations: int | None = None,
    controls: Sequence[str] | None = None,
    replicates: int | str | None = None,
    dense_runs: int = 3,
    gates: Sequence[float] | None = None,
    score: str = "accuracy",
    margin: float | None = None,
    alpha: float = 0.05,
    speed: str | None = None,
    seed: int = 0,
    input_shape: tuple[int, ...] | None = None,
    batch_size: int | None = None,
    batches: Sequence[tuple[Tensor, Tensor]] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    progress: bool | Observer = True,
) -> Finding:
    """Search for a winning ticket in a network of your own, trained by a loop of your own, and judge it.

    The search is that of the command line: families of dense runs, cut level by level, the survivors trained from their
    initial values, and controls of equal density. The loop sees an ordinary module on which masks hold
    (:func:`tombola.attach.attach`); it may move, wrap and compile it, and use any ``torch.optim`` optimiser.

    Under ``DistributedDataParallel`` every rank makes the same call; masks and start values are compared before each
    run, and rank 0's scores count. Show and save on rank 0.

    Args:
        build: makes the network, with random initial values from torch's global generator. A module is accepted: there
            is one family then, and no ``reinit`` control, for nobody knows how its values were drawn.
        train: ``train(model, *, seed, iterations, record)`` trains the module in place for ``iterations`` iterations.
            Everything random in it follows ``seed`` (global generators are seeded by it already). It reports validation
            with ``record(step, loss=..., accuracy=...)``, steps counted from initialisation, on one grid in every run;
            without losses there is no speed certificate. Where the search rewinds to a step, training starts at
            ``record.start``. What it returns, if anything, is the network's final score: that of the test split where
            there is no ``evaluate``, else of validation.
        evaluate: ``evaluate(model)`` gives the score on the test split, any number where larger is better. It is called
            for finished networks only, and decides nothing but the verdict.
        iterations: of a dense run, T.
        strategy: ``imp``, ``adaptive``, ``one-shot``, ``lr-rewind``, ``finetune``, ``one-shot-finetune``, ``obd`` or
            ``at-init``; those that take hold of a run while it trains are for tombola's own trainers.
        density: fraction of the prunable weights to keep after the last round.
        rounds: levels after the dense one; 12 by default.
        rate: fraction of the survivors pruned in a round; 0.2 by default.
        densities: of each level after the dense one, in place of ``density``, ``rounds`` and ``rate``.
        criterion: a name (``tombola find --help`` lists them), ``pkg.module:function``, or the function; by default the
            strategy's. One that looks at data needs ``batches`` and ``loss``.
        allocation: ``layer-rates`` (the default: every tensor at one rate, the last linear one at half of it, as in the
            paper), ``uniform``, ``global``, ``erk`` or ``lamp``.
        structure: what is pruned together: ``none``, ``N:M``, ``block:RxC``, ``neurons`` (which needs
            ``input_shape`` or ``batches``) or ``heads``.
        min_keep: keep at least this many weights in every tensor; 0 refuses to empty one.
        scope: what is pruned: ``weights``, ``linear``, ``conv``, ``weights+embeddings`` or ``everything``.
        exclude: parameters to leave dense, by name or shell pattern.
        rewind: ``init``, a step or ``step:K``, or ``lr``. For a step the loop calls ``record(K)`` there, or hands over
            its own checkpoint with ``record.checkpoint(K, state_dict)``.
        extra: iterations of each fine-tuning; as many as the dense run had by default.
        recalibrate: take batch norm's statistics anew, on ``batches``, after a cut whose survivors keep their weights.
        round_iterations: of the rounds of ``imp``, which then only make the masks; fewer than T make worse ones.
        controls: names; ``reinit`` and ``shuffle`` by default.
        replicates: families, 5 by default; ``auto`` or ``auto:N`` adds them until the verdict is settled at every gate.
        dense_runs: dense runs per family: one initialisation, other seeds for the loop.
        gates: densities at which the verdict is certified.
        score: what the score is. ``accuracy`` is a fraction; anything else is shown under its name as it is, and needs
            a ``margin``.
        margin: what may be lost, in the unit of the score; 0.005 for accuracy.
        alpha: error rate of each certificate.
        speed: why the early-stop iteration measures no speed in this loop, if that is so. A learning rate that falls
            is noticed.
        seed: of everything random.
        input_shape: of one example, without the batch. Where this and ``batch_size`` are given, operations are counted.
        batch_size: examples in an iteration.
        batches: pairs of inputs and targets from the training split, for criteria that look at data; balanced classes
            are best, and a hundred to a thousand examples are usual.
        loss: ``loss(outputs, targets)``, the training loss, a mean over the examples.
        progress: ``True`` shows it on standard error, ``False`` shows nothing; or an observer of your own.

    Returns:
        Levels, verdict, ticket, trained network; :meth:`Finding.save` writes them.

    Raises:
        TombolaError: everything that can be known before training is refused before it; see
            :func:`tombola.search.setup.decide`. Later: a loop that breaks its contract, ranks that differ, no family
            that is left.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> x = torch.randn(64, 4)
        >>> y = (x.sum(1) > 0).long()
        >>> def train(model, *, seed, iterations, record):
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        ...     for step in range(record.start, record.stop):
        ...         batch = torch.randint(64, (16,))
        ...         loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         optimizer.step()
        >>> def evaluate(model):
        ...     return (model(x).argmax(1) == y).float().mean()
        >>> def build():
        ...     return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> found = find(build, train, evaluate, iterations=20, rounds=2, replicates=3, progress=False)
        >>> [level.kept for level in found.levels], found.ticket.total
        ([96, 80, 67], 96)
    """
    method_of = partial(
        Method,
        strategy=strategy,
        density=density,
        rounds=rounds,
        rate=rate,
        densities=None if densities is None else _listed("densities", densities),
        criterion=criterion,
        allocation=allocation,
        structure=structure,
        extra=extra,
        recalibrate=recalibrate,
        round_iterations=round_iterations,
        min_keep=min_keep,
        scope=scope,
        exclude=_listed("exclude", exclude),
        rewind=f"step:{rewind}" if isinstance(rewind, int) else rewind,
        dense_runs=dense_runs,
        gates=None if gates is None else _listed("gates", gates),
        margin=margin,
        alpha=alpha,
        seed=seed,
    )
    _check_call(build, train, evaluate, iterations)
    _check_rest(score, speed, progress)
    given = isinstance(build, nn.Module)
    count, sequential = _replicates(replicates, given)
    method = method_of(controls=_controls(controls, given), replicates=count, sequential=sequential)
    setup = prepare(
        method, build, train, evaluate, iterations, score=score, speed=speed,
        example=None if input_shape is None or batch_size is None else (tuple(input_shape), batch_size),
        batches=batches, loss=loss, input_shape=input_shape,
    )  # fmt: skip
    with _observer(progress) as observer:
        return run(setup, observer)


def prepare(
    method: Method,
    build: Callable[[], nn.Module] | nn.Module,
    train: TrainLoop,
    evaluate: EvaluateFn | None,
    iterations: int,
    *,
    score: str,
    speed: str | None,
    example: tuple[tuple[int, ...], int] | None,
    batches: Sequence[tuple[Tensor, Tensor]] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> Setup:
    """Decide everything that can be decided before training; the arguments are those of :func:`find`."""
    scale = Scale(score)
    margin = _margin(method, scale)
    _check_ours(method, batches, loss)
    factory, draw, families, notes = _families(method, build)
    seen = Looking(factory, loss, None if batches is None else lambda: batches)
    families = tuple(replace(family, looking=seen) for family in families)
    one = batches[0][0][:1] if batches else None if input_shape is None else torch.zeros(1, *input_shape)
    init = families[0].init
    with torch.random.fork_rng(devices=()):
        module = factory()
    plan = decide(method, module, init.params, iterations, name_of(type(module)), one)
    if method.strategy == "adaptive":
        # A loop of the user's own takes no optimiser's state, and from its end on there is no rate that is known.
        plan = replace(plan, rounds=None)
    if draw is not None:
        check_own_values(factory, module, init, draw(Seed(method.seed, 1)))
    model = name_of(type(module))
    work = None
    if example is not None:
        macs, uncounted = models.macs(module, example[0])
        work = Work(example[1], macs, uncounted)
    return Setup(
        method=method,
        title=f"{type(module).__name__} in your own loop",
        engine="engine own",
        about={
            "data": None,
            "data_fingerprint": None,
            "model": model,
            "factory": None if isinstance(build, nn.Module) else name_of(build),
            "input_shape": None if example is None else list(example[0]),
            "classes": None,
            "engine": "own",
            "loop": name_of(train),
            "iterations": iterations,
        },
        build=factory,
        families=families,
        trainer=partial(_trainer, factory, train, evaluate, scale),
        iterations=iterations,
        plan=plan,
        score=scale,
        margin=margin,
        work=work,
        tied=models.tied_names(module),
        speed=speed,
        notes=(*notes, *cautions(plan.rounds, iterations, plan.densities[-1])),
    )


def _trainer(
    build: Callable[[], nn.Module], train: TrainLoop, evaluate: EvaluateFn | None, scale: Scale, watcher: Watcher
) -> AbstractContextManager[TrainFn]:
    return nullcontext(OwnTrainer(build, train, evaluate, watcher, _check_accuracy if scale.is_accuracy else _no_check))


def _check_ours(method: Method, batches: Any, loss: Any) -> None:
    """Refuse what needs to reach into the training loop, or more than is given."""
    pairs = isinstance(batches, list | tuple) and all(
        isinstance(one, tuple | list) and len(one) == 2 for one in batches
    )
    if batches is not None and not (pairs and batches and all(isinstance(x, Tensor) and len(x) for x, _ in batches)):
        raise InvalidValue(
            f"batches is {batches!r:.60}; expected a list of pairs of inputs and targets, tensors with an example at "
            "least: [(inputs, targets), ...]."
        )
    if STRATEGIES[method.strategy].grows:
        raise InvalidValue(
            f"{method.strategy} changes masks while the network trains, and a loop of your own is not reached into. "
            "Use imp, one-shot, lr-rewind, finetune, obd or at-init; or tombola's own trainer, tombola find."
        )
    if method.strategy == "transfer":
        raise InvalidValue("transfer takes masks from a search with tombola's own trainer, to one with it. Use imp.")
    if method.strategy in BESIDE or method.strategy in MOVING or method.round_data is not None:
        what = "round-data" if method.round_data is not None else method.strategy
        raise InvalidValue(
            f"{what} takes hold of a run between its first iteration and its last, and a loop of your own is not "
            "reached into. Use imp, adaptive or one-shot; or tombola's own trainer, tombola find."
        )
    criterion = method.criterion
    about = CRITERIA.get(criterion) if isinstance(criterion, str) else None
    missing = [name for name, value in (("batches", batches), ("loss", loss)) if value is None]
    if about is not None and about.looks and missing:
        raise InvalidValue(
            f"{criterion} looks at the network and at training data, and {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not given. Pass find(..., batches=[(inputs, targets), ...], "
            "loss=loss_of), of the training split."
        )
    if method.recalibrate and batches is None:
        raise InvalidValue(
            "recalibrate takes batch norm's statistics anew on training data, and batches are not given. Pass "
            "find(..., batches=[(inputs, targets), ...])."
        )
    if about is not None and about.moved:
        raise InvalidValue(
            f"{criterion} needs what training accumulates, and a loop of your own is not reached into. Use magnitude "
            "or another criterion; or search with tombola's own trainer, tombola find."
        )


def _check_accuracy(score: float) -> None:
    if not 0 <= score <= 1:
        raise InvalidValue(
            f"the network's accuracy is {score:g}; an accuracy is a fraction between 0 and 1. If it is another score, "
            "name it and say what may be lost: find(..., score='BLEU', margin=0.2)."
        )


def _no_check(_: float) -> None:
    """Take any finite score."""


def _families(
    method: Method, build: Callable[[], nn.Module] | nn.Module
) -> tuple[Callable[[], nn.Module], Callable[[Seed], Snapshot] | None, tuple[Family, ...], tuple[str, ...]]:
    """Give what builds the network, what draws its initial values, the families, and what is to be said of them."""
    if isinstance(build, nn.Module):
        copies = partial(copy.deepcopy, build)
        family = Family(Seed(method.seed), models.initial(copies, Seed(method.seed)))
        note = (
            "The network was given as a module, so there is one family and no reinit control, and one family supports "
            "no verdict. Give a function that builds the network."
        )
        return copies, None, (family,), (note,)
    draw = partial(models.initial, build)
    seeds = [Seed(method.seed, replicate) for replicate in range(method.replicates)]
    return build, draw, tuple(Family(seed, draw(seed), draw) for seed in seeds), ()


def _controls(controls: Sequence[str] | None, given: bool) -> tuple[str, ...]:
    named = DEFAULT_CONTROLS if controls is None else tuple(dict.fromkeys(_listed("controls", controls)))
    if not given:
        return named
    if controls is not None and "reinit" in named:
        raise InvalidValue(
            "the reinit control draws new initial values, and the network was given as a module. Give a function that "
            "builds it, or leave reinit out."
        )
    return tuple(name for name in named if name != "reinit")


def _listed(name: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidValue(f"{name} is {values!r:.60}; expected a list, such as [{values!r:.40}].")
    return tuple(values)


def _replicates(replicates: int | str | None, given: bool) -> tuple[int, bool]:
    if given and replicates not in (None, 1):
        raise InvalidValue(
            f"{replicates} replicates were asked for, and families differ in their initial values, of which a module "
            "has one set. Give a function that builds the network."
        )
    if given or replicates is None:
        return 1 if given else _REPLICATES, False
    if isinstance(replicates, str) and replicates.startswith("auto"):
        return how_many(replicates)
    # What is no number is refused with the other settings.
    return cast(int, replicates), False


def _margin(method: Method, scale: Scale) -> float:
    return scale.check_margin(_MARGIN if method.margin is None and scale.is_accuracy else method.margin)


def _check_call(build: Any, train: Any, evaluate: Any, iterations: Any) -> None:
    """Refuse before hours of training what would fail after them."""
    if not isinstance(build, nn.Module) and not callable(build):
        raise InvalidValue(
            f"build is a {type(build).__name__}; expected a function that builds the network, or the network."
        )
    if evaluate is not None and not callable(evaluate):
        raise InvalidValue(f"evaluate is a {type(evaluate).__name__}; expected a function of the network.")
    if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
        raise InvalidValue(f"iterations is {iterations!r}; expected a whole number, at least 1.")
    if not callable(train):
        raise InvalidValue(f"train is a {type(train).__name__}; expected a function.")
    try:
        signature = inspect.signature(train)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, seed=0, iterations=iterations, record=None)
    except TypeError as error:
        raise InvalidValue(
            f"train{signature} cannot be called as train(model, seed=..., iterations=..., record=...): {error}. Write "
            "def train(model, *, seed, iterations, record)."
        ) from error


def _check_rest(score: Any, speed: Any, progress: Any) -> None:
    for name, value, good, expected in (
        ("score", score, isinstance(score, str), "the score's name"),
        ("speed", speed, speed is None or isinstance(speed, str), "None, or the reason why speed is not measured"),
        (
            "progress",
            progress,
            isinstance(progress, bool) or hasattr(progress, "level_done"),
            "True, False or an observer",
        ),
    ):
        if not good:
            raise InvalidValue(f"{name} is {value!r:.60}; expected {expected}.")


@contextmanager
def _observer(progress: bool | Observer) -> Iterator[Observer]:
    if not isinstance(progress, bool):
        yield progress
        return
    first = not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0
    if not progress or not first:
        yield Silent()
        return
    with watching() as observer:
        yield observer
