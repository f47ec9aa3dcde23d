"""A replicate of a stack is the run of its job alone: the same masks, order, split, curve and moments, to rounding.

The bound is 1e-5 of a tensor's largest value after 30 iterations, and not equal bits: a stacked product or sum may be
taken in another order, and vectorised functions treat the last elements of a tensor by other code. What is an integer
or a choice (steps, early stop, accuracy) is compared with ``==``.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from train_kit import CLASSES, FEATURES, RECIPES, Build, Projected, data, mlp, random_masks, recipe, same_run, weights

from tombola import models
from tombola.data import Split
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import Recipe
from tombola.train.replicas import ReplicaTrainer
from tombola.train.replicas_data import Batches, Part
from tombola.train.replicas_stack import Stack
from tombola.types import RunResult, Seed, Snapshot, TrainJob, TrainOutcome

BOUND = 1e-5
SPLITS = [data(130 + 7 * number, seed=number) for number in range(5)]


def own_split(seed: Seed) -> Split:
    """Give each replicate data of its own, of another length, and another validation part."""
    split = SPLITS[seed.replicate]
    own = len(split.val_y) - 3 * seed.replicate
    return replace(split, val_x=split.val_x[:own], val_y=split.val_y[:own])


def odd() -> nn.Module:
    """A chain of widths that no vector register divides, with every activation."""
    return nn.Sequential(
        nn.Linear(FEATURES, 17), nn.Tanh(), nn.Sequential(nn.Linear(17, 9, bias=False), nn.GELU()), nn.Identity(),
        nn.Linear(9, 7), nn.LeakyReLU(0.1), nn.Linear(7, 5), nn.Sigmoid(), nn.Linear(5, CLASSES),
    )  # fmt: skip


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.ReLU(),
        nn.Conv2d(6, 4, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip


def layer_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, CLASSES))


class Residual(nn.Module):
    """Batch norm, whose statistics are kept; no bias before it, for its gradient would be rounding alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(FEATURES, 8, bias=False), nn.BatchNorm1d(8)
        self.second, self.out = nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first(x)).relu()
        out: Tensor = self.out(h + self.second(h).relu())
        return out


