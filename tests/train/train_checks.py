"""What a training routine must do, as functions of the routine, so that faulty ones can be shown to fail."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.nn import functional
from train_kit import (
    DATA,
    RECIPES,
    SGD,
    Build,
    Make,
    dense_job,
    dense_masks,
    differing,
    mlp,
    random_masks,
    recipe,
    score,
    stochastic,
)

from tombola.prune.rewinding import masked, restart, rewind_to_init, rewind_to_step
from tombola.types import RunResult, Snapshot, TrainJob

Restart = Callable[..., Snapshot]
WITH_STATE = recipe(optimizer="adamw", weight_decay=1e-2, schedule="cosine", warmup=5)


def check_all_ones_is_dense(make: Make, restart: Restart = restart) -> None:
    """Rewinding to 0 under a mask of ones is the dense run again, bit for bit, whatever state the network has."""
    train = make(stochastic, WITH_STATE)
    job = dense_job(stochastic, WITH_STATE)
    (dense,) = train([job])
    start = restart(rewind_to_init(), init=job.start, at_step=None, end=dense.end)
    assert start.step == 0
    (again,) = train([replace(job, start=start, masks=dense_masks(start))])
    assert differing(dense.end, again.end) == []
    assert differing(dense.best, again.best) == []
    assert dense.curve == again.curve
    assert dense.test_accuracy == again.test_accuracy
    assert dense.early_stop_iteration == again.early_stop_iteration


def check_resuming_is_going_on(make: Make, restart: Restart = restart, k: int = 13) -> None:
    """Rewinding to step k with its optimiser state is the dense run from there on."""
    for build, how in ((stochastic, WITH_STATE), (mlp, RECIPES["nesterov"]), (mlp, RECIPES["adam"])):
        train = make(build, how)
        job = dense_job(build, how, k)
        (dense,) = train([job])
        start = restart(rewind_to_step(k, "saved"), init=job.start, at_step=dense.saved[k], end=dense.end)
        (rest,) = train([replace(job, start=start, masks=dense_masks(start), save_at=(k,))])
        assert differing(rest.saved[k], dense.saved[k]) == []
        assert differing(rest.end, dense.end) == []
        grid = [n for n, step in enumerate(dense.curve.steps) if step > k]
        assert rest.curve.steps == tuple(dense.curve.steps[n] for n in grid)
        assert rest.curve.loss == tuple(dense.curve.loss[n] for n in grid)


def check_pruned_stay_zero(make: Make) -> None:
    """A pruned weight is exactly 0 after every iteration, with weight decay, and with momentum of the dense run."""
    for how in RECIPES.values():
        train = make(mlp, how)
        job = dense_job(mlp, how, 15)
        (dense,) = train([job])
        masks = random_masks(job.start)
        for start in (job.start, dense.saved[15]):
            steps = tuple(range(start.step + 1, how.iterations + 1))
            # The start is given unmasked: putting the mask on is the routine's own business.
            (run,) = train([replace(job, start=start, masks=masks, save_at=steps)])
            for step in steps:
                at = run.saved[step]
                for name, mask in masks.items():
                    assert not bool(at.params[name][~mask].any()), f"{name} at {step}"
                    for slot, value in (at.optimizer or {}).get(name, {}).items():
                        assert value.dim() == 0 or not bool(value[~mask].any()), f"{slot} of {name} at {step}"


def check_every_alive_weight_trains(make: Make) -> None:
    """In one iteration every alive weight with a gradient changes, negative ones too, and no other."""
    for how in (recipe(**SGD, iterations=1, eval_every=1), recipe(iterations=1, eval_every=1)):
        job = dense_job(mlp, how)
        for masks in ({}, dense_masks(job.start), random_masks(job.start)):
            (run,) = make(mlp, how)([replace(job, masks=masks)])
            start = masked(job.start, masks)
            moved = {name: run.end.params[name] != value for name, value in start.params.items()}
            for name, gradient in first_gradient(mlp, start, job).items():
                alive = masks.get(name, torch.ones_like(moved[name]))
                expected = (gradient != 0) & alive
                # A step far below the weight's own precision leaves it as it is.
                visible = how.optimizer == "adam" or gradient.abs() * how.lr > start.params[name].abs() * 1e-6
                assert torch.equal(moved[name] & visible, expected & visible), name
                assert bool((moved[name] & (start.params[name] < 0)).any()), name


def first_gradient(build: Build, start: Snapshot, job: TrainJob) -> dict[str, torch.Tensor]:
    """Give the gradient of the first batch, by plain autograd."""
    from tombola.seeds import generator

    batch = torch.randperm(len(DATA.train_y), generator=generator(job.seed, "order", 0))[:20]
    model = build()
    model.load_state_dict(dict(start.params))
    functional.cross_entropy(model(DATA.train_x[batch]), DATA.train_y[batch]).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def check_best_is_the_validation_minimum(make: Make) -> None:
    """The early-stop iteration is the argmin of validation loss, and ``best`` the network there."""
    for how in (recipe(iterations=60, lr=0.05), recipe(iterations=60, lr=0.003)):
        (run,) = make(mlp, how)([dense_job(mlp, how)])
        assert run.curve.steps == tuple(range(10, 61, 10))
        at = run.curve.loss.index(min(run.curve.loss))
        assert run.early_stop_iteration == run.curve.steps[at] == run.best.step
        assert run.censored == (at == len(run.curve.loss) - 1)
        model = mlp()
        model.load_state_dict(dict(run.best.params))
        assert score(model, DATA.val_x, DATA.val_y) == (run.curve.loss[at], run.curve.accuracy[at])
        assert score(model, DATA.test_x, DATA.test_y)[1] == run.test_accuracy_at_early_stop
        model.load_state_dict(dict(run.end.params))
        assert score(model, DATA.val_x, DATA.val_y) == (run.curve.loss[-1], run.curve.accuracy[-1])
        assert score(model, DATA.test_x, DATA.test_y)[1] == run.test_accuracy


def check_earliest_of_ties(make: Make) -> None:
    """A rate too small to move anything gives equal losses; the first evaluation counts."""
    how = recipe(lr=1e-30, optimizer="sgd")
    (run,) = make(mlp, how)([dense_job(mlp, how)])
    assert len(set(run.curve.loss)) == 1
    assert (run.early_stop_iteration, run.best.step, run.censored) == (10, 10, False)


def check_diverged_is_no_result(make: Make) -> None:
    """A loss that is not finite ends the run: no early stop, no test accuracy, and the iteration named."""
    how = recipe(optimizer="sgd", lr=1e30)
    (run,) = make(mlp, how)([dense_job(mlp, how)])
    assert run.result is RunResult.DIVERGED
    assert run.early_stop_iteration is None
    assert run.test_accuracy is None
    assert run.test_accuracy_at_early_stop is None
    assert run.curve.steps == (10,)
    assert not math.isfinite(run.curve.loss[-1])
