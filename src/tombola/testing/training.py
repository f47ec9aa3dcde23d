"""What a training routine must do, checked on a job of your own."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tombola.prune.masks import apply, ones
from tombola.prune.rewinding import masked
from tombola.types import Masks, RunResult, Snapshot, TrainFn, TrainJob, TrainOutcome


def check_train_fn(train: TrainFn, job: TrainJob) -> None:
    """Hold a training routine to its contract.

    Outcomes in the order of the jobs, with the steps and snapshots that were asked for; a job's result depends on the
    job alone; a mask of ones trains as no mask does; pruned weights and their moments are zero at every snapshot, also
    with moments of a dense run to start from; every tensor that is left can train; nothing of a job written to.

    Args:
        train: ``jobs -> outcomes``.
        job: a dense job of a network that it can train: ``start`` at step 0, no masks, ``stop`` at least 4 (a few
            iterations are enough). It is trained about eight times.

    Raises:
        AssertionError: with a sentence naming what broke.

    Example:
        >>> from tombola.testing import check_train_fn
        >>> check_train_fn(trainer, TrainJob(start, {}, Seed(0), stop=8))  # doctest: +SKIP
    """
    assert job.stop - job.start.step >= 4, "give a job of at least 4 iterations, or there is nothing to look at"
    middle = (job.start.step + job.stop) // 2
    job = replace(job, masks={}, save_at=(middle,))
    before = _clone(job.start)
    dense, ticket = _run(train, [job, replace(job, masks=_half(job.start))])
    _check_outcome(dense, job)
    _check_outcome(ticket, job)
    assert _differing(job.start, before) == [], "training writes to the start values of its job"
    _check_zero(ticket, _half(job.start), "from the start")
    (alone,) = _run(train, [replace(job, masks=_half(job.start))])
    assert _differing(alone.end, ticket.end) == [], "a job's result depends on the other jobs of the call, or on chance"
    every = ones(job.start.params, [name for name, value in job.start.params.items() if value.dim() > 1])
    (full,) = _run(train, [replace(job, masks=every)])
    assert _differing(full.end, dense.end) == [], "a mask of ones does not train as no mask does"
    for start, when in ((dense.saved[middle], "from a dense run in the middle, with its moments"), (job.start, "")):
        given = replace(job, start=start, masks=_half(start), save_at=(middle + 1,))
        (raw,), (clean,) = _run(train, [given]), _run(train, [replace(given, start=masked(start, given.masks))])
        _check_zero(raw, given.masks, when)
        assert _differing(raw.end, clean.end) == [], f"what pruned weights held has an effect {when}"
    _check_moves(job.start, ticket, _half(job.start))


def _run(train: TrainFn, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
    found = train(jobs)
    assert isinstance(found, list), f"training gave a {type(found).__name__}, not a list of outcomes"
    assert len(found) == len(jobs), f"training {len(jobs)} jobs gave {len(found)} outcomes"
    return found


def _check_outcome(outcome: TrainOutcome, job: TrainJob) -> None:
    assert outcome.result is RunResult.FINISHED, f"a short run of the start values given is {outcome.sentence}"
    assert outcome.sentence, "an outcome says in a sentence how it ended"
    assert outcome.end.step == job.stop, f"a job that stops at {job.stop} ended at {outcome.end.step}"
    assert outcome.iterations == job.stop - job.start.step, f"{outcome.iterations} iterations were counted"
    missing = set(job.save_at) - set(outcome.saved)
    assert not missing, f"no snapshot was saved at {sorted(missing)}"
    for step in job.save_at:
        assert outcome.saved[step].step == step, f"the snapshot of {step} says it is of {outcome.saved[step].step}"
    assert list(outcome.end.params) == list(job.start.params), "training changes the names of the parameters"
    assert _differing(outcome.end, job.start), "training changes nothing"
    curve = outcome.curve
    assert curve.steps and curve.steps[-1] == job.stop, "the last iteration is not on the evaluation grid"  # noqa: PT018
    least = curve.steps[curve.loss.index(min(curve.loss))]
    assert outcome.early_stop_iteration == least, (
        f"the early-stop iteration is {outcome.early_stop_iteration}, and validation loss is least at {least}"
    )
    assert outcome.best.step == least, f"the best snapshot is of {outcome.best.step}, not {least}"


def _check_zero(outcome: TrainOutcome, masks: Masks, when: str) -> None:
    for at in (outcome.end, outcome.best, *outcome.saved.values()):
        if at.step == outcome.end.step - outcome.iterations:
            continue
        for name, mask in masks.items():
            alive = int((at.params[name].cpu()[~mask] != 0).sum())
            assert not alive, f"{alive} pruned weights of {name} are not zero at step {at.step} {when}"
            for slot, value in ((at.optimizer or {}).get(name) or {}).items():
                fits = value.shape == mask.shape and value.dim() > 0
                assert not (fits and value.cpu()[~mask].any()), (
                    f"{slot} of pruned weights of {name} is not zero at step {at.step} {when}"
                )


def _check_moves(start: Snapshot, ticket: TrainOutcome, masks: Masks) -> None:
    begun = apply(start.params, masks)
    for name, mask in masks.items():
        moved = ticket.end.params[name].cpu() != begun[name].cpu()
        signs = begun[name].cpu().sign()
        for sign, word in ((1, "positive"), (-1, "negative")):
            some = mask & (signs == sign)
            assert not some.any() or bool(moved[some].any()), f"no {word} weight of {name} that is left trains"


def _half(start: Snapshot) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(5)
    return {name: torch.rand(v.shape, generator=rng) < 0.5 for name, v in start.params.items() if v.dim() > 1}


def _clone(snapshot: Snapshot) -> Snapshot:
    return replace(
        snapshot,
        params={name: value.clone() for name, value in snapshot.params.items()},
        buffers={name: value.clone() for name, value in snapshot.buffers.items()},
    )


def _differing(first: Snapshot, second: Snapshot) -> list[str]:
    """Name the parameters and buffers in which two snapshots differ."""
    pairs = ((first.params, second.params), (first.buffers, second.buffers))
    return [
        name
        for a, b in pairs
        for name in a.keys() | b.keys()
        if name not in a or name not in b or not _same(a[name], b[name])
    ]


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(torch.allclose(first, second, rtol=0, atol=0, equal_nan=True))
