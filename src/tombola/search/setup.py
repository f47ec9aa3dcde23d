"""From settings to networks, data, a recipe and a pruner."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import partial
from typing import Any, Final, cast, final

import torch
from torch import nn

from tombola import models
from tombola.data import Dataset, load
from tombola.errors import InvalidValue, UnknownName
from tombola.prune.allocation import ALLOCATIONS
from tombola.prune.controls import CONTROLS, Control
from tombola.prune.counting import exact
from tombola.prune.criteria import CRITERIA
from tombola.prune.evidence import Criterion
from tombola.prune.pruner import Pruner, imp, one_shot, train_prune_finetune
from tombola.prune.rewinding import Rewind, rewind_learning_rate, rewind_to_init, rewind_to_step
from tombola.prune.schedules import Schedule, geometric, ladder
from tombola.prune.scope import Scope, choose
from tombola.search.levels import Family
from tombola.search.settings import DEFAULT_RATE, Settings, rewind_step
from tombola.stats import default_gates
from tombola.train.order import BatchOrder
from tombola.train.presets import preset
from tombola.train.recipe import Recipe
from tombola.train.source import Splits
from tombola.types import Seed, Snapshot

_NEAR: Final = 1.25
"""A gate may lie this factor beyond the outermost level, which is then taken for it."""


@final
@dataclass(frozen=True)
class Setup:
    """Everything a search runs on, decided before the first iteration.

    Attributes:
        settings: what was asked.
        model: the network's name or dotted path.
        build: makes the network.
        splits: the data.
        recipe: how one network is trained.
        scope: what is pruned.
        pruner: how.
        planned: per level, name -> weights kept; level 0 is dense.
        gates: the levels at which the verdict is certified, dense to sparse.
        controls: name -> control.
        margin: accuracy that may be lost.
        macs: weight name -> multiply-adds per example, of all weights, prunable or not.
        uncounted: weights whose multiply-adds are not known.
        parameters: all parameters of the network, prunable or not.
        tied: further name -> name of the parameter that it shares.
        workers: processes.
    """

    settings: Settings
    model: str
    build: partial[nn.Module]
    splits: Splits
    recipe: Recipe
    scope: Scope
    pruner: Pruner
    planned: tuple[Mapping[str, int], ...]
    gates: tuple[int, ...]
    controls: Mapping[str, Control]
    margin: float
    macs: Mapping[str, int]
    uncounted: tuple[str, ...]
    parameters: int
    tied: Mapping[str, str]
    workers: int

    @property
    def dataset(self) -> Dataset:
        """The data set."""
        return self.splits.dataset

    @property
    def densities(self) -> tuple[float, ...]:
        """The density of each level, exactly as it will be."""
        total = sum(self.planned[0].values())
        return tuple(sum(counts.values()) / total for counts in self.planned)

    def families(self) -> list[Family]:
        """Draw the replicates' initial values."""
        draw = partial(models.initial, self.build)
        seeds = [Seed(self.settings.seed, replicate) for replicate in range(self.settings.replicates)]
        return [Family(seed, draw(seed), draw) for seed in seeds]

    def total_iterations(self) -> int:
        """Count the training iterations that the whole search takes."""
        rewind, T = self.pruner.rewind, self.recipe.iterations
        ticket = T if rewind.position == "end" else T - rewind.step
        levels = len(self.planned) - 1
        fresh = sum(name == "reinit" for name in self.controls)
        control = (len(self.controls) - fresh) * ticket + fresh * T
        family = self.settings.dense_runs * T + levels * ticket + len(self.gates) * control
        return self.settings.replicates * family


