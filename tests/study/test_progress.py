"""A run that is gone on with in another process ends in the bits of one that was never stopped."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from study_kit import net, same_outcome
from torch import nn

from tombola import models
from tombola.data import load
from tombola.prune.masks import ones
from tombola.sparse.kernels.library import available
from tombola.study import units
from tombola.study.remembering import Order, Remembering
from tombola.study.store import Store
from tombola.study.units import Trained
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import Recipe
from tombola.train.row import Progress
from tombola.train.source import Splits
from tombola.train.sparse import SparseTrainer
from tombola.types import RunResult, Seed, TrainJob

SPLITS = Splits(partial(load, "digits"))
SPARSE = pytest.param(SparseTrainer, marks=pytest.mark.skipif(not available(), reason="the kernels are not here"))
RECIPES = {
    "adam": Recipe(iterations=40, batch_size=50, eval_every=8),
    "momentum": Recipe(iterations=40, batch_size=50, eval_every=8, optimizer="sgd", lr=0.1, momentum=0.9),
    "sgd": Recipe(iterations=40, batch_size=50, eval_every=8, optimizer="sgd", lr=0.1, schedule="cosine", warmup=5),
    "explodes": Recipe(iterations=40, batch_size=50, eval_every=8, optimizer="sgd", lr=3e4),
}


def dropping() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Dropout(0.3), nn.Linear(24, 10))


def normed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10))


def job(build: object, **changes: object) -> TrainJob:
    seed = Seed(3)
    start = models.initial(build, seed)  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(0)
    masks = {
        name: torch.rand(mask.shape, generator=draw) < 0.4
        for name, mask in ones(start.params, [name for name, p in start.params.items() if p.dim() > 1]).items()
    }
    return replace(TrainJob(start, masks, seed, 40, save_at=(0, 5, 16, 40)), **changes)  # type: ignore[arg-type]


class Stops:
    """A watcher that asks to stop after so many questions, and a keeper that keeps every time."""

    def __init__(self, after: int) -> None:
        self.left, self.kept = after, list[Progress]()

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None: ...

    def stop(self) -> bool:
        self.left -= 1
        return self.left < 0

    def due(self) -> bool:
        return True

    def keep(self, progress: Progress) -> None:
        self.kept.append(progress)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("build", [net, dropping, normed])
@pytest.mark.parametrize("kind", [PlainTrainer, SPARSE])
@pytest.mark.parametrize("with_optimizer", [True, False])
def test_from_any_point_on_the_same_bits(kind: type, build: object, recipe: str, with_optimizer: bool) -> None:
    if kind is SparseTrainer and build is normed:
        pytest.skip("the sparse engine has no batch norm")
    trainer, one = kind(build, SPLITS, RECIPES[recipe]), job(build, with_optimizer=with_optimizer)
    whole = trainer.train_one(one)
    everything = Stops(10**9)
    trainer.train_one(one, keeper=everything)
    assert len(everything.kept) >= 4 or whole.result is RunResult.DIVERGED
    for progress in everything.kept:
        assert same_outcome(trainer.train_one(one, resumed=progress), whole), progress.now.step
    for after in (0, 1, 3):
        stopping = Stops(after)
        cut = replace(trainer, watcher=stopping).train_one(one, keeper=stopping)
        if cut.result is RunResult.INTERRUPTED:
            assert same_outcome(trainer.train_one(one, resumed=stopping.kept[-1]), whole), after


class Counts(nn.Module):
    """Scales by how often it was called, and keeps that number outside the state dict, or in it."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.layer, self.where, self.calls = nn.Linear(64, 10), where, [0]
        self.alias, self.act = self.layer, lambda x: x.relu()
        self.register_buffer("number", torch.zeros(()), persistent=where == "kept")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.where == "attribute":
            self.calls[0] += 1
        elif self.training:
            self.number += 1
        return self.layer(self.act(x.flatten(1))) * (1 + (self.calls[0] + self.number) / 20)


@pytest.mark.parametrize(("where", "kept"), [("attribute", False), ("buffer", False), ("kept", True)])
def test_what_stands_outside_the_state_dict_is_not_gone_on_with(where: str, kept: bool) -> None:
    """Such a unit is trained from its beginning, and so ends in the same bits."""
    build, stopping = partial(Counts, where), Stops(20)
    trainer, one = PlainTrainer(build, SPLITS, RECIPES["adam"]), job(build)
    replace(trainer, watcher=stopping).train_one(one, keeper=stopping)
    assert (len(stopping.kept) > 0) == kept
    whole = trainer.train_one(one)
    for progress in stopping.kept:
        assert same_outcome(trainer.train_one(one, resumed=progress), whole)


def test_a_network_that_cannot_be_written_down_is_not_gone_on_with() -> None:
    def build() -> nn.Module:
        model = net()
        model.numbers = iter(lambda: 1, 2)
        model.lines = (line for line in ())
        return model

    stopping = Stops(20)
    PlainTrainer(build, SPLITS, RECIPES["adam"], watcher=stopping).train_one(job(net), keeper=stopping)
    assert stopping.kept == []


