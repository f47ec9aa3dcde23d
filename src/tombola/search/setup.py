"""Everything a search runs on, decided before the first iteration."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final, cast, final

import torch
from torch import Tensor, nn

from tombola import models
from tombola.errors import ImpossibleDensity, InvalidValue, UnknownName
from tombola.prune.allocation import ALLOCATIONS, Allocation
from tombola.prune.catalogue import STRATEGIES, About
from tombola.prune.controls import Control
from tombola.prune.controls import named as named_control
from tombola.prune.counting import Counts, exact
from tombola.prune.criteria import CRITERIA, Known
from tombola.prune.dynamic import SET, Gradual, Updates, rigl
from tombola.prune.evidence import Criterion
from tombola.prune.learned import GemMiner
from tombola.prune.pruner import During, Pruner
from tombola.prune.rewinding import Rewind, fine_tune, rewind_learning_rate, rewind_to_init, rewind_to_step
from tombola.prune.schedules import Schedule, at_densities, geometric, ladder
from tombola.prune.scope import Scope, choose
from tombola.prune.structure import Structure
from tombola.prune.structure import named as named_structure
from tombola.search.course import Adaptive, Course, Fixed, foreseen
from tombola.search.levels import Family
from tombola.search.rounds import Rounds, Settle
from tombola.search.settings import BESIDE, DEFAULT_RATE, FINE_TUNING, MOVING, Method, rewind_step
from tombola.stats import Looks, Scale, default_gates
from tombola.train.plain import PlainTrainer
from tombola.train.sparse import SparseTrainer
from tombola.train.watch import Watcher
from tombola.types import Params, Snapshot, Step, TrainFn

_GRADUAL: Final = (0.1, 0.7)
"""Where the ramp of gradual pruning begins and ends, as fractions of T: the rest is for the network to recover."""

_FREEZING: Final = (0.0, 0.9)
"""Where the freezing of scores begins and ends: from the start, and until there is a little left to learn."""

_ALLOCATIONS: Final[Mapping[str, str]] = MappingProxyType({"set": "erk", "rigl": "erk", "gem-miner": "global"})
"""The papers' division among the layers, where it belongs to the strategy."""

_WITHIN: Final = ("magnitude", "small-final", "random", "movement-pruning")
"""The criteria that gradual pruning takes: there is no more than weights and what training accumulates."""

_UPDATES: Final = 100
"""Mask updates in a training run of T iterations, as far as there are that many."""

_FROM_STEP_0: Final = ("reinit", "small-dense", "small-dense-flops")
"""The controls that train the whole budget from values of their own, whatever the ticket rewinds to."""

_LEAST: Final = 10
"""Iterations between two of them at least."""

_FIRST: Final = 0.2
"""Density below which adaptive looks whether tickets weaken."""

_STRIDES: Final = (5, 4, 3, 3)
_STRIDES_ALONE: Final = (5, 4, 3, 2)
"""Levels that the trunk of adaptive goes down at once, with training between two cuts and without."""

_BETWEEN: Final = 0.06
"""Length of what adaptive trains between two cuts of one round, as a fraction of T."""

_CONTINUED: Final = 0.1
"""Length of a round of continued, as a fraction of T."""

_LOOKS: Final = 20
"""Looks at the mask in a run of T iterations, where a round may end early."""

_SETTLED: Final = (3, 0.1)
"""Masks in a row that must agree, and the largest distance among them, 1 being that of two random ones."""

_NEAR: Final = 1.25
"""A gate may lie this factor beyond the outermost level, which is then taken for it."""


@final
@dataclass(frozen=True)
class Plan:
    """What is cut, where and how, and what it is compared with.

    Attributes:
        scope: what is pruned.
        pruner: how.
        levels: per level, name -> weights kept; level 0 is dense.
        gates: the levels at which the verdict is certified, dense to sparse.
        controls: name -> control, run at the gates.
        rounds: what is trained between two cuts, where it is not the tickets.
    """

    scope: Scope
    pruner: Pruner
    levels: tuple[Mapping[str, int], ...]
    gates: tuple[int, ...]
    controls: Mapping[str, Control]
    rounds: Rounds | None = None

    @property
    def cuts(self) -> int:
        """How many levels follow the dense one."""
        return len(self.levels) - 1

    @property
    def prunable(self) -> int:
        """How many weights there are to prune."""
        return sum(self.levels[0].values())

    @property
    def densities(self) -> tuple[float, ...]:
        """The density of each level, exactly as it will be."""
        return tuple(sum(counts.values()) / self.prunable for counts in self.levels)


