"""Everything a search runs on, decided before the first iteration."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, cast, final

import torch
from torch import nn

from tombola import models
from tombola.errors import ImpossibleDensity, InvalidValue, UnknownName
from tombola.prune.allocation import ALLOCATIONS
from tombola.prune.controls import Control
from tombola.prune.controls import named as named_control
from tombola.prune.counting import exact
from tombola.prune.criteria import CRITERIA
from tombola.prune.evidence import Criterion
from tombola.prune.pruner import Pruner, imp, one_shot, train_prune_finetune
from tombola.prune.rewinding import Rewind, rewind_learning_rate, rewind_to_init, rewind_to_step
from tombola.prune.schedules import Schedule, geometric, ladder
from tombola.prune.scope import Scope, choose
from tombola.search.levels import Family
from tombola.search.settings import DEFAULT_RATE, Method, rewind_step
from tombola.stats import Scale, default_gates
from tombola.train.plain import PlainTrainer
from tombola.train.sparse import SparseTrainer
from tombola.train.watch import Watcher
from tombola.types import Params, Snapshot, Step, TrainFn

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
    """

    scope: Scope
    pruner: Pruner
    levels: tuple[Mapping[str, int], ...]
    gates: tuple[int, ...]
    controls: Mapping[str, Control]

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
    def parameters(self) -> int:
        """All parameters of the network, prunable or not."""
        return sum(value.numel() for value in self.families[0].init.params.values())

    def total_iterations(self) -> int:
        """Count the training iterations that the whole search takes."""
        rewind, T = self.plan.pruner.rewind, self.iterations
        ticket = T if rewind.position == "end" else T - rewind.step
        fresh = sum(name == "reinit" for name in self.plan.controls)
        control = (len(self.plan.controls) - fresh) * ticket + fresh * T
        family = self.method.dense_runs * T + self.plan.cuts * ticket + len(self.plan.gates) * control
        return len(self.families) * family


def decide(method: Method, module: nn.Module, params: Params, iterations: Step, model: str) -> Plan:
    """Decide what is cut, before anything is trained.

    Args:
        method: what was asked.
        module: the network.
        params: its parameters.
        iterations: T, of a dense run.
        model: the network's name, for the papers' pruning rates; any other text for a network of the user's own.

    Raises:
        TombolaError: a name that is not known, nothing to prune, an impossible density, a layer that would be emptied.
    """
    criterion = _criterion(method.criterion)
    controls = _controls(method)
    multipliers = models.layer_multipliers(model, module)
    never = [name for name, multiplier in multipliers.items() if multiplier == 0]
    frozen = [name for name, value in module.named_parameters() if not value.requires_grad]
    scope = choose(params, models.kinds(module), preset=method.scope, exclude=[*never, *method.exclude], frozen=frozen)
    pruner = _pruner(method, criterion, model, multipliers, iterations)
    levels = pruner.plan({name: tuple(params[name].shape) for name in scope.prunable}, method.levels)
    _check_falling(levels)
    return Plan(scope, pruner, levels, _gates(method, levels), controls)


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


def _criterion(name: str | Criterion) -> Criterion:
    if not isinstance(name, str):
        return name
    if ":" not in name:
        if name not in CRITERIA:
            raise UnknownName.among("criterion", name, CRITERIA, "Your own is 'package.module:function'.")
        return CRITERIA[name].score
    found = models.importable(name, "criterion")
    if not callable(found):
        raise InvalidValue(f"{name!r} is a {type(found).__name__}, and a criterion is a function.")
    return cast(Criterion, found)


def _controls(method: Method) -> dict[str, Control]:
    if method.strategy == "one-shot" and "one-shot" in method.controls:
        raise InvalidValue("with --strategy one-shot the control one-shot is the ticket itself. Leave it out.")
    return {name: named_control(name) for name in method.controls}


def _pruner(
    method: Method, criterion: Criterion, model: str, multipliers: Mapping[str, Fraction], iterations: Step
) -> Pruner:
    entry = models.registry().get(model)
    name = method.allocation or ("global" if entry and entry.global_ranking else "layer-rates")
    if name not in ALLOCATIONS:
        raise UnknownName.among("allocation", name, ALLOCATIONS)
    allocation = ALLOCATIONS[name](multipliers)
    schedule: Schedule
    if method.density is not None:
        schedule = geometric(method.density, method.levels)
    else:
        schedule = ladder(exact(method.rate or DEFAULT_RATE))
    if method.strategy == "finetune":
        pruner = train_prune_finetune(criterion=criterion, allocation=allocation, schedule=schedule)
    else:
        alias = imp if method.strategy == "imp" else one_shot
        rewind = _rewind(method, iterations)
        pruner = alias(criterion=criterion, allocation=allocation, schedule=schedule, rewind=rewind)
    return replace(pruner, min_keep=method.min_keep)


def _rewind(method: Method, iterations: Step) -> Rewind:
    step = rewind_step(method.rewind)
    if method.rewind == "lr":
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
