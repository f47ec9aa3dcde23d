"""The other engines do what the plain loop does: the same losses at first, the same bits twice, the same ends.

``benchmarks/agreement.py`` shows at length what is shown here in small: the first 50 iterations, the drift after them,
and the accuracies of whole searches.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from statistics import median
from typing import Any

import pytest
import torch
from torch import nn
from train_kit import CLASSES, DATA, FEATURES, Build, mlp, random_masks, recipe, same_run, splits

from tombola import models
from tombola.data import Split
from tombola.sparse.kernels.library import available
from tombola.train.plain import PlainTrainer
from tombola.train.pool import Pool
from tombola.train.recipe import Recipe
from tombola.train.replicas import ReplicaTrainer
from tombola.train.sparse import SparseTrainer
from tombola.types import RunResult, Seed, TrainJob, TrainOutcome

TRAINERS = {"plain": PlainTrainer, "sparse": SparseTrainer, "replicas": ReplicaTrainer}
needs_kernels = pytest.mark.skipif(not available(), reason="the compiled kernels are not here")
SPARSE = pytest.param("sparse", marks=needs_kernels)
OTHERS = (SPARSE, "replicas")
SEEDS = 10

SGD = {"optimizer": "sgd", "lr": 0.1}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": SGD,
    "momentum": {**SGD, "momentum": 0.9},
    "nesterov": {**SGD, "momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {},
    "cosine": {"schedule": "cosine"},
    "step": {"schedule": "step", "milestones": (20, 35), "gamma": 0.3},
    "warmup": {"warmup": 15},
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky relu": partial(nn.LeakyReLU, 0.2),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "dropout": lambda: nn.Sequential(nn.ReLU(), nn.Dropout(0.3)),
}


def chain(activation: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 19), activation(), nn.Linear(19, 9), activation(), nn.Linear(9, CLASSES))


@pytest.mark.parametrize("engine", OTHERS)
def test_on_a_share_of_the_examples_the_engines_see_the_same_ones(engine: str) -> None:
    """Another share trains another network, so that equal ends are equal batches."""
    how = recipe(**OPTIMIZERS["momentum"], iterations=40)
    jobs = [replace(job, fraction=0.5) for job in family(mlp, 40)[:4]]
    first, second = (TRAINERS[one](mlp, splits, how)(jobs) for one in ("plain", engine))
    whole = PlainTrainer(mlp, splits, how)([replace(job, fraction=1.0) for job in jobs])
    for one, other, all_of_them in zip(first, second, whole, strict=True):
        for name, value in one.end.params.items():
            assert torch.allclose(value, other.end.params[name], atol=1e-5)
            assert not torch.allclose(value, all_of_them.end.params[name], atol=1e-3)


def family(build: Build, stop: int, **changes: Any) -> list[TrainJob]:
    """Ten seeds: five dense networks and five tickets."""
    jobs = []
    for number in range(SEEDS):
        start = models.initial(build, Seed(number))
        masks = random_masks(start) if number % 2 else {}
        jobs.append(TrainJob(start, masks, Seed(number), stop, **changes))
    return jobs


# --- the same losses at first

CELLS = [
    # Every one of each at least twice; all combinations are in the benchmark.
    tuple(list(kinds)[number % len(kinds)] for kinds in (OPTIMIZERS, ACTIVATIONS, SCHEDULES))
    for number in range(12)
]


def first_fifty(optimizer: str, schedule: str) -> Recipe:
    return recipe(iterations=50, eval_every=1, weight_decay=1e-2, **{**OPTIMIZERS[optimizer], **SCHEDULES[schedule]})


@cache
def plain_runs(optimizer: str, activation: str, schedule: str) -> list[TrainOutcome]:
    build = partial(chain, ACTIVATIONS[activation])
    return PlainTrainer(build, splits, first_fifty(optimizer, schedule))(family(build, 50))


@pytest.mark.parametrize(("optimizer", "activation", "schedule"), CELLS)
@pytest.mark.parametrize("engine", OTHERS)
def test_losses_agree_to_1e5_over_the_first_fifty_iterations(
    engine: str, optimizer: str, activation: str, schedule: str
) -> None:
    """The median over ten seeds of a run's largest relative difference, evaluated after every iteration."""
    if engine == "replicas" and activation == "dropout":
        pytest.skip("dropout is not stacked")
    build, how = partial(chain, ACTIVATIONS[activation]), first_fifty(optimizer, schedule)
    apart = []
    for ours, theirs in zip(
        TRAINERS[engine](build, splits, how)(family(build, 50)),
        plain_runs(optimizer, activation, schedule),
        strict=True,
    ):
        assert ours.curve.steps == theirs.curve.steps == tuple(range(1, 51))
        apart.append(max(abs(a - b) / b for a, b in zip(ours.curve.loss, theirs.curve.loss, strict=True)))
    assert median(apart) <= 1e-5