@final
@dataclass(frozen=True)
class Work:
    """What one training iteration computes.

    Attributes:
        examples: how many are in it.
        macs: weight name -> multiply-adds per example, of all weights, prunable or not.
        uncounted: weights whose multiply-adds are not known.
    """

    examples: int
    macs: Mapping[str, int]
    uncounted: tuple[str, ...]


@final
@dataclass(frozen=True)
class Setup:
    """A search that is ready to run.

    Attributes:
        method: what was asked.
        title: what is searched, for a person.
        engine: what trains it, for a person.
        about: what records say of the network, the data and the engine, plain values.
        build: makes the network.
        families: the replicates, with their initial values.
        trainer: gives a training routine for as long as the search takes.
        iterations: T, of a dense run.
        plan: what is cut.
        score: what the runs are judged by.
        margin: how much of it may be lost.
        work: for counting operations; ``None`` where it is not known.
        tied: further name -> name of the parameter that it shares.
        alone: trains one network in whatever process; ``None`` where that cannot be.
        workers: processes.
        speed: why the early-stop iteration measures no speed, as far as is known beforehand.
        notes: what a reader of the result should know.
    """

    method: Method
    title: str
    engine: str
    about: Mapping[str, Any]
    build: Callable[[], nn.Module]
    families: tuple[Family, ...]
    trainer: Callable[[Watcher], AbstractContextManager[TrainFn]]
    iterations: Step
    plan: Plan
    score: Scale
    margin: float
    work: Work | None
    tied: Mapping[str, str]
    alone: PlainTrainer | SparseTrainer | None = None
    workers: int = 1
    speed: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def looks(self) -> Looks | None:
        """How many families are there at each look; ``None`` where all are run at once."""
        return Looks.default(len(self.families), self.method.alpha) if self.method.sequential else None

    @property
    def parameters(self) -> int:
        """All parameters of the network, prunable or not."""
        return sum(value.numel() for value in self.families[0].init.params.values())

    @property
    def course(self) -> Course:
        """Which levels are visited."""
        plan = self.plan
        if self.method.strategy == "adaptive":
            first = min(range(1, plan.cuts + 1), key=lambda level: abs(math.log(plan.densities[level] / _FIRST)))
            strides = _STRIDES_ALONE if plan.rounds is None else _STRIDES
            return Adaptive(plan.cuts, plan.gates, first, self.margin, strides)
        # Where the masks are made beside the tickets, those between the gates would be trained for nothing.
        between = plan.rounds is None or plan.rounds.between
        return Fixed(tuple(range(1, plan.cuts + 1)) if between else tuple(sorted({*plan.gates, plan.cuts})))

    def total_iterations(self) -> int:
        """Count the training iterations that the whole search takes, if no cut is given up and no round ends early."""
        plan, T = self.plan, self.iterations
        rewind, visited = plan.pruner.rewind, foreseen(self.course)
        ticket = (rewind.extra or T) if rewind.position == "end" else T - rewind.step
        fresh = sum(name in _FROM_STEP_0 for name in plan.controls)
        control = (len(plan.controls) - fresh) * ticket + fresh * T
        making = 0
        if plan.rounds is not None and not plan.pruner.each_from_dense:
            passed = visited[-1] - (len(visited) if plan.rounds.between else 1)
            making = passed * plan.rounds.iterations
        elif plan.pruner.during is not None and plan.pruner.during.rewinds:
            making = len(visited) * T
        family = self.method.dense_runs * T + len(visited) * ticket + making + len(plan.gates) * control
        return len(self.families) * family


def decide(
    method: Method,
    module: nn.Module,
    params: Params,
    iterations: Step,
    model: str,
    example: Tensor | None = None,
) -> Plan:
    """Decide what is cut, before anything is trained.

    Args:
        method: what was asked.
        module: the network.
        params: its parameters.
        iterations: T, of a dense run.
        model: the network's name, for the papers' pruning rates; any other text for a network of the user's own.
        example: one input of the network, ``[1, ...]``, where one is known; to find neurons and channels by.

    Raises:
        TombolaError: a name that is not known, nothing to prune, an impossible density, a layer that would be emptied.
    """
    known = _criterion(method.criterion)
    controls = _controls(method)
    multipliers = models.layer_multipliers(model, module)
    never = [name for name, multiplier in multipliers.items() if multiplier == 0]
    frozen = [name for name, value in module.named_parameters() if not value.requires_grad]
    scope = choose(params, models.kinds(module), preset=method.scope, exclude=[*never, *method.exclude], frozen=frozen)
    structure = named_structure(method.structure, lambda kind: models.groups(module, kind, example))
    pruner = _pruner(method, known, structure, _allocation(method, known.about, model, multipliers), iterations)
    levels = pruner.plan({name: tuple(params[name].shape) for name in scope.prunable}, method.levels)
    _check_falling(levels)
    rounds = _rounds(method, iterations)
    if rounds is not None and rounds.settle is not None and known.about.moved:
        raise InvalidValue(
            f"{method.criterion} needs what a whole run accumulates, and {method.strategy} looks at runs on the way. "
            "Use magnitude, or another strategy."
        )
    return Plan(scope, pruner, levels, _gates(method, levels), controls, rounds)


