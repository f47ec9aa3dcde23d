"""The sparse engine is the plain trainer at the price of the weights that are left."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
import train_checks as checks
from torch import Tensor, nn
from train_kit import (
    CLASSES,
    DATA,
    FEATURES,
    RECIPES,
    SGD,
    Build,
    Make,
    dense_job,
    differing,
    mlp,
    random_masks,
    recipe,
    same_run,
    splits,
    stochastic,
)

from tombola.errors import DataTooSmall, InvalidValue, ShapeMismatch
from tombola.prune.rewinding import masked
from tombola.sparse.kernels.library import available
from tombola.testing import check_train_fn
from tombola.train.order import BatchOrder
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import Recipe
from tombola.train.sparse import SparseTrainer, _Order
from tombola.types import RunResult, Seed, Snapshot, TrainFn, TrainJob

pytestmark = pytest.mark.skipif(not available(), reason="the compiled kernels are not here")


def make(build: Build, how: Recipe) -> TrainFn:
    return SparseTrainer(build, splits, how)


def with_activation(activation: Callable[[], nn.Module]) -> Build:
    return lambda: nn.Sequential(
        nn.Linear(FEATURES, 19), activation(), nn.Linear(19, 8), activation(), nn.Linear(8, CLASSES)
    )


def dropping() -> nn.Module:
    return nn.Sequential(
        nn.Dropout(0.1), nn.Linear(FEATURES, 19, bias=False), nn.ReLU(), nn.Dropout(0.4), nn.Linear(19, CLASSES)
    )


BUILDS: dict[str, Build] = {
    "relu": mlp,
    "leaky relu": with_activation(lambda: nn.LeakyReLU(0.2)),
    "tanh": with_activation(nn.Tanh),
    "sigmoid": with_activation(nn.Sigmoid),
    "gelu": with_activation(nn.GELU),
    "gelu by tanh": with_activation(lambda: nn.GELU("tanh")),
    "dropout": dropping,
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, CLASSES)),
}
HOW = {name: replace(how, iterations=50, eval_every=5) for name, how in RECIPES.items()} | {
    "adam, step, warmup": recipe(iterations=50, eval_every=5, schedule="step", milestones=(20,), gamma=0.3, warmup=8),
    "batch of one": recipe(iterations=50, eval_every=5, batch_size=1),
    "batch of all": recipe(iterations=50, eval_every=5, batch_size=130),
}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW.keys())
@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS.keys())
def test_it_agrees_with_the_plain_trainer(build: Build, how: Recipe) -> None:
    job = dense_job(build, how, 0, 3, 50)
    for density in (None, 0.8, 0.4, 0.1):
        masks = {} if density is None else random_masks(job.start, density)
        given = replace(job, masks=masks)
        (ours,), (theirs,) = make(build, how)([given]), PlainTrainer(build, splits, how)([given])
        assert ours.curve.steps == theirs.curve.steps
        assert ours.curve.loss == pytest.approx(theirs.curve.loss, rel=1e-5)
        assert ours.curve.accuracy == theirs.curve.accuracy
        assert ours.test_accuracy == theirs.test_accuracy
        assert ours.sentence == theirs.sentence
        for at in (0, 3, 50):
            close(ours.saved[at], theirs.saved[at])


def close(ours: Snapshot, theirs: Snapshot) -> None:
    assert list(ours.params) == list(theirs.params)
    for name, value in theirs.params.items():
        torch.testing.assert_close(ours.params[name], value, rtol=1e-4, atol=2e-5)
    assert (ours.optimizer is None) == (theirs.optimizer is None)
    for name, slots in (theirs.optimizer or {}).items():
        assert ours.optimizer is not None
        assert list(ours.optimizer[name]) == list(slots)
        for slot, value in slots.items():
            torch.testing.assert_close(ours.optimizer[name][slot], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("how", RECIPES.values(), ids=RECIPES.keys())
@pytest.mark.parametrize("build", [mlp, dropping])
def test_it_holds_the_contract(build: Build, how: Recipe) -> None:
    check_train_fn(make(build, how), dense_job(build, how))


@pytest.mark.parametrize(
    "check",
    [
        checks.check_pruned_stay_zero,
        checks.check_every_alive_weight_trains,
        checks.check_earliest_of_ties,
        checks.check_diverged_is_no_result,
    ],
)
def test_it_passes_what_every_trainer_passes(check: Callable[[Make], None]) -> None:
    check(make)


@pytest.mark.parametrize("how", RECIPES.values(), ids=RECIPES.keys())
def test_going_on_from_a_snapshot_is_the_run_itself(how: Recipe) -> None:
    job = dense_job(dropping, how, 13)
    for masks in ({}, random_masks(job.start)):
        (whole,) = make(dropping, how)([replace(job, masks=masks)])
        (rest,) = make(dropping, how)([replace(job, masks=masks, start=whole.saved[13])])
        assert differing(rest.end, whole.end) == []
        assert differing(rest.saved[13], whole.saved[13]) == []
        assert rest.curve.loss == whole.curve.loss[1:]


def test_the_same_bits_twice_whatever_the_caller_does() -> None:
    how = RECIPES["adamw"]
    job = replace(dense_job(dropping, how, 7), masks=random_masks(dense_job(dropping, how).start))
    (first,) = make(dropping, how)([job])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.manual_seed(123)
        state = torch.get_rng_state()
        (second,) = make(dropping, how)([job])
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(before)
    assert same_run(first, second)


def test_jobs_in_threads_are_jobs_one_after_the_other() -> None:
    how = recipe(iterations=200, eval_every=50)
    job = dense_job(dropping, how)
    jobs = [replace(job, seed=Seed(3, 1, order), masks=random_masks(job.start)) for order in range(6)]
    train = SparseTrainer(dropping, splits, how)
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(train.train_one, jobs))
    assert all(same_run(one, other) for one, other in zip(train(jobs), together, strict=True))


def test_a_layer_without_inputs_or_outputs() -> None:
    how = recipe(weight_decay=1e-2)
    job = dense_job(mlp, how)
    whole = {name: torch.ones_like(mask) for name, mask in random_masks(job.start).items()}
    for name in whole:
        masks = {**whole, name: torch.zeros_like(whole[name])}
        (ours,), (theirs,) = (t(mlp, how)([replace(job, masks=masks)]) for t in (make, plain_trainer))
        assert ours.curve.loss == pytest.approx(theirs.curve.loss, rel=1e-5)
        close(ours.end, theirs.end)


def plain_trainer(build: Build, how: Recipe) -> TrainFn:
    return PlainTrainer(build, splits, how)


def test_a_mask_on_a_bias_holds() -> None:
    how = recipe(weight_decay=1e-2)
    job = dense_job(mlp, how)
    masks = random_masks(job.start) | {"0.bias": torch.arange(16) % 3 > 0}
    (ours,), (theirs,) = (t(mlp, how)([replace(job, masks=masks)]) for t in (make, plain_trainer))
    assert not ours.end.params["0.bias"][::3].any()
    close(ours.end, theirs.end)


def test_nan_is_noticed_at_the_evaluation_where_the_plain_trainer_notices_it() -> None:
    for part in ("train_x", "val_x"):
        value: Tensor = getattr(DATA, part).clone()
        value[3, 2] = torch.nan
        broken = replace(DATA, **{part: value})
        how = recipe()
        job = replace(dense_job(mlp, how), masks=random_masks(dense_job(mlp, how).start, 0.9))
        (run,) = SparseTrainer(mlp, lambda _, b=broken: b, how)([job])
        assert run.result is RunResult.DIVERGED
        assert run.sentence == "diverged: the validation loss is nan at iteration 10"
        assert (run.iterations, run.early_stop_iteration, run.test_accuracy) == (10, None, None)
        assert math.isnan(run.curve.loss[-1])


class Stops:
    """A watcher that wants to stop after so many evaluations."""

    def __init__(self, after: int) -> None:
        self.left, self.seen = after, []

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:  # noqa: ARG002
        self.left -= 1
        self.seen.append((job, step))

    def stop(self) -> bool:
        return self.left <= 0


def test_it_stops_when_the_watcher_says_so() -> None:
    how = recipe()
    watcher = Stops(2)
    (run,) = SparseTrainer(mlp, splits, how, watcher=watcher)([dense_job(mlp, how)])
    assert run.result is RunResult.INTERRUPTED
    assert run.sentence == "interrupted at iteration 20 of 30"
    assert run.test_accuracy is None
    assert watcher.seen == [(0, 10), (0, 20)]


def test_batches_are_those_of_the_plain_trainer() -> None:
    for examples, size, share in ((130, 20, 1.0), (130, 20, 0.3), (7, 7, 1.0), (5, 1, 1.0), (130, 128, 1.0)):
        ours, theirs = _Order(examples, size, Seed(2), share), BatchOrder(examples, size, Seed(2), share)
        for first, last in ((0, 1), (0, 9), (9, 30), (3, 4)):
            expected = torch.stack([theirs.at(step) for step in range(first, last)])
            assert torch.equal(ours.between(first, last), expected)


def test_what_it_cannot_train_it_refuses_with_the_reason() -> None:
    how = recipe()
    with pytest.raises(InvalidValue, match=r"BatchNorm1d.*Use the plain engine"):
        make(stochastic, how)([dense_job(stochastic, how)])
    with pytest.raises(InvalidValue, match="runs on the CPU"):
        SparseTrainer(mlp, splits, how, device="cuda")
    job = dense_job(mlp, how)
    with pytest.raises(ShapeMismatch):
        make(dropping, how)([job])
    with pytest.raises(DataTooSmall):
        make(mlp, recipe(batch_size=131))([job])
    with pytest.raises(InvalidValue, match="must not run back"):
        make(mlp, how)([TrainJob(replace(job.start, step=9), {}, Seed(0), 8)])


def test_the_start_is_saved_as_it_is_trained_and_nothing_to_train_is_a_finished_run() -> None:
    how = recipe(**SGD)
    job = dense_job(mlp, how, 0)
    masks = random_masks(job.start)
    (run,) = make(mlp, how)([replace(job, masks=masks, stop=0)])
    assert differing(run.saved[0], masked(job.start, masks)) == []
    assert (run.result, run.iterations, run.curve.steps) == (RunResult.FINISHED, 0, ())
    assert run.test_accuracy is not None