def prepare(settings: Settings) -> Setup:
    """Decide everything that can be decided before training.

    Raises:
        TombolaError: a name that is not known, data that are not here or too few, a model with nothing to prune, an
            impossible density, a layer that would be emptied: everything that can be known now is refused now.
    """
    check_device(settings.device)
    criterion = _criterion(settings.criterion)
    controls = _controls(settings)
    splits = Splits(partial(load, settings.data))
    dataset = splits.dataset
    model = settings.model or ("conv-2" if dataset.name == "cifar-10" else "lenet-300-100")
    build = builder(model, dataset)
    recipe = _recipe(settings, model, dataset.name)
    seed = Seed(settings.seed)
    BatchOrder(len(splits(seed).train_y), recipe.batch_size, seed)
    init = models.initial(build, seed)
    with torch.random.fork_rng(devices=()):
        module = build()
    multipliers = models.layer_multipliers(model, module)
    never = [name for name, multiplier in multipliers.items() if multiplier == 0]
    scope = choose(init.params, models.kinds(module), exclude=never)
    pruner = _pruner(settings, criterion, model, multipliers, recipe)
    planned = pruner.plan({name: tuple(init.params[name].shape) for name in scope.prunable}, settings.levels)
    _check_logits(module, dataset)
    _check_own_values(build, init, module, seed)
    macs, uncounted = models.macs(module, dataset.input_shape)
    return Setup(
        settings=settings,
        model=model,
        build=build,
        splits=splits,
        recipe=recipe,
        scope=scope,
        pruner=pruner,
        planned=planned,
        gates=_gates(settings, planned),
        controls=controls,
        margin=dataset.margin if settings.margin is None else settings.margin,
        macs=macs,
        uncounted=uncounted,
        parameters=sum(value.numel() for value in init.params.values()),
        tied=models.tied_names(module),
        workers=settings.workers or _default_workers(settings.device),
    )


def check_device(device: str) -> None:
    """Raise unless the device is here.

    Raises:
        InvalidValue: it is no CPU or CUDA device, or not on this machine.
    """
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise InvalidValue(f"{device!r} is no device. Known: cpu, cuda, cuda:N.") from None
    if kind.type not in ("cpu", "cuda"):
        raise InvalidValue(f"the plain engine runs on cpu and cuda, not on {device!r}.")
    if kind.type == "cuda" and (not torch.cuda.is_available() or (kind.index or 0) >= torch.cuda.device_count()):
        raise InvalidValue(
            f"there is no {device!r} here: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices. "
            "Use --device cpu, or install a CUDA build of torch."
        )


def _criterion(name: str) -> Criterion:
    if ":" not in name:
        if name not in CRITERIA:
            raise UnknownName.among("criterion", name, CRITERIA, "Your own is 'package.module:function'.")
        return CRITERIA[name]
    found = models.importable(name, "criterion")
    if not callable(found):
        raise InvalidValue(f"{name!r} is a {type(found).__name__}, and a criterion is a function.")
    return cast(Criterion, found)


def _controls(settings: Settings) -> dict[str, Control]:
    for name in settings.controls:
        if name not in CONTROLS:
            raise UnknownName.among("control", name, CONTROLS, "For no controls: --controls none.")
    if settings.strategy == "one-shot" and "one-shot" in settings.controls:
        raise InvalidValue("with --strategy one-shot the control one-shot is the ticket itself. Leave it out.")
    return {name: CONTROLS[name] for name in settings.controls}


def builder(model: str, dataset: Dataset) -> partial[nn.Module]:
    """Give what builds a network for a data set, by name or dotted path; it can be sent to another process.

    Raises:
        InvalidValue: a dotted path that leads nowhere.
    """
    if ":" in model:
        return partial(models.call_factory, models.from_path(model), dataset.input_shape, dataset.classes)
    return partial(models.build, model, dataset.input_shape, dataset.classes)


