"""Public contract checks, for parts of your own: a way to put masks on a module, a criterion, a training routine.

Each raises ``AssertionError`` with a sentence that names what broke, and returns nothing where all holds. They need no
test framework.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from tombola.attach.conformance import Adapter, check_attach
from tombola.errors import ShapeMismatch
from tombola.prune.evidence import Criterion, Evidence, scored
from tombola.prune.masks import apply, ones
from tombola.prune.rewinding import masked
from tombola.types import Masks, Params, RunResult, Snapshot, TrainFn, TrainJob, TrainOutcome

__all__ = ["Adapter", "check_attach", "check_criterion", "check_train_fn"]

_DTYPES: Final = (torch.float32, torch.float64, torch.bfloat16)


def check_criterion(criterion: Criterion) -> None:
    """Hold a criterion to its contract.

    One score for every masked weight, of the mask's shape, finite where the weight is left and ``-inf`` where it is
    pruned; equal bits from equal generators; nothing that it is given written to, and the global generator not drawn
    from; a mask of another shape refused.

    Args:
        criterion: ``(params, masks, evidence) -> scores``.

    Raises:
        AssertionError: with a sentence naming what broke.

    Example:
        >>> from tombola.prune.criteria import CRITERIA
        >>> check_criterion(CRITERIA["magnitude"].score)
    """
    for dtype in _DTYPES:
        for keep in (1.0, 0.5, 0.0):
            params, masks = _network(dtype, keep)
            where = f"({dtype}, {keep:.0%} of the weights left)"
            before = {name: value.detach().clone() for name, value in params.items()}
            held = {name: mask.clone() for name, mask in masks.items()}
            state = torch.random.get_rng_state()
            raw = criterion(params, masks, _evidence(params))
            for name, value in params.items():
                assert torch.equal(value, before[name]), f"the criterion writes to the weights of {name} {where}"
            for name, mask in masks.items():
                assert torch.equal(mask, held[name]), f"the criterion writes to the mask of {name} {where}"
            _check_scores(raw, params, masks, where)
            scored(criterion, params, masks, _evidence(params))
            again = criterion(params, masks, _evidence(params))
            for name in masks:
                assert torch.equal(raw[name], again[name]), f"two calls with one seed score {name} differently {where}"
            assert torch.equal(torch.random.get_rng_state(), state), (
                f"the criterion draws from the global generator {where}; it has evidence.generator"
            )
    params, masks = _network(torch.float32, 1.0)
    try:
        criterion(params, {**masks, "0.weight": masks["0.weight"].T}, _evidence(params))
    except ShapeMismatch:
        return
    raise AssertionError("the criterion takes a mask of another shape than its weights; it must raise ShapeMismatch")


def _check_scores(raw: Any, params: Params, masks: Masks, where: str) -> None:
    assert isinstance(raw, Mapping), f"the criterion gave a {type(raw).__name__}, not name -> tensor {where}"
    missing = [name for name in masks if name not in raw]
    assert not missing, f"the criterion gave no scores for {', '.join(missing)} {where}"
    for name, mask in masks.items():
        score = raw[name]
        assert isinstance(score, Tensor), f"the scores of {name} are a {type(score).__name__} {where}"
        assert score.shape == mask.shape, f"the scores of {name} have shape {tuple(score.shape)} {where}"
        assert score.is_floating_point(), f"the scores of {name} are {score.dtype}, not floating point {where}"
        assert score.device == params[name].device, f"the scores of {name} are on {score.device} {where}"
        assert bool((score[~mask] == -torch.inf).all()), f"pruned weights of {name} do not score -inf {where}"
        assert bool(score[mask].isfinite().all()), f"weights of {name} that are left score NaN or Inf {where}"


def _network(dtype: torch.dtype, keep: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(0)
    shapes = {"0.weight": (6, 5), "0.bias": (6,), "2.weight": (3, 6), "2.bias": (3,)}
    params = {name: torch.randn(shape, generator=rng).to(dtype) for name, shape in shapes.items()}
    masks = {n: torch.rand(shape, generator=rng) < keep for n, shape in shapes.items() if n.endswith("weight")}
    return params, masks


def _evidence(params: Params) -> Evidence:
    """Everything a criterion may ask for, of the network that ``params`` belong to."""
    rng = torch.Generator().manual_seed(1)
    dtype = next(iter(params.values())).dtype
    batches = [(torch.randn(4, 5, generator=rng).to(dtype), torch.tensor([0, 1, 2, 0])) for _ in range(2)]
    return Evidence(
        theta_0=params,
        theta_k=params,
        forward=_forward,
        loss=functional.cross_entropy,
        batches=batches,
        generator=rng,
        density=0.5,
    )


def _forward(values: Params, x: Tensor) -> Tensor:
    hidden = functional.linear(x, values["0.weight"], values["0.bias"]).relu()
    return functional.linear(hidden, values["2.weight"], values["2.bias"])


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
