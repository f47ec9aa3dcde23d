"""A loop that is not ours as a trainer: equal to the plain one where it does the same, and held to its contract."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import optimizer as optim_module

from tombola import models
from tombola.data import load
from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune.masks import apply
from tombola.testing import check_train_fn
from tombola.train.order import BatchOrder
from tombola.train.own import OwnTrainer, loop_seed
from tombola.train.plain import PlainTrainer, evaluate
from tombola.train.recipe import Recipe
from tombola.train.record import Record
from tombola.train.source import Splits
from tombola.types import RunResult, Seed, Snapshot, TrainJob

T, GRID = 12, 3
SPLITS = Splits(partial(load, "digits"))
SEED = Seed(3)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As the plain trainer does, so that bits can be compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


def train(
    model: nn.Module,
    *,
    seed: int,
    iterations: int,
    record: Record,
    optimizer: str = "adam",
    order_of: Seed | None = None,
    every: int = GRID,
    quiet: bool = False,
) -> None:
    """Do what the plain trainer does, by hand; its order is that of the number it is given, or of ``order_of``."""
    split = SPLITS(SEED)
    order = BatchOrder(len(split.train_y), 50, order_of or Seed(seed))
    steps: torch.optim.Optimizer = (
        torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
        if optimizer == "adam"
        else torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, fused=True)
    )
    assert iterations == record.stop - record.start
    for step in range(record.start, record.stop):
        batch = order.at(step)
        loss = functional.cross_entropy(model(split.train_x[batch]), split.train_y[batch])
        steps.zero_grad()
        loss.backward()
        steps.step()
        if (step + 1) % every == 0 and not quiet:
            loss_, accuracy = evaluate(model, split.val_x, split.val_y)
            record(step + 1, loss=loss_, accuracy=accuracy)


def nudge(model: nn.Module) -> None:
    with torch.no_grad():
        model[4].bias.add_(0.1)  # type: ignore[index, operator]


def score(model: nn.Module) -> float:
    split = SPLITS(SEED)
    assert not model.training
    return evaluate(model, split.test_x, split.test_y)[1]


def half(start: Snapshot) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {name: torch.rand(v.shape, generator=g) < 0.5 for name, v in start.params.items() if v.dim() == 2}


def start() -> Snapshot:
    return models.initial(build, SEED)


def job(**changes: Any) -> TrainJob:
    return replace(TrainJob(start(), {}, SEED, T, with_optimizer=False), **changes)


def own(loop: Callable[..., Any] = train, evaluate: Callable[..., Any] | None = score) -> OwnTrainer:
    return OwnTrainer(build, loop, evaluate)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("masks", [{}, half(start())])
def test_a_loop_that_does_what_ours_does_gives_the_same_bits(optimizer: str, masks: Any) -> None:
    if optimizer == "adam":
        recipe = Recipe(iterations=T, batch_size=50, lr=3e-3, eval_every=GRID)
    else:
        recipe = Recipe(
            optimizer="sgd", iterations=T, batch_size=50, lr=0.1, momentum=0.9, weight_decay=1e-3, eval_every=GRID
        )

    (plain,) = PlainTrainer(build, SPLITS, recipe)([job(masks=masks, save_at=(6,))])
    (mine,) = own(partial(train, optimizer=optimizer, order_of=SEED))([job(masks=masks, save_at=(6,))])
    for a, b in ((plain.end, mine.end), (plain.best, mine.best), (plain.saved[6], mine.saved[6])):
        assert a.step == b.step
        assert all(torch.equal(value, b.params[name]) for name, value in a.params.items())
        assert all(torch.equal(value, b.buffers[name]) for name, value in a.buffers.items())
    assert mine.curve == plain.curve
    assert (mine.early_stop_iteration, mine.censored) == (plain.early_stop_iteration, plain.censored)
    assert mine.test_accuracy == plain.test_accuracy
    assert mine.test_accuracy_at_early_stop == plain.test_accuracy_at_early_stop
    assert (mine.iterations, mine.optimizer_steps, mine.rate_fell) == (T, T, False)


def test_it_keeps_the_contract_of_a_trainer() -> None:
    check_train_fn(own(partial(train, every=1)), job())


def test_the_seed_is_the_familys_and_the_orders() -> None:
    seeds = {(r, k): loop_seed(Seed(0, r, k)) for r in range(50) for k in range(3)}
    assert len(set(seeds.values())) == 150
    assert all(0 <= seed < 2**31 for seed in seeds.values())


def test_global_generators_are_seeded_and_the_callers_left_alone() -> None:
    drawn: list[tuple[float, float, float]] = []

    def loop(model: nn.Module, *, seed: int, iterations: int, record: Record) -> float:  # noqa: ARG001
        nudge(model)
        drawn.append((random.random(), float(numpy.random.rand()), float(torch.rand(()))))
        return 0.5

    torch.manual_seed(1)
    random.seed(1)
    numpy.random.seed(1)
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()  # type: ignore[index]
    jobs = [job(), job(masks=half(start())), job(seed=replace(SEED, order=1))]
    own(loop, None)(jobs)
    after = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()  # type: ignore[index]
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_what_an_outcome_holds_without_reports() -> None:
    (found,) = own(partial(train, quiet=True))([job()])
    assert found.result is RunResult.FINISHED
    assert found.curve.steps == ()
    assert (found.early_stop_iteration, found.test_accuracy_at_early_stop) == (None, None)
    assert found.test_accuracy is not None


def test_accuracy_alone_gives_no_early_stop() -> None:
    def loop(model: nn.Module, *, seed: int, iterations: int, record: Record) -> None:  # noqa: ARG001
        nudge(model)
        for step in (4, 8, 12):
            record(step, accuracy=torch.tensor(step / 20))

    (found,) = own(loop)([job()])
    assert found.curve.accuracy == pytest.approx((0.2, 0.4, 0.6))
    assert all(math.isnan(loss) for loss in found.curve.loss)
    assert found.early_stop_iteration is None


def test_what_a_loop_returns_is_the_score_only_without_evaluate() -> None:
    def loop(model: nn.Module, *, seed: int, iterations: int, record: Record) -> Any:  # noqa: ARG001
        nudge(model)
        return numpy.float32(0.25)

    (found,) = own(loop, None)([job()])
    assert found.test_accuracy == 0.25
    assert found.curve.steps == ()
    (found,) = own(loop, lambda _: 0.75)([job()])
    assert found.test_accuracy == 0.75
    assert found.curve.steps == (T,)
    assert found.curve.accuracy == (0.25,)


def test_the_early_stop_has_its_own_score() -> None:
    """The network of the least loss is scored, with its batch-norm statistics, and not the last one."""

    def loop(model: nn.Module, *, seed: int, iterations: int, record: Record) -> None:  # noqa: ARG001
        for step in range(1, iterations + 1):
            with torch.no_grad():
                model[4].bias.fill_(step)
                model[2].running_mean.fill_(step)
            record(step, loss=abs(step - 5))

    (found,) = own(loop, lambda model: model[4].bias[0] + model[2].running_mean[0] / 100)([job()])
    assert found.early_stop_iteration == 5
    assert found.test_accuracy == pytest.approx(12.12)
    assert found.test_accuracy_at_early_stop == pytest.approx(5.05)


Spoil = Callable[[nn.Module, Record], Any]


def spoiled(spoil: Spoil) -> Callable[..., Any]:
    def loop(model: nn.Module, *, seed: int, iterations: int, record: Record) -> Any:
        train(model, seed=seed, iterations=iterations, record=record, quiet=True)
        return spoil(model, record)

    return loop


def revive(model: nn.Module, _: Record) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1


def rebuild(model: nn.Module, _: Record) -> None:
    model[1] = nn.Identity()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda _, r: r(0.5), "a whole number of iterations"),
        (lambda _, r: r(T + 1), "step 13 in a run from 0 to 12"),
        (lambda _, r: [r(6), r(6)], "step 6 in a run from 0 to 12, after 6"),
        (lambda _, r: r(6, loss="low"), "loss that the loop reports at step 6 is a str; expected one number"),
        (lambda _, r: r(6, loss=torch.ones(2)), "not one number"),
        (lambda m, _: m, "what the training loop returns .* is a Sequential"),
        (revive, "pruned weights of '1.weight' are not zero after training.*reapply"),
        (rebuild, "'1.weight' is gone after training"),
    ],
)  # fmt: skip
def test_a_loop_that_breaks_its_contract_is_told_so(spoil: Spoil, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        own(spoiled(spoil))([job(masks=half(start()))])
    assert not optim_module._global_optimizer_post_hooks


def test_weights_written_by_hand_and_masked_again_are_fine() -> None:
    from tombola.attach import attached

    def mend(model: nn.Module, record: Record) -> None:
        revive(model, record)
        attached(model).reapply()

    masks = half(start())
    (found,) = own(spoiled(mend))([job(masks=masks)])
    assert all(not found.end.params[name][~mask].any() for name, mask in masks.items())


def test_a_report_before_training_is_not_part_of_the_curve() -> None:
    def loop(model: nn.Module, *, seed: int, iterations: int, record: Record) -> None:  # noqa: ARG001
        record(0, loss=0.1)
        nudge(model)
        record(6, loss=0.5)

    (found,) = own(loop)([job()])
    assert found.curve.steps == (6,)
    assert found.early_stop_iteration == 6


@pytest.mark.parametrize("swallows", [False, True])
def test_a_loss_that_is_not_finite_ends_the_run(swallows: bool) -> None:
    went_on: list[int] = []

    def loop(model: nn.Module, *, seed: int, iterations: int, record: Record) -> None:  # noqa: ARG001
        for step in range(1, iterations + 1):
            try:
                record(step, loss=math.nan if step == 4 else 1.0)
            except Exception:
                if not swallows:
                    raise
            went_on.append(step)

    (found,) = own(loop)([job()])
    assert found.result is RunResult.DIVERGED
    assert found.sentence == "diverged: the validation loss is nan at iteration 4"
    assert found.iterations == (T if swallows else 4)
    assert found.test_accuracy is None
    assert (went_on[-1] == T) == swallows


def test_weights_and_scores_that_are_not_finite_are_no_result() -> None:
    def ruin(model: nn.Module, _: Record) -> None:
        with torch.no_grad():
            model[4].bias.fill_(math.inf)

    (found,) = own(spoiled(ruin))([job()])
    assert found.sentence == f"diverged: the weights are not finite after iteration {T}"
    (found,) = own(evaluate=lambda _: math.nan)([job()])
    assert found.sentence == f"diverged: the score is nan after iteration {T}"
    (found,) = own(spoiled(lambda m, r: -math.inf), None)([job()])  # noqa: ARG005
    assert found.sentence == "diverged: the loop returned a score of -inf"
    assert found.result is RunResult.DIVERGED


def test_without_any_score_the_loop_is_asked_for_one() -> None:
    with pytest.raises(InvalidValue, match=r"Let the loop return it, or give evaluate\(model\)"):
        own(evaluate=None)([job()])


def test_rewinding_by_report_and_by_checkpoint() -> None:
    def hand_over(model: nn.Module, *, seed: int, iterations: int, record: Record) -> None:
        kept: dict[str, torch.Tensor] = {}

        class Spy:
            start, stop = record.start, record.stop

            def __call__(self, step: int, **values: float) -> None:  # noqa: ARG002
                if step == 6:
                    kept.update({f"module._orig_mod.{n}": v.clone() for n, v in model.state_dict().items()})

        train(model, seed=seed, iterations=iterations, record=Spy())  # type: ignore[arg-type]
        record.checkpoint(6, kept)
        record.checkpoint(7, {})

    (first,) = own()([job(save_at=(6,))])
    (second,) = own(hand_over)([job(save_at=(6,))])
    assert first.saved.keys() == second.saved.keys() == {6}
    for a, b in ((first.saved[6].params, second.saved[6].params), (first.saved[6].buffers, second.saved[6].buffers)):
        assert a.keys() == b.keys()
        assert all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize(
    ("loop", "error", "says"),
    [
        (partial(train, quiet=True), InvalidValue, r"rewinds to step 6 .* reported none. Call record\(6\)"),
        (spoiled(lambda _, r: r.checkpoint(6, {})), InvalidValue, r"lacks 1\.bias, 1\.weight"),
        (spoiled(lambda m, r: r.checkpoint(6, {n: v.flatten()[:1] for n, v in m.state_dict().items()})),
         ShapeMismatch, "has shape"),
    ],
)  # fmt: skip
def test_a_rewind_without_its_network_is_refused(loop: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        own(loop)([job(save_at=(6,))])


def test_falling_rates_are_seen_and_warm_up_is_none() -> None:
    def scheduled(kind: str) -> Callable[..., None]:
        def loop(model: nn.Module, *, seed: int, iterations: int, record: Record) -> None:  # noqa: ARG001
            steps = torch.optim.SGD(model.parameters(), lr=0.1)
            schedule: Any = (
                torch.optim.lr_scheduler.CosineAnnealingLR(steps, iterations)
                if kind == "cosine"
                else torch.optim.lr_scheduler.LinearLR(steps, 0.1, 1.0, iterations // 2)
            )
            for _ in range(iterations):
                model(torch.randn(8, 64)).square().mean().backward()
                steps.step()
                schedule.step()

        return loop

    (falling,), (rising,) = own(scheduled("cosine"))([job()]), own(scheduled("warmup"))([job()])
    assert (falling.rate_fell, rising.rate_fell) == (True, False)
    assert falling.optimizer_steps == rising.optimizer_steps == T


@pytest.mark.parametrize(("later", "fell"), [(0.001, True), (0.1, False), (0.5, False)])
def test_a_new_optimiser_with_a_smaller_rate_is_a_falling_rate(later: float, fell: bool) -> None:
    def loop(model: nn.Module, *, seed: int, iterations: int, record: Record) -> None:  # noqa: ARG001
        for rate in (0.1, later):
            steps = torch.optim.SGD(model.parameters(), lr=rate)
            model(torch.randn(8, 64)).square().mean().backward()
            steps.step()

    (found,) = own(loop)([job()])
    assert found.rate_fell == fell


def test_two_optimisers_at_two_rates_are_no_falling_rate() -> None:
    def loop(model: nn.Module, *, seed: int, iterations: int, record: Record) -> None:  # noqa: ARG001
        first, *rest = model.parameters()
        both = torch.optim.SGD([first], lr=0.5), torch.optim.Adam(rest, lr=0.001)
        for _ in range(3):
            model(torch.randn(8, 64)).square().mean().backward()
            for steps in both:
                steps.step()

    (found,) = own(loop)([job()])
    assert not found.rate_fell


def test_an_optimiser_of_another_network_is_not_counted() -> None:
    other = nn.Linear(2, 2)
    (found,) = own(spoiled(lambda m, r: torch.optim.SGD(other.parameters(), lr=0.1).step()))([job()])  # noqa: ARG005
    assert found.optimizer_steps == T


def test_an_error_of_the_loop_is_its_own_and_says_where() -> None:
    def fail(model: nn.Module, record: Record) -> None:  # noqa: ARG001
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        own(spoiled(fail))([job(masks=half(start()), name="reinit")])
    assert caught.value.__notes__ == [f"(in the run 'reinit' of family 0, from iteration 0 to {T})"]
    assert not optim_module._global_optimizer_post_hooks


def test_pruned_weights_are_zero_in_everything_that_is_kept() -> None:
    masks = half(start())
    (found,) = own()([job(masks=masks, save_at=(6,))])
    for snapshot in (found.end, found.best, found.saved[6]):
        applied = apply(snapshot.params, masks)
        assert all(torch.equal(value, applied[name]) for name, value in snapshot.params.items())
