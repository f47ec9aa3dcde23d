"""The public checks of training routines and of adapters pass our own and name the fault of a faulty one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tombola import models
from tombola.attach import attach
from tombola.data import Split
from tombola.prune.masks import apply
from tombola.testing import check_attach, check_train_fn
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import Recipe
from tombola.types import Masks, Seed, TrainJob, TrainOutcome


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def split(seed: Seed) -> Split:  # noqa: ARG001
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 4, generator=draw), torch.randint(3, (60,), generator=draw)
    return Split(x[:40], y[:40], x[40:50], y[40:50], x[50:], y[50:])


RECIPE = Recipe(iterations=8, batch_size=10, optimizer="sgd", lr=0.1, momentum=0.9, eval_every=2)
TRAINER = PlainTrainer(build, split, RECIPE)
JOB = TrainJob(models.initial(build, Seed(0)), {}, Seed(0), stop=8)


def test_our_trainer_passes() -> None:
    check_train_fn(TRAINER, JOB)


def changed(change: Callable[[TrainOutcome], TrainOutcome]) -> Callable[..., Any]:
    return lambda jobs: [change(outcome) for outcome in TRAINER(jobs)]


def unmasked_start(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
    """Forget the mask of the gradient: the weights come back."""
    return TRAINER([replace(job, start=replace(job.start, params=apply(job.start.params, job.masks)), masks={})
                    for job in jobs])  # fmt: skip


def masked_at_the_end(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
    """Train dense and mask what is handed back: pruned weights took part."""
    done = TRAINER([replace(job, masks={}) for job in jobs])

    def cut(outcome: TrainOutcome, masks: Masks) -> TrainOutcome:
        put = lambda at: replace(at, params=apply(at.params, masks), optimizer=None)  # noqa: E731
        saved = {step: at if step == JOB.stop // 2 and not masks else put(at) for step, at in outcome.saved.items()}
        return replace(outcome, end=put(outcome.end), best=put(outcome.best), saved=saved)

    return [cut(outcome, job.masks) for outcome, job in zip(done, jobs, strict=True)]


def writes_to_start(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
    found = TRAINER(jobs)
    for job in jobs:
        next(iter(job.start.params.values())).mul_(0.5)
    return found


def depends_on_company(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
    found = TRAINER(jobs)
    if len(jobs) > 1:
        found[1].end.params["0.weight"].mul_(0.5)
    return found


def positive_only(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
    """Only positive weights move."""
    found = TRAINER(jobs)
    for outcome, job in zip(found, jobs, strict=True):
        start = apply(job.start.params, job.masks)
        for name, value in outcome.end.params.items():
            value.copy_(torch.where(start[name] < 0, start[name], value))
    return found


TRAINER_FAULTS: dict[str, Callable[..., Any]] = {
    "not a list": lambda jobs: tuple(TRAINER(jobs)),
    "gave 1 outcomes": lambda jobs: TRAINER(jobs[:1]),
    "ended at 7": changed(lambda outcome: replace(outcome, end=replace(outcome.end, step=7))),
    "no snapshot was saved": changed(lambda outcome: replace(outcome, saved={})),
    "iterations were counted": changed(lambda outcome: replace(outcome, iterations=1)),
    "the early-stop iteration is": changed(lambda outcome: replace(outcome, early_stop_iteration=3)),
    "are not zero at step": unmasked_start,
    "what pruned weights held has an effect": masked_at_the_end,
    "writes to the start values": writes_to_start,
    "depends on the other jobs": depends_on_company,
    "no negative weight of 0.weight": positive_only,
    "a mask of ones": lambda jobs: TRAINER(
        [replace(job, seed=Seed(1)) if job.masks and all(m.all() for m in job.masks.values()) else job for job in jobs]
    ),
}


@pytest.mark.parametrize("sentence", TRAINER_FAULTS)
def test_faulty_trainers_are_named(sentence: str) -> None:
    job = replace(JOB, start=models.initial(build, Seed(0)))
    with pytest.raises(AssertionError, match=sentence):
        check_train_fn(TRAINER_FAULTS[sentence], job)


def test_the_public_attach_check_passes_ours() -> None:
    before = torch.get_num_threads()
    check_attach(attach)
    assert torch.get_num_threads() == before