# --- no faster apart than single from double precision


def doubled(build: Build) -> nn.Module:
    return build().double()


def doubled_split(seed: Seed) -> Split:
    one = splits(seed)
    return replace(one, train_x=one.train_x.double(), val_x=one.val_x.double(), test_x=one.test_x.double())


def distance(ours: TrainOutcome, theirs: TrainOutcome, at: int) -> float:
    a, b = (torch.cat([value.double().flatten() for value in run.saved[at].params.values()]) for run in (ours, theirs))
    return float((a - b).norm() / b.norm())


@cache
def in_both_precisions(how: Recipe) -> tuple[list[TrainOutcome], list[TrainOutcome]]:
    jobs = family(mlp, how.iterations, save_at=(50, 150))
    return PlainTrainer(mlp, splits, how)(jobs), PlainTrainer(partial(doubled, mlp), doubled_split, how)(jobs)


@pytest.mark.parametrize("engine", OTHERS)
def test_weights_drift_apart_as_those_of_single_and_double_precision_do(engine: str) -> None:
    """Medians over ten seeds; a factor of two is one bit, and the runs are few and short."""
    how = recipe(iterations=150, eval_every=150)
    plain, double = in_both_precisions(how)
    ours = TRAINERS[engine](mlp, splits, how)(family(mlp, 150, save_at=(50, 150)))
    assert all(value.dtype == torch.float64 for run in double for value in run.end.params.values())
    for at in (50, 150):
        rounding = median(distance(a, b, at) for a, b in zip(plain, double, strict=True))
        assert 0 < rounding < 1e-3
        assert median(distance(a, b, at) for a, b in zip(ours, plain, strict=True)) <= 2 * rounding


# --- the same bits twice


@pytest.mark.parametrize("engine", ["plain", *OTHERS])
def test_the_same_seed_gives_the_same_bits_twice(engine: str) -> None:
    for optimizer in OPTIMIZERS:
        how = recipe(weight_decay=1e-2, **OPTIMIZERS[optimizer])
        first, second = (TRAINERS[engine](mlp, splits, how)(family(mlp, 30, save_at=(7,))[:4]) for _ in range(2))
        assert all(same_run(one, other) for one, other in zip(first, second, strict=True))


@needs_kernels
def test_two_workers_give_the_bits_of_one_in_the_sparse_engine() -> None:
    """The plain trainer's are in test_pool; a stack of replicas is one process."""
    how = recipe(weight_decay=1e-2)
    jobs = family(mlp, 30, save_at=(7,))
    train = SparseTrainer(mlp, splits, how)
    alone = train(jobs)
    for workers in (1, 2):
        with Pool(train, workers) as pool:
            together = pool(jobs)
        assert all(same_run(one, other) for one, other in zip(together, alone, strict=True))


# --- the same ends


def same_end(engine: str, build: Build, of: Callable[[Seed], Split], how: Recipe, jobs: list[TrainJob]) -> RunResult:
    """Compare how runs end, and at which evaluation; give how the first did."""
    ours, theirs = TRAINERS[engine](build, of, how)(jobs), PlainTrainer(build, of, how)(jobs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.result, one.iterations, one.curve.steps) == (other.result, other.iterations, other.curve.steps)
        if other.result is RunResult.DIVERGED:
            assert not math.isfinite(one.curve.loss[-1])
            assert (one.early_stop_iteration, one.test_accuracy, one.test_accuracy_at_early_stop) == (None, None, None)
    return theirs[0].result


@pytest.mark.parametrize("rate", [1e2, 1e4, 1e8, 1e30, 3e38])
@pytest.mark.parametrize("activation", ["relu", "leaky relu", "gelu"])
@pytest.mark.parametrize("engine", OTHERS)
def test_a_rate_that_explodes_is_noticed_at_the_same_evaluation(engine: str, activation: str, rate: float) -> None:
    build = partial(chain, ACTIVATIONS[activation])
    start = models.initial(build, Seed(0))
    dense = TrainJob(start, {}, Seed(0), 30)
    for changes in ({}, {"momentum": 0.9}):
        how = recipe(eval_every=1, optimizer="sgd", lr=rate, **changes)
        ended = same_end(engine, build, splits, how, [dense, replace(dense, masks=random_masks(start))])
        assert rate < 1e4 or ended is RunResult.DIVERGED


