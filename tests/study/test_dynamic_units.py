"""Runs whose masks change, in a store: nothing is lost, and old units keep their keys."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from study_kit import net, same_outcome
from torch import Tensor

from tombola import models
from tombola.data import load
from tombola.errors import CorruptStore, InvalidValue
from tombola.prune.allocation import LAMP, Global
from tombola.prune.criteria import magnitude
from tombola.prune.dynamic import SET, Gradual, RigL, Updates
from tombola.prune.dynamic.base import identity
from tombola.prune.evidence import Evidence
from tombola.prune.masks import ones
from tombola.sparse.kernels.library import available
from tombola.study import units
from tombola.study.remembering import Order, Remembering
from tombola.study.store import Store
from tombola.study.units import Trained
from tombola.ticket.canonical import same
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import Recipe
from tombola.train.row import Progress
from tombola.train.source import Splits
from tombola.train.sparse import SparseTrainer
from tombola.types import Masks, Params, RunResult, Scores, Seed, TrainJob, TrainOutcome

SPLITS = Splits(partial(load, "digits"))
HOW = Recipe(iterations=40, batch_size=50, eval_every=8)
TRAINED = Trained("net", "digits", "recipe", "plain")
SPARSE = pytest.param(SparseTrainer, marks=pytest.mark.skipif(not available(), reason="the kernels are not here"))
FINAL = (("1.weight", 100), ("3.weight", 60), ("5.weight", 40))
METHODS: dict[str, Updates] = {
    "gradual": Gradual(FINAL, begin=2, end=30, every=5),
    "set": SET(end=30, every=5),
    "rigl": RigL(end=30, every=5),
}


def job(method: str, **changes: object) -> TrainJob:
    start = models.initial(net, Seed(3))
    masks: Masks = ones(start.params, [name for name, _ in FINAL])
    if method != "gradual":
        draw = torch.Generator().manual_seed(0)
        masks = {name: torch.rand(mask.shape, generator=draw) < 0.3 for name, mask in masks.items()}
    whole = TrainJob(start, masks, Seed(3), 40, save_at=(0, 4, 17, 40), updates=METHODS.get(method))
    return replace(whole, **changes)  # type: ignore[arg-type]


def same_tensors(one: Params | None, other: Params | None) -> bool:
    if one is None or other is None:
        return one is other
    return list(one) == list(other) and all(same(one[name], other[name]) for name in one)


def same_whole(one: TrainOutcome, other: TrainOutcome) -> bool:
    bare = [replace(each, masks=None, moved=None) for each in (one, other)]
    return (
        same_outcome(*bare)
        and same_tensors(one.masks, other.masks)
        and same_tensors(one.moved, other.moved)
        and [list(kept.items()) for _, kept in one.history] == [list(kept.items()) for _, kept in other.history]
    )


class Stops:
    """A watcher that asks to stop after so many questions."""

    def __init__(self, after: int) -> None:
        self.left = after

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None: ...

    def stop(self) -> bool:
        self.left -= 1
        return self.left < 0


def remembering(folder: Path, kind: type, **changes: object) -> Remembering:
    made = Remembering({"s": kind(net, SPLITS, HOW)}, {"s": TRAINED}, folder)
    return replace(made, **changes)  # type: ignore[arg-type]


CASES = [
    *((PlainTrainer, method, moved) for method in METHODS for moved in (False, True)),
    (PlainTrainer, "", True),
    *(pytest.param(*SPARSE.values, method, False, marks=SPARSE.marks) for method in METHODS),
]


@pytest.mark.parametrize(("kind", "method", "moved"), CASES)
def test_all_that_a_run_leaves_comes_back(tmp_path: Path, kind: type, method: str, moved: bool) -> None:
    one = job(method, moved=moved)
    run = kind(net, SPLITS, HOW).train_one(one)
    assert (run.masks is not None) == bool(method)
    assert (run.moved is not None) == moved
    unit = units.describe(one, TRAINED)
    units.put(Store(tmp_path), one, unit, run)
    back = units.known(Store(tmp_path), unit)
    assert back is not None
    assert same_whole(back, run)
    if method:
        assert run.masks is not None
        grown = any(bool((run.masks[name] & ~one.masks[name]).any()) for name in run.masks)
        assert grown == (method != "gradual"), "what the job's own masks would cut off is there"


@pytest.mark.parametrize(("kind", "method", "moved"), CASES)
@pytest.mark.parametrize("after", [2, 15])
def test_a_stopped_unit_is_gone_on_with(
    tmp_path: Path, kind: type, method: str, moved: bool, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, seen = job(method, moved=moved), list[Progress | None]()
    cut = remembering(tmp_path, kind, watcher=Stops(after)).train_one(Order("s", one))
    assert cut is not None
    if cut.result is not RunResult.INTERRUPTED:
        pytest.skip("it was faster")
    trained = kind.train_one  # type: ignore[attr-defined]

    def noting(*arguments: object, **options: object) -> object:
        seen.append(options["resumed"])  # type: ignore[arg-type]
        return trained(*arguments, **options)

    with monkeypatch.context() as looking:
        looking.setattr(kind, "train_one", noting)
        ended = remembering(tmp_path, kind).train_one(Order("s", one))
    assert ended is not None
    assert seen[0] is not None, "it does not begin anew"
    assert same_whole(ended, kind(net, SPLITS, HOW).train_one(one))


def test_a_unit_under_fixed_masks_is_described_as_before() -> None:
    one = job("", save_at=(4,))
    assert units.describe(one, TRAINED).keys() == {
        *("schema", "network", "data", "recipe", "engine", "start", "start_step", "masks", "seed"),
        *("stop", "save_at", "with_optimizer"),
    }
    run = PlainTrainer(net, SPLITS, HOW).train_one(one)
    assert "history" not in units.record(one, {}, run)["outcome"]


def other_criterion(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    return magnitude(params, masks, evidence)


@dataclass(frozen=True)
class Power:
    exponent: float

    def __call__(self, params: Params, masks: Masks, evidence: Evidence) -> dict[str, Tensor]:
        return {name: value**self.exponent for name, value in magnitude(params, masks, evidence).items()}


def test_everything_that_a_change_depends_on_is_in_the_key() -> None:
    gradual = Gradual(FINAL, begin=2, end=30, every=5)
    methods: list[Updates | None] = [
        None,
        gradual,
        replace(gradual, final=(*FINAL[:2], ("5.weight", 41))),
        replace(gradual, begin=3),
        replace(gradual, end=31),
        replace(gradual, every=6),
        replace(gradual, criterion=other_criterion),
        replace(gradual, criterion=Power(1.0)),
        replace(gradual, criterion=Power(2.0)),
        replace(gradual, criterion=partial(other_criterion)),
        replace(gradual, allocation=Global()),
        replace(gradual, allocation=LAMP()),
        replace(gradual, initial=FINAL),
        replace(gradual, min_keep=1),
        *(kind(end=30, every=5) for kind in (SET, RigL)),
        *(kind(end=31, every=5) for kind in (SET, RigL)),
        *(kind(end=30, every=6) for kind in (SET, RigL)),
        *(kind(end=30, every=5, fraction=0.2) for kind in (SET, RigL)),
    ]
    jobs = [job("gradual", updates=method) for method in methods]
    keys = {units.key(units.describe(each, TRAINED)) for each in (*jobs, replace(jobs[0], moved=True))}
    assert len(keys) == len(methods) + 1
    one, same_one = RigL(end=30, fraction=0.3), RigL(end=30, fraction="3/10")
    assert one.describe() == same_one.describe()


def test_what_has_no_name_of_its_own_is_refused() -> None:
    nameless = Gradual(FINAL, begin=2, end=30, criterion=lambda params, masks, evidence: params)  # noqa: ARG005
    with pytest.raises(InvalidValue, match="no name that a record could know it by"):
        units.describe(job("gradual", updates=nameless), TRAINED)
    with pytest.raises(InvalidValue, match="no name that a record could know it by"):
        identity(object())


def test_a_record_and_masks_that_do_not_belong_together_are_redone() -> None:
    one = job("set")
    run = PlainTrainer(net, SPLITS, HOW).train_one(one)
    assert run.masks is not None
    mixed = replace(run, masks={**run.masks, "1.weight": torch.ones(2, 3, dtype=torch.bool)})
    body, data = units.record(one, {}, run), units.snapshots(job(""), mixed)
    with pytest.raises(CorruptStore, match="is redone"):
        units.outcome(body, data, 0.0, "unit x")