class Averaged(nn.Module):
    """Keeps a running mean in a buffer that it replaces, has a tensor it does not use, and one that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.spare = mlp(), nn.Linear(3, 3)
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.scale = nn.Parameter(torch.ones(FEATURES), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        out: Tensor = self.inner((x - self.mean) * self.scale)
        return out


BUILDS: tuple[Build, ...] = (mlp, odd, convolutions, layer_norm, Residual, Averaged, Projected)


def family_jobs(build: Build, how: Recipe, n: int = 5, **changes: Any) -> list[TrainJob]:
    """Make jobs that differ in everything that may differ."""
    jobs = []
    for number in range(n):
        seed = Seed(3, number, number % 2)
        start = models.initial(build, seed)
        draw = torch.Generator().manual_seed(number)
        names = weights(start)[number % 2 :]
        masks = {name: torch.rand(start.params[name].shape, generator=draw) < 0.5 for name in names} if number else {}
        job = TrainJob(start, masks, seed, how.iterations, (0, 7 + number, 30), with_optimizer=number != 2)
        jobs.append(replace(job, **changes))
    return jobs


def close(ours: Tensor, theirs: Tensor, what: str) -> None:
    assert ours.dtype == theirs.dtype, what
    assert ours.shape == theirs.shape, what
    gap, size = (ours.double() - theirs.double()).abs(), theirs.double().abs()
    assert float(gap.max()) <= BOUND * float(size.max()), f"{what}: {float(gap.max())} of {float(size.max())}"


def same_snapshot(ours: Snapshot, theirs: Snapshot) -> None:
    assert ours.step == theirs.step
    assert list(ours.params) == list(theirs.params)
    assert list(ours.buffers) == list(theirs.buffers)
    for name, value in {**theirs.params, **theirs.buffers}.items():
        close({**ours.params, **ours.buffers}[name], value, name)
    assert (ours.optimizer is None) == (theirs.optimizer is None)
    state, expected = ours.optimizer or {}, theirs.optimizer or {}
    assert {name: list(slots) for name, slots in state.items()} == {n: list(slots) for n, slots in expected.items()}
    for name, slots in expected.items():
        for slot, value in slots.items():
            close(state[name][slot], value, f"{slot} of {name}")


def same_outcome(ours: TrainOutcome, theirs: TrainOutcome) -> None:
    """Hold an outcome to another, every field of it but the wall time."""
    same_snapshot(ours.end, theirs.end)
    same_snapshot(ours.best, theirs.best)
    assert list(ours.saved) == list(theirs.saved)
    for step, snapshot in theirs.saved.items():
        same_snapshot(ours.saved[step], snapshot)
    assert ours.curve.loss == pytest.approx(theirs.curve.loss, rel=BOUND, nan_ok=True)
    both = [replace(one, end=None, best=None, saved={}, seconds=0, curve=replace(one.curve, loss=())) for one in
            (ours, theirs)]  # fmt: skip
    assert both[0] == both[1]


def check_each_is_its_single_run(build: Build, how: Recipe, jobs: list[TrainJob]) -> None:
    singles = PlainTrainer(build, own_split, how)(jobs)
    for ours, theirs in zip(ReplicaTrainer(build, own_split, how)(jobs), singles, strict=True):
        same_outcome(ours, theirs)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("how", RECIPES.values(), ids=RECIPES.keys())
def test_each_replicate_is_its_single_run(build: Build, how: Recipe) -> None:
    check_each_is_its_single_run(build, how, family_jobs(build, how))


def no_mask_but_the_first(stack: Stack, name: str) -> Tensor:
    mask = next(job.masks[name] for job in stack.jobs if name in job.masks)
    return mask.float().expand_as(stack.params[name])


def the_first_order(batches: Batches, step: int, at: Callable[[Batches, int], Tensor] = Batches.at) -> Tensor:
    found = at(batches, step)
    return found[:1] - batches._offsets[:1] + batches._offsets


def the_first_data(part: Part, index: Tensor, gather: Any = Part.gather) -> tuple[Tensor, Tensor]:
    return gather(part, index - part.offsets)


@pytest.mark.parametrize(
    ("owner", "method", "fault"),
    [(Stack, "_factor", no_mask_but_the_first), (Batches, "at", the_first_order), (Part, "gather", the_first_data)],
    ids=["one mask for all", "one data order for all", "one split for all"],
)
def test_planted_faults_are_caught(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, fault: Callable[..., Any]
) -> None:
    how = RECIPES["adam"]
    jobs = family_jobs(mlp, how)
    check_each_is_its_single_run(mlp, how, jobs)
    monkeypatch.setattr(owner, method, fault)
    with pytest.raises(AssertionError):
        check_each_is_its_single_run(mlp, how, jobs)


@pytest.mark.parametrize("build", BUILDS)
def test_one_replicate_is_a_stack_too(build: Build) -> None:
    how = RECIPES["nesterov"]
    (job,) = family_jobs(build, how, 2)[1:]
    check_each_is_its_single_run(build, how, [job])


@pytest.mark.parametrize("build", [odd, convolutions, Residual])
def test_neither_the_order_of_the_jobs_nor_the_size_of_a_stack_matters(build: Build) -> None:
    how = RECIPES["momentum"]
    jobs = family_jobs(build, how)
    whole = ReplicaTrainer(build, own_split, how)(jobs)
    for at_once in (1, 2, 3, 5):
        train = ReplicaTrainer(build, own_split, how, at_once=at_once)
        for ours, theirs in zip(train(jobs[::-1]), whole[::-1], strict=True):
            same_outcome(ours, theirs)


@pytest.mark.parametrize("build", [odd, convolutions])
def test_the_same_call_gives_the_same_bits(build: Build) -> None:
    how = RECIPES["adamw"]
    jobs = family_jobs(build, how)
    for at_once in (2, None):
        train = ReplicaTrainer(build, own_split, how, at_once=at_once)
        assert all(same_run(one, other) for one, other in zip(train(jobs), train(jobs), strict=True))


@pytest.mark.parametrize("how", [RECIPES["momentum"], RECIPES["adam"]], ids=["momentum", "adam"])
def test_rewound_starts_train_with_those_they_can(how: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of one call start at three positions, with moments and without, and stop at two."""
    stacks = []
    init = Stack.__init__

    def noted(stack: Stack, *args: Any, **kwargs: Any) -> None:
        stacks.append(sorted(kwargs["numbers"]))
        init(stack, *args, **kwargs)

    jobs = family_jobs(odd, how, save_at=(5, 12), with_optimizer=True)
    dense = PlainTrainer(odd, own_split, how)(jobs)
    rewound = [replace(job, start=one.saved[12]) for job, one in zip(jobs, dense, strict=True)]
    rewound[1] = replace(rewound[1], start=dense[1].saved[5])
    rewound[2] = replace(rewound[2], start=replace(rewound[2].start, optimizer=None))
    rewound[3] = replace(rewound[3], stop=25)
    rewound.append(replace(rewound[4], masks=random_masks(jobs[4].start)))
    monkeypatch.setattr(Stack, "__init__", noted)
    check_each_is_its_single_run(odd, how, rewound)
    assert sorted(stacks) == [[0, 4, 5], [1], [2], [3]]


def test_a_replicate_that_diverges_leaves_the_others_bits_unchanged() -> None:
    how = recipe(optimizer="sgd", lr=0.1, momentum=0.9)
    for build in (odd, convolutions):
        jobs = family_jobs(build, how)
        huge = {name: value * 1e30 for name, value in jobs[2].start.params.items()}
        bad = replace(jobs[2], start=replace(jobs[2].start, params=huge))
        train = ReplicaTrainer(build, own_split, how)
        healthy, found = train(jobs), train([*jobs[:2], bad, *jobs[3:]])
        assert all(same_run(found[row], healthy[row]) for row in (0, 1, 3, 4))
        (alone,) = PlainTrainer(build, own_split, how)([bad])
        assert alone.result is found[2].result is RunResult.DIVERGED
        assert "at iteration 10" in found[2].sentence
        assert (found[2].end.step, found[2].iterations, sorted(found[2].saved)) == (10, 10, [0, 9])
        assert (found[2].early_stop_iteration, found[2].test_accuracy, found[2].censored) == (None, None, False)
        assert found[2].best.step == alone.best.step == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("how", RECIPES.values(), ids=RECIPES.keys())
@pytest.mark.parametrize("build", [mlp, convolutions, Residual])
def test_on_a_gpu_a_replayed_iteration_is_the_eager_one(
    build: Build, how: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    jobs = family_jobs(build, how)
    replayed = ReplicaTrainer(build, own_split, how, "cuda")(jobs)
    eager = ReplicaTrainer(build, own_split, how, "cuda", graph=False)(jobs)
    single = PlainTrainer(build, own_split, how, "cuda")(jobs)
    for graph, stack, alone, job in zip(replayed, eager, single, jobs, strict=True):
        for name, value in alone.end.params.items():
            torch.testing.assert_close(graph.end.params[name], stack.end.params[name], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(stack.end.params[name], value, rtol=1e-3, atol=1e-3)
        assert all(not bool(graph.end.params[name][~mask].any()) for name, mask in job.masks.items())
        assert graph.curve.steps == stack.curve.steps == alone.curve.steps
