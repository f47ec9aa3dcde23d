"""The recipe's two losses: their definitions, and that every engine trains on them and validates by them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from train_kit import CLASSES, DATA, FEATURES, RECIPES, SGD, dense_job, mlp, random_masks, recipe, splits, stochastic

from tombola.errors import UnknownName
from tombola.sparse.kernels.library import available
from tombola.testing import check_train_fn
from tombola.train.loss import mean_loss, sum_loss
from tombola.train.order import BatchOrder
from tombola.train.plain import PlainTrainer
from tombola.train.presets import preset
from tombola.train.recipe import LOSSES, Recipe
from tombola.train.replicas import ReplicaTrainer
from tombola.train.sparse import SparseTrainer

compiled = pytest.mark.skipif(not available(), reason="the compiled kernels are not here")
ENGINES = [PlainTrainer, pytest.param(SparseTrainer, marks=compiled), ReplicaTrainer]


def defined(z: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(z, functional.one_hot(y, z.shape[-1]).to(z.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mse_is_the_mean_over_examples_and_classes(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(1)
    z, y = torch.randn(7, 5, generator=draw, dtype=dtype), torch.randint(5, (7,), generator=draw)
    assert torch.equal(mean_loss("mse", z, y), defined(z, y))
    torch.testing.assert_close(sum_loss("mse", z, y), 7 * defined(z, y))
    by_hand = sum((float(z[n, c]) - (c == int(y[n]))) ** 2 for n in range(7) for c in range(5)) / 35
    assert float(defined(z, y)) == pytest.approx(by_hand, rel=1e-5)


def test_cross_entropy_is_torchs() -> None:
    z, y = torch.randn(7, 5), torch.arange(7) % 5
    assert torch.equal(mean_loss("cross-entropy", z, y), functional.cross_entropy(z, y))
    assert torch.equal(sum_loss("cross-entropy", z, y), functional.cross_entropy(z, y, reduction="sum"))


def test_the_plain_trainer_makes_the_iterations_that_a_person_would_write() -> None:
    how = recipe(**SGD, loss="mse")
    job = dense_job(mlp, how)
    (run,) = PlainTrainer(mlp, splits, how)([job])
    model, order = mlp(), BatchOrder(len(DATA.train_y), how.batch_size, job.seed)
    model.load_state_dict(dict(job.start.params))
    optimizer = torch.optim.SGD(model.parameters(), lr=how.lr, fused=True)
    for step in range(how.iterations):
        batch = order.at(step)
        optimizer.zero_grad()
        defined(model(DATA.train_x[batch]), DATA.train_y[batch]).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(run.end.params[name], value)
    with torch.no_grad():
        assert run.curve.loss[-1] == pytest.approx(float(defined(model(DATA.val_x), DATA.val_y)), rel=1e-5)
    assert run.early_stop_iteration == run.curve.steps[run.curve.loss.index(min(run.curve.loss))]


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("how", RECIPES.values(), ids=RECIPES.keys())
def test_every_engine_trains_on_it(kind: type[PlainTrainer], how: Recipe) -> None:
    how = replace(how, loss="mse")
    job = dense_job(mlp, how, 3)
    jobs = [job, replace(job, masks=random_masks(job.start))]
    for ours, theirs in zip(kind(mlp, splits, how)(jobs), PlainTrainer(mlp, splits, how)(jobs), strict=True):
        assert ours.curve.loss == pytest.approx(theirs.curve.loss, rel=1e-4)
        assert ours.curve.accuracy == theirs.curve.accuracy
        assert ours.early_stop_iteration == theirs.early_stop_iteration
        for at, by in ((ours.saved[3], theirs.saved[3]), (ours.end, theirs.end)):
            for name, value in by.params.items():
                torch.testing.assert_close(at.params[name], value, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", ENGINES)
def test_logits_of_ten_thousand_do_not_overflow(kind: type[PlainTrainer]) -> None:
    """Their exponentials are beyond float32, the loss is not: every engine trains as a loop in float64 does."""
    how = recipe(optimizer="sgd", lr=1e-6, iterations=5, eval_every=1)
    job = dense_job(mlp, how)
    model = mlp()
    model.load_state_dict(dict(job.start.params))
    with torch.no_grad():
        model[-1].weight.mul_(1e4 / model(DATA.val_x).abs().max())
    start = {name: value.clone() for name, value in model.state_dict().items()}
    (run,) = kind(mlp, splits, how)([replace(job, start=replace(job.start, params=start))])
    model, order, losses = model.double(), BatchOrder(len(DATA.train_y), how.batch_size, job.seed), []
    optimizer = torch.optim.SGD(model.parameters(), lr=how.lr)
    for step in range(how.iterations):
        batch = order.at(step)
        optimizer.zero_grad()
        functional.cross_entropy(model(DATA.train_x[batch].double()), DATA.train_y[batch]).backward()
        optimizer.step()
        with torch.no_grad():
            logits = model(DATA.val_x.double())
            losses.append(float(functional.cross_entropy(logits, DATA.val_y)))
    assert float(logits.abs().max()) > 5e3
    assert min(losses) > 100
    assert run.curve.loss == pytest.approx(losses, rel=1e-4)
    for name, value in model.state_dict().items():
        moved = (value - start[name].double()).norm()
        assert float((run.end.params[name].double() - value).norm()) <= 0.01 * float(moved) + 1e-7 * float(value.norm())


@pytest.mark.parametrize("kind", ENGINES)
def test_it_holds_the_contract_of_a_training_routine(kind: type[PlainTrainer]) -> None:
    how = recipe(loss="mse", weight_decay=1e-2)
    check_train_fn(kind(mlp, splits, how), dense_job(mlp, how))


def test_networks_under_torch_func_train_on_it() -> None:
    """Batch norm makes the stack go through ``vmap``, which torch's own ``one_hot`` does not survive."""

    def normed() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))

    how = recipe(loss="mse")
    jobs = [dense_job(normed, how)] * 2
    for ours, theirs in zip(
        ReplicaTrainer(normed, splits, how)(jobs), PlainTrainer(normed, splits, how)(jobs), strict=True
    ):
        assert ours.curve.loss == pytest.approx(theirs.curve.loss, rel=1e-4)


def test_the_two_losses_make_two_networks() -> None:
    ends = [
        PlainTrainer(stochastic, splits, recipe(loss=loss))([dense_job(stochastic, recipe())])[0].end for loss in LOSSES
    ]
    assert not torch.equal(ends[0].params["0.weight"], ends[1].params["0.weight"])


def test_recipes_from_before_there_was_a_choice_keep_their_digest() -> None:
    """The digests are those that tombola wrote when cross-entropy was all there was; tickets hold them."""
    assert Recipe(iterations=200, batch_size=100, lr=4e-3, eval_every=6).digest == "391d8543f7d460ad"
    assert preset("lenet-300-100", "mnist").recipe().digest == "72a8fede09d35451"
    how = Recipe(iterations=200, loss="mse")
    assert how.as_json()["loss"] == "mse"
    assert "loss" not in Recipe(iterations=200).as_json()
    assert how.digest != Recipe(iterations=200).digest
    assert Recipe(**{**how.as_json(), "milestones": ()}) == how


def test_an_unknown_loss_is_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'mse'"):
        Recipe(iterations=200, loss="msa")
