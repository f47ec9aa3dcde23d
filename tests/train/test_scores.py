"""Runs that train scores: the weights stay bit for bit, and the scores stand in their place."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from train_kit import DATA, dense_job, dense_masks, mlp, random_masks, recipe, same_run, splits, stochastic

from tombola.errors import InvalidValue
from tombola.prune.dynamic import Gradual, RigL
from tombola.prune.learned import GemMiner
from tombola.prune.masks import counts
from tombola.prune.rewinding import masked
from tombola.sparse.kernels.library import available
from tombola.study.units import Trained, describe
from tombola.train.plain import PlainTrainer, load
from tombola.train.replicas import ReplicaTrainer
from tombola.train.row import Progress
from tombola.train.sparse import SparseTrainer
from tombola.types import Params, RunResult, TrainJob, TrainOutcome

FREEZING = Gradual((("0.weight", 60), ("2.weight", 40), ("4.weight", 12)), begin=0, end=24, every=6, geometric=True)
DRAWS: list[Tensor] = []


@dataclass(frozen=True)
class Watched:
    """Every score counts in full, with a draw that is noted, and ends above 0."""

    slope: float = 1.0

    @property
    def recipe(self) -> Mapping[str, Any]:
        return {"optimizer": "sgd", "lr": 0.05}

    def first(self, weight: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return torch.ones_like(weight)

    def factors(self, scores: Params, alive: Params, generator: torch.Generator | None) -> dict[str, Tensor]:
        if generator is not None:
            DRAWS.append(torch.rand(2, generator=generator))
        return {name: self.slope * score * alive[name] for name, score in scores.items()}

    def settle(self, scores: Params) -> None:
        for score in scores.values():
            score.clamp_(min=0.0)

    def describe(self) -> Mapping[str, Any]:
        return {"scores": "watched", "slope": self.slope}


def job(build: Any = mlp, **changes: Any) -> TrainJob:
    dense = dense_job(build, recipe())
    return replace(dense, masks=dense_masks(dense.start), scores=GemMiner(lr=0.05), **changes)


def trainer(kind: Any = PlainTrainer, build: Any = mlp, **changes: Any) -> Any:
    return kind(build, splits, recipe(**changes))


def alike(a: TrainOutcome, b: TrainOutcome) -> bool:
    assert a.masks is not None
    assert b.masks is not None
    same = all(torch.equal(mask, b.masks[name]) for name, mask in a.masks.items())
    return same and same_run(replace(a, masks=None), replace(b, masks=None))


def test_the_weights_stay_and_scores_stand_in_the_place_of_the_masked_ones() -> None:
    asked = job()
    before = {name: value.clone() for name, value in asked.start.params.items()}
    (run,) = trainer()([asked])
    assert run.result is RunResult.FINISHED
    for name, value in asked.start.params.items():
        assert torch.equal(value, before[name]), "not even the caller's own"
        if name in asked.masks:
            assert bool(((run.end.params[name] >= 0) & (run.end.params[name] <= 1)).all())
            assert not torch.equal(run.end.params[name], value)
        else:
            assert torch.equal(run.end.params[name], value), "a bias has no score and does not train"


def test_what_is_reported_is_the_network_under_its_rounded_scores() -> None:
    asked = job()
    asked = replace(asked, stop=300)
    (run,) = trainer(iterations=300)([asked])
    model = mlp()
    on = {name: asked.start.params[name] * (run.end.params[name] > 0.5) for name in asked.masks}
    load(model, replace(asked.start, params={**asked.start.params, **on}))
    with torch.no_grad():
        right = (model(DATA.test_x).argmax(1) == DATA.test_y).float().mean().item()
    assert run.test_accuracy == pytest.approx(right)
    (idle,) = trainer()([replace(asked, stop=0)])
    assert idle.test_accuracy is not None
    assert right > idle.test_accuracy, "and it has learned something"


def test_one_step_of_scores_is_the_chain_rule() -> None:
    """dL/ds = w dL/dw at the effective weights, for plain SGD on a linear network."""
    asked = replace(job(lambda: nn.Linear(12, 4)), scores=Watched(2.0), stop=1)
    asked = replace(asked, masks=random_masks(asked.start, 0.6))
    single = trainer(build=lambda: nn.Linear(12, 4), iterations=1, eval_every=1, batch_size=130)
    (run,) = single([asked])
    weight = asked.start.params["weight"].clone().mul(2.0).mul(asked.masks["weight"]).requires_grad_()
    logits = DATA.train_x @ weight.T + asked.start.params["bias"]
    torch.nn.functional.cross_entropy(logits, DATA.train_y).backward()
    assert weight.grad is not None
    mask = asked.masks["weight"]
    wanted = ((1 - 0.05 * 2.0 * asked.start.params["weight"] * weight.grad) * mask).clamp(min=0)
    assert torch.allclose(run.end.params["weight"], wanted, atol=1e-6)


def test_freezing_takes_the_lowest_scores_for_good_and_ends_at_the_counts() -> None:
    asked = job(updates=FREEZING, save_at=(6, 12, 18, 24))
    (run,) = trainer()([asked])
    assert run.masks is not None
    assert counts(run.masks) == dict(FREEZING.final)
    assert [step for step, _ in run.history] == [6, 12, 18, 24]
    for name, mask in run.masks.items():
        assert not run.end.params[name][~mask].any()
        for step in (6, 12, 18, 24):
            gone = run.saved[step].params[name] == 0
            assert not bool((gone & (run.saved[min(24, step + 6)].params[name] > 0)).any()), "frozen for good"


@pytest.mark.parametrize("build", [mlp, stochastic])
def test_a_run_that_was_stopped_ends_in_the_bits_of_one_that_was_not(build: Any) -> None:
    final = tuple((name, max(1, mask.numel() // 4)) for name, mask in job(build).masks.items())
    asked = job(build, updates=Gradual(final, begin=0, end=24, every=6, geometric=True))

    class Keeping:
        kept: list[Progress] = []  # noqa: RUF012

        def due(self) -> bool:
            return True

        def keep(self, progress: Progress) -> None:
            self.kept.append(progress)

    plain = trainer(build=build)
    keeper = Keeping()
    whole = plain.train_one(asked, keeper=keeper)
    assert alike(whole, plain.train_one(asked))
    halfway = next(one for one in keeper.kept if one.now.step >= 15)
    assert alike(whole, plain.train_one(asked, resumed=pickle.loads(pickle.dumps(halfway))))


def test_draws_are_by_position_and_not_taken_from_anything_else() -> None:
    asked = replace(job(), scores=Watched())
    DRAWS.clear()
    trainer()([asked])
    first = list(DRAWS)
    DRAWS.clear()
    trainer()([asked])
    assert len(first) == 30
    assert all(torch.equal(a, b) for a, b in zip(first, DRAWS, strict=True))
    assert len({tuple(one.tolist()) for one in first}) == 30


@pytest.mark.skipif(not available(), reason="the kernels are not here")
def test_the_sparse_engine_gives_the_plain_engines_bits() -> None:
    asked = job(updates=FREEZING)
    assert alike(trainer()([asked])[0], trainer(SparseTrainer)([asked])[0])


def test_what_cannot_train_scores_says_so() -> None:
    with pytest.raises(InvalidValue, match="trains scores"):
        trainer(ReplicaTrainer)([job()])
    with pytest.raises(InvalidValue, match="how weights moved"):
        trainer()([job(moved=True)])
    with pytest.raises(InvalidValue, match="ask for the gradient"):
        trainer()([job(updates=RigL(end=25, every=4))])


def test_a_unit_knows_its_scores_by_their_rule() -> None:
    trained = Trained("n", "d", "r", "plain cpu")
    plain = describe(replace(job(), scores=None), trained)
    assert "scores" not in plain, "units of before keep their keys"
    told = [describe(replace(job(), scores=one), trained) for one in (GemMiner(), GemMiner(lr=0.02))]
    assert told[0] != told[1]
    assert told[0]["scores"] == {"scores": "gem-miner", "lr": 0.01, "weight_decay": 1e-5}


def test_a_score_that_is_not_finite_ends_the_run() -> None:
    asked = job(updates=FREEZING)
    start = masked(asked.start, asked.masks)
    broken = {name: value.clone() for name, value in start.params.items()}
    broken["0.weight"][0, 0] = float("nan")
    (run,) = trainer()([replace(asked, start=replace(start, params=broken))])
    assert run.result is RunResult.DIVERGED
