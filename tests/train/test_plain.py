"""The plain trainer is what it says: the naive loop, the smaller network, nobody else's random state."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from train_kit import (
    CLASSES,
    DATA,
    FEATURES,
    RECIPES,
    Naive,
    Projected,
    dense_job,
    differing,
    mlp,
    plain,
    random_masks,
    recipe,
    same_run,
    splits,
    stochastic,
)

from tombola import models
from tombola.data import Split
from tombola.train.plain import PlainTrainer, evaluate
from tombola.train.recipe import Recipe
from tombola.types import Seed, Snapshot, TrainJob


@pytest.mark.parametrize("build", [mlp, stochastic])
@pytest.mark.parametrize("how", RECIPES.values(), ids=RECIPES.keys())
def test_it_equals_the_naive_loop_bit_for_bit(build: type[nn.Module], how: Recipe) -> None:
    job = dense_job(build, how, 0, 7, 30)
    for masks in ({}, random_masks(job.start)):
        (ours,) = plain(build, how)([replace(job, masks=masks)])
        (theirs,) = Naive(build, how)([replace(job, masks=masks)])
        assert same_run(ours, theirs)


def double(seed: Seed) -> Split:
    split = splits(seed)
    return replace(split, train_x=split.train_x.double(), val_x=split.val_x.double(), test_x=split.test_x.double())


def net(first: int, second: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, CLASSES)
    ).double()


@pytest.mark.parametrize("how", RECIPES.values(), ids=RECIPES.keys())
def test_a_masked_network_is_the_smaller_network(how: Recipe) -> None:
    """Masking every weight of some hidden units trains the network without these units."""
    first, second = torch.tensor([0, 3, 4, 9, 11]), torch.tensor([1, 2, 6])
    whole = models.initial(lambda: net(16, 8), Seed(0))
    keep = {name: torch.zeros(whole.params[name].shape, dtype=torch.bool) for name in ("0.weight", "2.weight")}
    keep["0.weight"][first] = True
    keep["2.weight"][second[:, None], first] = True
    keep["4.weight"] = torch.zeros(CLASSES, 8, dtype=torch.bool).index_fill(1, second, True)

    def cut(snapshot: Snapshot) -> dict[str, Tensor]:
        p = snapshot.params
        return {
            "0.weight": p["0.weight"][first],
            "0.bias": p["0.bias"][first],
            "2.weight": p["2.weight"][second][:, first],
            "2.bias": p["2.bias"][second],
            "4.weight": p["4.weight"][:, second],
            "4.bias": p["4.bias"],
        }

    job = TrainJob(whole, keep, Seed(0), how.iterations)
    (masked,) = PlainTrainer(lambda: net(16, 8), double, how)([job])
    (small,) = PlainTrainer(lambda: net(5, 3), double, how)([replace(job, start=Snapshot(0, cut(whole)), masks={})])
    for name, value in cut(masked.end).items():
        torch.testing.assert_close(small.end.params[name], value, rtol=1e-9, atol=1e-12)
    assert masked.curve.loss == pytest.approx(small.curve.loss, rel=1e-9)
    assert masked.curve.accuracy == small.curve.accuracy
    assert not torch.equal(cut(whole)["2.weight"], small.end.params["2.weight"])


def test_the_callers_threads_and_random_state_make_no_difference_and_are_left_alone() -> None:
    how = RECIPES["adamw"]
    job = dense_job(stochastic, how)
    (first,) = plain(stochastic, how)([job])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.manual_seed(123)
        state = torch.get_rng_state()
        (second,) = plain(stochastic, how)([job])
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(before)
    assert same_run(first, second)


def test_jobs_do_not_influence_each_other() -> None:
    how = RECIPES["momentum"]
    a = dense_job(stochastic, how)
    b = replace(a, masks=random_masks(a.start), seed=Seed(9), save_at=(10,))
    train = plain(stochastic, how)
    (alone_a,), (alone_b,) = train([a]), train([b])
    for jobs, expected in (([a, b], (alone_a, alone_b)), ([b, a], (alone_b, alone_a))):
        assert all(same_run(one, other) for one, other in zip(train(jobs), expected, strict=True))


def test_what_a_network_draws_outside_its_state_dict_is_drawn_alike() -> None:
    how = recipe()
    job = dense_job(Projected, how)
    torch.manual_seed(1)
    (first,) = plain(Projected, how)([job])
    torch.manual_seed(2)
    (second,) = plain(Projected, how)([job])
    assert same_run(first, second)


def test_a_job_leaves_its_start_as_it_was() -> None:
    how = RECIPES["momentum"]
    job = dense_job(stochastic, how, 10)
    (dense,) = plain(stochastic, how)([job])
    start = dense.saved[10]
    copy = Snapshot(
        10,
        {name: value.clone() for name, value in start.params.items()},
        {name: value.clone() for name, value in start.buffers.items()},
        {name: {s: v.clone() for s, v in slots.items()} for name, slots in (start.optimizer or {}).items()},
    )
    plain(stochastic, how)([replace(job, start=start, masks=random_masks(start))])
    assert differing(start, copy) == []


def test_a_fresh_optimiser_is_all_that_fresh_rewinding_changes() -> None:
    """At k the two policies start from the same values; the first step then differs by the momentum alone."""
    from tombola.prune.rewinding import restart, rewind_to_step

    how = recipe(optimizer="sgd", lr=0.1, momentum=0.9)
    job = dense_job(stochastic, how, 10, 11)
    (dense,) = plain(stochastic, how)([job])
    fresh, saved = (
        restart(rewind_to_step(10, kind), init=job.start, at_step=dense.saved[10], end=dense.end)
        for kind in ("fresh", "saved")
    )
    assert fresh.optimizer is None
    assert differing(replace(saved, optimizer=None), fresh) == []
    (cold, warm) = plain(stochastic, how)([replace(job, start=start, save_at=(11,)) for start in (fresh, saved)])
    for name, before in fresh.params.items():
        momentum = dense.saved[10].optimizer[name]["momentum_buffer"]
        gap = cold.saved[11].params[name] - warm.saved[11].params[name]
        torch.testing.assert_close(gap, 0.1 * 0.9 * momentum, rtol=1e-3, atol=1e-6)
        assert before.shape == gap.shape
    for name in fresh.buffers:
        assert torch.equal(cold.saved[11].buffers[name], warm.saved[11].buffers[name])


def test_validation_does_not_depend_on_how_it_is_cut_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = stochastic()
    whole = evaluate(model, DATA.val_x, DATA.val_y)
    assert model.training
    for chunk in (1, 7, 59, 60):
        monkeypatch.setattr("tombola.train.plain._EVALUATION_CHUNK", chunk)
        loss, accuracy = evaluate(model, DATA.val_x, DATA.val_y)
        assert math.isclose(loss, whole[0], rel_tol=1e-6)
        assert accuracy == whole[1]