def _check_falling(levels: tuple[Mapping[str, int], ...]) -> None:
    kept = [sum(counts.values()) for counts in levels]
    for level in range(1, len(kept)):
        if kept[level] == kept[level - 1]:
            raise ImpossibleDensity(
                f"level {level} would keep as many weights as the level before it, {kept[level]:,}: so few are left "
                f"that a cut takes none. Stop there, with {level - 1} rounds, or prune more in a round."
            )


def check_own_values(build: Callable[[], nn.Module], module: nn.Module, first: Snapshot, second: Snapshot) -> None:
    """Refuse a factory that gives two families the same network, or the same values."""
    with torch.random.fork_rng(devices=()):
        again = build()
    if {id(p) for p in again.parameters()} & {id(p) for p in module.parameters()}:
        raise InvalidValue(
            "the model factory gives the same parameters every time. Let it build a network at each call."
        )
    if all(torch.equal(value, second.params[name]) for name, value in first.params.items()):
        raise InvalidValue(
            "the model factory gives the same initial values whatever the seed, and families are replicates because "
            "theirs differ. Let it draw from torch's global generator, and take torch.manual_seed out of it."
        )


def name_of(thing: object) -> str:
    """Name a function, a class or an object of one as ``module:name``, for records."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{getattr(named, '__module__', '?')}:{getattr(named, '__qualname__', '?')}"


def _rounds(method: Method, iterations: Step) -> Rounds | None:
    """Decide what is trained between two cuts, where it is not the tickets."""
    if method.strategy == "adaptive":
        return Rounds(max(1, round(_BETWEEN * iterations)), continued=True, between=True)
    beside = method.strategy in BESIDE
    if method.round_iterations is None and method.round_data is None and not beside:
        return None
    fraction = 1.0 if method.round_data is None else method.round_data
    whole = iterations - (rewind_step(method.rewind) or 0)
    continued = method.strategy == "continued"
    usual = max(1, round(_CONTINUED * iterations)) if continued else max(1, round(fraction * whole))
    wanted = usual if method.round_iterations is None else method.round_iterations
    if wanted > whole:
        raise InvalidValue(
            f"a round of {wanted:,} iterations is longer than a run, which has {whole:,}. Use at most as many."
        )
    settle = None
    if method.strategy in ("settled", "early-bird"):
        settle = Settle(max(1, iterations // _LOOKS), *_SETTLED)
    return Rounds(wanted, continued, fraction, settle)


def _criterion(named: str | Criterion | None) -> Known:
    """Find a criterion; of one that is not ours nobody knows what it looks at, so it is given everything."""
    if isinstance(named, str) and ":" not in named:
        if named not in CRITERIA:
            raise UnknownName.among("criterion", named, CRITERIA, "Your own is 'package.module:function'.")
        return CRITERIA[named]
    found = models.importable(named, "criterion") if isinstance(named, str) else named
    if not callable(found):
        raise InvalidValue(f"{named!r} is a {type(found).__name__}, and a criterion is a function.")
    return Known(cast(Criterion, found), About("your own", name_of(found), looks=True))


def _controls(method: Method) -> dict[str, Control]:
    if method.strategy == "one-shot" and "one-shot" in method.controls:
        raise InvalidValue("with --strategy one-shot the control one-shot is the ticket itself. Leave it out.")
    return {name: named_control(name) for name in method.controls}


def _allocation(method: Method, about: About, model: str, multipliers: Mapping[str, Fraction]) -> Allocation:
    """Find what divides a level's total: as asked, or the strategy's, the criterion's, the network's."""
    entry = models.registry().get(model)
    if method.allocation is not None and ":" in method.allocation:
        found = models.importable(method.allocation, "allocation")
        found = found() if isinstance(found, type) or not hasattr(found, "plan") else found
        if not hasattr(found, "plan") or not hasattr(found, "place"):
            raise InvalidValue(
                f"{method.allocation!r} leads to a {type(found).__name__}, and an allocation has the methods plan and "
                "place; see tombola.testing.check_allocation."
            )
        return cast(Allocation, found)
    usual = "global" if entry and entry.global_ranking else "layer-rates"
    name = method.allocation or _ALLOCATIONS.get(method.strategy) or about.allocation or usual
    if name not in ALLOCATIONS:
        raise UnknownName.among("allocation", name, ALLOCATIONS, "Your own is 'package.module:name'.")
    return ALLOCATIONS[name](multipliers)


def _pruner(
    method: Method, known: Known, structure: Structure | None, allocation: Allocation, iterations: Step
) -> Pruner:
    """Put together how subnetworks are found."""
    schedule: Schedule
    if method.densities is not None:
        schedule = at_densities(method.densities)
    elif method.density is not None:
        schedule = geometric(method.density, method.levels)
    else:
        schedule = ladder(exact(method.rate or DEFAULT_RATE))
    rewind = _rewind(method, iterations)
    return Pruner(
        criterion=known.score,
        allocation=allocation,
        schedule=schedule,
        rewind=rewind,
        from_dense=method.strategy in ("one-shot", "one-shot-finetune", "early-bird"),
        at_init=method.strategy in ("at-init", "transfer"),
        during=_during(method, known, allocation, iterations),
        structure=structure,
        compensate=None if rewind.keeps_start_values else known.compensate,
        recalibrate=method.recalibrate,
        looks=known.about.looks,
        moved=known.about.moved,
        min_keep=method.min_keep,
    )


def _during(method: Method, known: Known, allocation: Allocation, iterations: Step) -> During | None:
    if not STRATEGIES[method.strategy].grows and method.strategy not in MOVING:
        return None
    every = max(_LEAST, iterations // _UPDATES)
    if STRATEGIES[method.strategy].criterion == "random":
        changes = rigl(iterations, every=every)
        updates: Updates = changes if method.strategy == "rigl" else SET(changes.end, every)
        return During(lambda _: updates, starts_dense=False)
    if isinstance(method.criterion, str) and method.criterion not in _WITHIN and ":" not in method.criterion:
        raise InvalidValue(
            f"{method.strategy} prunes within training, where {method.criterion} has nothing to look at. Known there: "
            f"{', '.join(_WITHIN)}, or your own (which gets the weights and masks)."
        )
    gem = method.strategy == "gem-miner"
    begin, end = (round(fraction * iterations) for fraction in (_FREEZING if gem else _GRADUAL))

    def ramp(final: Counts) -> Updates:
        return Gradual(
            final=tuple(final.items()),
            allocation=allocation,
            criterion=known.score,
            begin=begin,
            end=end,
            every=every,
            min_keep=method.min_keep,
            geometric=gem,
        )

    scores = GemMiner() if gem else None
    return During(ramp, starts_dense=True, rewinds=method.strategy in MOVING, scores=scores)


def _rewind(method: Method, iterations: Step) -> Rewind:
    step = rewind_step(method.rewind)
    if method.strategy in FINE_TUNING:
        return fine_tune(method.extra)
    if method.rewind == "lr" or method.strategy == "lr-rewind":
        return rewind_learning_rate()
    if step is None or step == 0:
        return rewind_to_init()
    if step >= iterations:
        raise InvalidValue(f"cannot rewind to step {step}: a run has {iterations} iterations, so K is below that.")
    return rewind_to_step(step)


def _gates(method: Method, planned: tuple[Mapping[str, int], ...]) -> tuple[int, ...]:
    total = sum(planned[0].values())
    densities = [sum(counts.values()) / total for counts in planned]
    if method.gates is None:
        wanted = default_gates(densities[1:])
    else:
        wanted = tuple(_nearest(gate, densities[1:]) for gate in method.gates)
    return tuple(sorted({densities.index(density, 1) for density in wanted}))


def _nearest(gate: float, densities: list[float]) -> float:
    """Give the level nearest to a gate on a logarithmic scale."""
    if not min(densities) / _NEAR <= gate <= max(densities) * _NEAR:
        raise InvalidValue(
            f"the gate {gate:g} lies outside the levels, which run from {max(densities):.4g} to {min(densities):.4g}. "
            "Take another gate, or more --rounds."
        )
    return min(densities, key=lambda density: abs(math.log(density / gate)))