TRAINED = Trained("net", "digits", "recipe", "plain")


def remembering(folder: Path, kind: type = PlainTrainer, **changes: object) -> Remembering:
    trainer = kind(net, SPLITS, RECIPES["adam"])
    return replace(Remembering({"s": trainer}, {"s": TRAINED}, folder), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [PlainTrainer, SPARSE])
def test_what_is_known_is_not_trained_again(tmp_path: Path, kind: type) -> None:
    one = job(net)
    first = remembering(tmp_path, kind).train_one(Order("s", one))
    assert first is not None
    assert same_outcome(first, kind(net, SPLITS, RECIPES["adam"]).train_one(one))

    def no() -> nn.Module:
        raise AssertionError("it was trained again")

    again = replace(remembering(tmp_path), trainers={"s": kind(no, SPLITS, RECIPES["adam"])})
    second = again.train_one(Order("s", one))
    assert second is not None
    assert same_outcome(first, second)
    assert second.seconds == first.seconds


@pytest.mark.parametrize("kind", [PlainTrainer, SPARSE])
def test_a_stopped_unit_is_gone_on_with(tmp_path: Path, kind: type) -> None:
    one, stopping = job(net), Stops(2)
    cut = remembering(tmp_path, kind, watcher=stopping).train_one(Order("s", one))
    assert cut is not None
    assert cut.result is RunResult.INTERRUPTED
    key = units.key(units.describe(one, TRAINED))
    part = Store(tmp_path).part(key)
    assert part is not None
    assert Store(tmp_path).get(key) is None
    ended = remembering(tmp_path, kind).train_one(Order("s", one))
    assert ended is not None
    assert same_outcome(ended, kind(net, SPLITS, RECIPES["adam"]).train_one(one))
    assert Store(tmp_path).part(key) is None


def test_what_another_version_left_is_trained_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, asked = job(net), list[object]()
    with monkeypatch.context() as older:
        older.setattr("tombola.__version__", "0.0.9")
        remembering(tmp_path, watcher=Stops(20)).train_one(Order("s", one))
    trained = PlainTrainer.train_one

    def noting(*arguments: object, **options: object) -> object:
        asked.append(options["resumed"])
        return trained(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(PlainTrainer, "train_one", noting)
    assert remembering(tmp_path).train_one(Order("s", one)) is not None
    assert asked == [None]


def test_a_unit_that_another_process_trains_is_left_to_it(tmp_path: Path) -> None:
    one = job(net)
    with Store(tmp_path).claim(units.key(units.describe(one, TRAINED))):
        assert remembering(tmp_path).train_one(Order("s", one)) is None
    assert remembering(tmp_path).train_one(Order("s", one)) is not None


def test_everything_that_the_outcome_depends_on_is_in_the_key() -> None:
    one = job(net)
    base = units.key(units.describe(one, TRAINED))
    start = one.start
    other_start = replace(start, params={**start.params, "5.bias": start.params["5.bias"] + 1})
    other_masks = {name: mask.clone() for name, mask in one.masks.items()}
    other_masks["1.weight"][0, 0] ^= True
    changed = [
        replace(one, start=other_start),
        replace(one, masks=other_masks),
        replace(one, seed=Seed(3, 0, 1)),
        replace(one, seed=Seed(3, 1)),
        replace(one, seed=Seed(4)),
        replace(one, stop=39),
        replace(one, save_at=(5,)),
        replace(one, with_optimizer=False),
        replace(one, fraction=0.5),
        replace(one, start=replace(start, step=1)),
        replace(one, start=replace(start, optimizer={})),
    ]
    keys = {units.key(units.describe(other, TRAINED)) for other in changed}
    for field in ("network", "data", "recipe", "engine"):
        keys.add(units.key(units.describe(one, replace(TRAINED, **{field: "other"}))))
    assert len(keys) == len(changed) + 4
    assert base not in keys
    assert units.key(units.describe(replace(one, name="reinit"), TRAINED)) == base
    hidden = start.params["1.weight"].masked_fill(~one.masks["1.weight"], 7.0)
    pruned_differ = replace(one, start=replace(start, params={**start.params, "1.weight": hidden}))
    assert units.key(units.describe(pruned_differ, TRAINED)) == base, "what the mask prunes decides nothing"


@pytest.mark.skipif(not available(), reason="the kernels are not here")
def test_runs_on_other_kernels_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their bits differ, and a result names the kernels that it was made on."""
    one, sparse = job(net), replace(TRAINED, engine="sparse on cpu")
    make = partial(remembering, tmp_path, SparseTrainer, trained={"s": sparse})
    monkeypatch.setenv("TOMBOLA_KERNELS", "plain")
    first, same = (make().train_one(Order("s", one)) for _ in range(2))
    monkeypatch.delenv("TOMBOLA_KERNELS")
    other = make().train_one(Order("s", one))
    assert first is not None
    assert same is not None
    assert other is not None
    assert first.elsewhere == same.elsewhere == ""
    assert other.elsewhere.startswith("kernels plain ") or available()[-1] == "plain"
