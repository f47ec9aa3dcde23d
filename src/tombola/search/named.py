"""From names to a search: a network and data known by name or path, trained by our own trainer."""

import os
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from tombola import models
from tombola.data import Dataset, load
from tombola.errors import InvalidValue, UnknownName
from tombola.search.levels import Family
from tombola.search.looking import over
from tombola.search.rounds import cautions
from tombola.search.settings import Settings
from tombola.search.setup import Setup, Work, check_own_values, decide
from tombola.stats import ACCURACY
from tombola.train.engines import Engine, alone, pick, trainer
from tombola.train.order import BatchOrder
from tombola.train.presets import default_model, preset
from tombola.train.recipe import Recipe
from tombola.train.source import OwnNetwork, Splits
from tombola.types import Seed


def prepare(settings: Settings, splits: Splits | None = None) -> Setup:
    """Decide everything that can be decided before training.

    Args:
        settings: what is asked.
        splits: of the same data, where several searches share them.

    Raises:
        TombolaError: a name that is not known, data that are not here or too few, a model with nothing to prune, an
            impossible density, a layer that would be emptied: everything that can be known now is refused now.
    """
    check_device(settings.device)
    splits = splits or Splits(partial(load, settings.data))
    dataset = splits.dataset
    model = settings.model or default_model(dataset.name)
    build = builder(model, dataset)
    recipe = _recipe(settings, model, dataset.name)
    BatchOrder(len(splits(Seed(settings.seed)).train_y), recipe.batch_size, Seed(settings.seed))
    draw = partial(models.initial, build)
    init, other = draw(Seed(settings.seed)), draw(Seed(settings.seed, 1))
    with torch.random.fork_rng(devices=()):
        module = build()
    plan = decide(settings, module, init.params, recipe.iterations, model, dataset.train_x[:1])
    if settings.strategy == "adaptive" and recipe.schedule != "constant":
        # At the rate that a falling schedule ends with, nothing would be learned between two cuts.
        plan = replace(plan, rounds=None)
    _check_logits(module, dataset)
    check_own_values(build, module, init, other)
    macs, uncounted = models.macs(module, dataset.input_shape)
    engine = pick(
        settings.engine,
        module,
        dataset.train_x[0],
        settings.device,
        dynamic=plan.pruner.during is not None,
        moved=plan.pruner.moved,
        augmented=recipe.augmented,
    )
    workers = settings.workers or _default_workers(settings.device)
    speed = None
    if not recipe.argmin_is_informative:
        speed = (
            f"under the {recipe.schedule} schedule the minimum of validation loss lies where the learning rate "
            "falls, so its iteration measures no speed"
        )
    seeds = [Seed(settings.seed, replicate) for replicate in range(settings.replicates)]
    return Setup(
        method=settings,
        title=f"{model} on {dataset.name}",
        engine=_told(engine, settings, workers),
        about={**_about(settings, dataset, model, recipe, engine), "network": models.identity(model, module)},
        build=build,
        families=tuple(Family(seed, draw(seed), draw, over(build, splits, seed, recipe.loss)) for seed in seeds),
        trainer=partial(trainer, engine.name, build, splits, recipe, settings.device, workers),
        alone=alone(engine.name, build, splits, recipe, settings.device),
        workers=workers,
        iterations=recipe.iterations,
        plan=plan,
        score=ACCURACY,
        margin=dataset.margin if settings.margin is None else settings.margin,
        work=Work(recipe.batch_size, macs, uncounted),
        tied=models.tied_names(module),
        speed=speed,
        notes=cautions(plan.rounds, recipe.iterations, plan.densities[-1]),
    )


def _told(engine: Engine, settings: Settings, workers: int) -> str:
    if engine.name == "replicas":
        processes = ", in one process whatever the number of workers" if settings.workers else ""
    else:
        processes = f", {workers} {'worker' if workers == 1 else 'workers'}"
    why = f" ({engine.why})" if engine.why else ""
    return f"engine {engine.name} on {settings.device}{processes}{why}"


def _about(settings: Settings, dataset: Dataset, model: str, recipe: Recipe, engine: Engine) -> Mapping[str, Any]:
    return {
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "model": model,
        "input_shape": list(dataset.input_shape),
        "classes": dataset.classes,
        "engine": engine.name,
        "kernels": engine.kernels,
        "device": settings.device,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "recipe": dict(recipe.as_json()),
        "recipe_digest": recipe.digest,
    }


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
        raise InvalidValue(f"training runs on cpu and cuda, not on {device!r}.")
    if kind.type == "cuda" and (not torch.cuda.is_available() or (kind.index or 0) >= torch.cuda.device_count()):
        raise InvalidValue(
            f"there is no {device!r} here: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices. "
            "Use --device cpu, or install a CUDA build of torch."
        )


def builder(model: str, dataset: Dataset) -> Callable[[], nn.Module]:
    """Give what builds a network for a data set, by name or dotted path; it can be sent to another process.

    What it gives for a dotted path raises :class:`~tombola.errors.SourceChanged` in another process whose code is not
    that of this one.

    Raises:
        InvalidValue: a dotted path that leads nowhere.
    """
    if ":" in model:
        factory = models.from_path(model)
        return OwnNetwork(model, partial(models.call_factory, factory, dataset.input_shape, dataset.classes))
    return partial(models.build, model, dataset.input_shape, dataset.classes)


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


def _default_workers(device: str) -> int:
    if not device.startswith("cpu"):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