def _check_own_values(build: partial[nn.Module], init: Snapshot, module: nn.Module, seed: Seed) -> None:
    """Refuse a factory that gives two families the same network, or the same values."""
    with torch.random.fork_rng(devices=()):
        again = build()
    if {id(p) for p in again.parameters()} & {id(p) for p in module.parameters()}:
        raise InvalidValue(
            "the model factory gives the same parameters every time. Let it build a network at each call."
        )
    other = models.initial(build, replace(seed, replicate=1))
    if all(torch.equal(value, other.params[name]) for name, value in init.params.items()):
        raise InvalidValue(
            "the model factory gives the same initial values whatever the seed, and families are replicates because "
            "theirs differ. Let it draw from torch's global generator, and take torch.manual_seed out of it."
        )


def _check_logits(module: nn.Module, dataset: Dataset) -> None:
    """Refuse a network that cannot be trained on these data: one pass of two examples."""
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            logits = module(dataset.train_x[:2].to(next(module.parameters()).device))
    except Exception as error:
        raise InvalidValue(
            f"the network does not take examples of shape {dataset.input_shape}: {type(error).__name__}: {error}. "
            "Its forward gets a float32 batch of them."
        ) from error
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (2, dataset.classes):
        raise InvalidValue(
            f"the network makes {shape} of two examples, expected logits of shape {(2, dataset.classes)}: one for each "
            f"class of {dataset.name!r}."
        )


def _recipe(settings: Settings, model: str, data: str) -> Recipe:
    changes: dict[str, Any] = dict(settings.recipe or {})
    known = {field.name for field in fields(Recipe)}
    for name in changes:
        if name not in known:
            raise UnknownName.among("recipe field", name, known)
    return preset(model, data).recipe(**changes)


def _pruner(
    settings: Settings, criterion: Criterion, model: str, multipliers: Mapping[str, Fraction], recipe: Recipe
) -> Pruner:
    entry = models.registry().get(model)
    name = settings.allocation or ("global" if entry and entry.global_ranking else "layer-rates")
    if name not in ALLOCATIONS:
        raise UnknownName.among("allocation", name, ALLOCATIONS)
    allocation = ALLOCATIONS[name](multipliers)
    schedule: Schedule
    if settings.density is not None:
        schedule = geometric(settings.density, settings.levels)
    else:
        schedule = ladder(exact(settings.rate or DEFAULT_RATE))
    if settings.strategy == "finetune":
        pruner = train_prune_finetune(criterion=criterion, allocation=allocation, schedule=schedule)
    else:
        alias = imp if settings.strategy == "imp" else one_shot
        rewind = _rewind(settings, recipe)
        pruner = alias(criterion=criterion, allocation=allocation, schedule=schedule, rewind=rewind)
    return replace(pruner, min_keep=settings.min_keep)


def _rewind(settings: Settings, recipe: Recipe) -> Rewind:
    step = rewind_step(settings.rewind)
    if settings.rewind == "lr":
        return rewind_learning_rate()
    if step is None or step == 0:
        return rewind_to_init()
    if step >= recipe.iterations:
        raise InvalidValue(
            f"cannot rewind to step {step}: a run has {recipe.iterations} iterations, so K is below that."
        )
    return rewind_to_step(step)


def _gates(settings: Settings, planned: tuple[Mapping[str, int], ...]) -> tuple[int, ...]:
    total = sum(planned[0].values())
    densities = [sum(counts.values()) / total for counts in planned]
    if settings.gates is None:
        wanted = default_gates(densities[1:])
    else:
        wanted = tuple(_nearest(gate, densities[1:]) for gate in settings.gates)
    return tuple(sorted({densities.index(density, 1) for density in wanted}))


def _nearest(gate: float, densities: list[float]) -> float:
    """Give the level nearest to a gate on a logarithmic scale."""
    if not min(densities) / _NEAR <= gate <= max(densities) * _NEAR:
        raise InvalidValue(
            f"the gate {gate:g} lies outside the levels, which run from {max(densities):.4g} to {min(densities):.4g}. "
            "Take another gate, or more --rounds."
        )
    return min(densities, key=lambda density: abs(math.log(density / gate)))


def _default_workers(device: str) -> int:
    if not device.startswith("cpu"):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