NOT_FINITE = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("part", ["train_x", "val_x"])
@pytest.mark.parametrize("engine", OTHERS)
def test_what_is_not_finite_in_the_data_is_noticed_at_the_same_evaluation(engine: str, part: str, value: float) -> None:
    """Of a pruned network too, as long as the feature is used."""
    broken = getattr(DATA, part).clone()
    broken[3, 2] = value
    split = replace(DATA, **{part: broken})
    start = models.initial(mlp, Seed(0))
    masks = random_masks(start)
    assert bool(masks["0.weight"][:, 2].any())
    job = TrainJob(start, {}, Seed(0), 20)
    same_end(engine, mlp, lambda _: split, recipe(eval_every=1), [job, replace(job, masks=masks)])


def test_what_is_not_finite_in_the_test_data_is_no_divergence() -> None:
    broken = DATA.test_x.clone()
    broken[3, 2] = math.nan
    job = TrainJob(models.initial(mlp, Seed(0)), {}, Seed(0), 20)
    for engine in TRAINERS if available() else ("plain", "replicas"):
        (run,) = TRAINERS[engine](mlp, lambda _: replace(DATA, test_x=broken), recipe(eval_every=10))([job])
        assert run.result is RunResult.FINISHED


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "2.weight", "4.weight", "4.bias"])
@pytest.mark.parametrize("engine", OTHERS)
def test_a_start_value_that_is_not_finite_is_noticed_at_the_same_evaluation(engine: str, name: str) -> None:
    start = models.initial(mlp, Seed(0))
    masks = random_masks(start)
    first = masks.get(name, torch.ones_like(start.params[name], dtype=torch.bool)).nonzero()[0]
    for value in (math.nan, math.inf):
        spoilt = start.params[name].clone()
        spoilt[tuple(first)] = value
        job = TrainJob(replace(start, params={**start.params, name: spoilt}), {}, Seed(0), 20)
        jobs = [job, replace(job, masks=masks)]
        assert same_end(engine, mlp, splits, recipe(eval_every=1), jobs) is RunResult.DIVERGED


@pytest.mark.parametrize("engine", OTHERS)
def test_a_start_value_that_is_not_finite_and_pruned_does_no_harm(engine: str) -> None:
    start = models.initial(mlp, Seed(0))
    masks = random_masks(start)
    params = {
        name: value.masked_fill(~masks[name], math.nan) if name in masks else value
        for name, value in start.params.items()
    }
    job = TrainJob(replace(start, params=params), masks, Seed(0), 20)
    assert same_end(engine, mlp, splits, recipe(eval_every=1), [job]) is RunResult.FINISHED


@pytest.mark.parametrize(
    "changes",
    [{"lr": 1e12}, {"optimizer": "adamw", "lr": 1e4, "weight_decay": 0.01}, {"optimizer": "sgd", "lr": 1e5}],
)
@pytest.mark.parametrize("engine", OTHERS)
def test_a_validation_loss_beyond_float32_is_infinite_at_the_same_evaluation(
    engine: str, changes: dict[str, Any]
) -> None:
    jobs = [TrainJob(models.initial(mlp, Seed(root)), {}, Seed(root), 30) for root in (0, 1)]
    same_end(engine, mlp, splits, recipe(eval_every=1, **changes), jobs)


@pytest.mark.parametrize("name", ["0.weight", "0.bias"])
@pytest.mark.parametrize("engine", OTHERS)
def test_a_start_value_that_is_not_finite_is_noticed_where_it_leads_nowhere(engine: str, name: str) -> None:
    start = models.initial(mlp, Seed(0))
    masks = random_masks(start)
    spoilt = start.params[name].clone()
    spoilt[tuple(masks.get(name, torch.ones(16)).nonzero()[0])] = math.nan
    masks["2.weight"][:] = False
    job = TrainJob(replace(start, params={**start.params, name: spoilt}), masks, Seed(0), 30)
    assert same_end(engine, mlp, splits, recipe(eval_every=1), [job]) is RunResult.DIVERGED


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("engine", OTHERS)
def test_a_bias_of_minus_infinity_is_a_unit_that_is_off(engine: str, optimizer: str) -> None:
    start, bias = models.initial(mlp, Seed(0)), torch.zeros(16)
    bias[3] = -math.inf
    job = TrainJob(replace(start, params={**start.params, "0.bias": bias}), {}, Seed(0), 30)
    how = recipe(eval_every=1, **OPTIMIZERS[optimizer])
    assert same_end(engine, mlp, splits, how, [job]) is RunResult.FINISHED
