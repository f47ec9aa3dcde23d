"""The composition: totals, minima, emptied layers, criteria that break their contract."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tombola.errors import (
    EmptiedLayer,
    ImpossibleDensity,
    InvalidScores,
    InvalidValue,
    MissingEvidence,
    ShapeMismatch,
    UnknownName,
)
from tombola.prune.allocation import ERK, LAMP, Allocation, Global, LayerRates, Uniform
from tombola.prune.counting import Cut
from tombola.prune.criteria import magnitude, random
from tombola.prune.evidence import Evidence, scored
from tombola.prune.masks import counts, kept, ones
from tombola.prune.pruner import Pruner, imp, one_shot, train_prune_finetune
from tombola.prune.schedules import Geometric, Ladder, geometric, ladder

SIZES = {"a": (40, 30), "b": (8,), "c": (5, 4)}


def weights(shapes: Mapping[str, tuple[int, ...]] = SIZES, seed: int = 0) -> dict[str, Tensor]:
    """Draw weights."""
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


@pytest.mark.parametrize("allocation", [LayerRates({"t0": Fraction(1, 2)}), Uniform(), Global(), ERK(), LAMP()])
@given(st.lists(st.integers(1, 60), min_size=1, max_size=25), st.integers(1, 100))
@settings(deadline=None)
def test_a_density_is_met_to_one_weight(allocation: Allocation, sizes: list[int], percent: int) -> None:
    """``density`` is the fraction of the original prunable weights, whatever the allocation."""
    shapes = {f"t{i}": (size,) for i, size in enumerate(sizes)}
    dense = {name: size for name, (size,) in shapes.items()}
    wanted = math.floor(Fraction(percent, 100) * sum(sizes) + Fraction(1, 2))
    assume(wanted >= 1)
    planned = allocation.plan(shapes, dense, Cut(density=Fraction(percent, 100)))
    assert abs(sum(planned.values()) - wanted) <= 1
    assert all(0 <= planned[name] <= dense[name] for name in shapes)
    assert sum(allocation.plan(shapes, dense, Cut(keep=wanted)).values()) == wanted


def test_many_small_tensors_alike_do_not_add_up_their_roundings() -> None:
    shapes = {f"t{i}": (5,) for i in range(20)}
    planned = one_shot(0.5, allocation=Uniform()).plan(shapes, 1)[1]
    assert sum(planned.values()) == 50, "not 20 times floor(2.5 + 1/2)"
    assert set(planned.values()) == {2, 3}


@pytest.mark.parametrize("allocation", [Uniform(), LayerRates()])
def test_a_tensor_that_would_be_emptied_is_named_before_training(allocation: Uniform) -> None:
    with pytest.raises(EmptiedLayer, match=r"would empty 'b': 0 of its \d+ weights would be left"):
        one_shot("0.01", allocation=allocation).plan({"a": (1000, 1000), "b": (3, 1), "z": (1, 999)}, 1)


@pytest.mark.parametrize("allocation", [Global(), LAMP()])
def test_a_small_tensor_is_not_refused_before_its_scores_are_known(allocation: Global) -> None:
    shapes = {"a": (1000, 1000), "b": (2,)}
    planned = one_shot("0.01", allocation=allocation).plan(shapes, 1)[1]
    assert planned == {"a": 9999, "b": 1}
    with pytest.raises(EmptiedLayer, match="would empty"):
        one_shot(Fraction(1, 1_000_002), allocation=allocation).plan(shapes, 1)


def test_a_global_cut_that_empties_a_tensor_names_it_or_keeps_the_minimum() -> None:
    params = weights()
    params["b"] = params["b"] * 1e-6
    pruner = one_shot("0.2", allocation=Global())
    with pytest.raises(EmptiedLayer, match="would empty 'b': 0 of its 8 weights"):
        pruner.prune_dense(1, params, tuple(params), Evidence())
    for least in (1, 3, 8, 9):
        found = Pruner(allocation=Global(), schedule=geometric(0.2, 1), min_keep=least).prune_dense(
            1, params, tuple(params), Evidence()
        )
        assert kept(found) == math.floor(Fraction(1, 5) * 1228 + Fraction(1, 2)), "the total stays"
        assert counts(found)["b"] == min(least, 8)


def test_a_minimum_that_the_total_cannot_hold_is_refused_before_training() -> None:
    with pytest.raises(ImpossibleDensity, match=r"12 weights are to be kept, and at least 5 in each of 3 tensors"):
        Pruner(schedule=geometric("0.01", 1), min_keep=5).plan(SIZES, 1)
    with pytest.raises(InvalidValue, match="min_keep is -1"):
        Pruner(min_keep=-1)


def test_impossible_densities_are_refused_before_training() -> None:
    for bad in (0, -0.1, 1.5, 20):
        with pytest.raises(ImpossibleDensity, match="above 0 and at most 1"):
            one_shot(bad)
    with pytest.raises(ImpossibleDensity, match=r"For 20 % write 0.2"):
        geometric(20, 3)
    with pytest.raises(ImpossibleDensity, match=r"The least density here is 1/1228"):
        one_shot("0.0001").plan(SIZES, 1)
    with pytest.raises(InvalidValue, match="0 rounds"):
        geometric(0.5, 0)
    for rate in (0, 1, 1.2):
        with pytest.raises(InvalidValue, match="a round removes a fraction between 0 and 1"):
            ladder(rate)


def test_a_users_schedule_that_grows_is_refused_before_training() -> None:
    with pytest.raises(ImpossibleDensity, match="A mask never grows"):
        Pruner(schedule=lambda level: geometric(0.1 * level, 1)(1)).plan(SIZES, 2)


def test_multipliers_that_make_no_rate_are_refused() -> None:
    for bad in (Fraction(-1), Fraction(5), Fraction(6)):
        with pytest.raises(InvalidValue, match="the multiplier of 'w' is"):
            LayerRates({"w": bad})
    with pytest.raises(InvalidValue, match=r"the rate of 'w' is 1.2"):
        imp("0.4", allocation=LayerRates({"w": Fraction(3)})).plan({"w": (100,)}, 1)


def test_a_tensor_at_rate_zero_is_never_pruned() -> None:
    shapes = {"a": (100,), "b": (100,)}
    rates = LayerRates({"b": Fraction(0)})
    assert one_shot("0.75", allocation=rates).plan(shapes, 1)[1] == {"a": 50, "b": 100}
    assert imp("0.2", allocation=rates).plan(shapes, 1)[1] == {"a": 80, "b": 100}
    with pytest.raises(ImpossibleDensity, match="100 of them are in tensors that are never pruned"):
        one_shot("0.4", allocation=rates).plan(shapes, 1)


def test_the_same_generator_makes_the_same_mask_and_ties_need_one() -> None:
    params = {name: torch.ones(shape) for name, shape in SIZES.items()}
    pruner = one_shot("0.3", allocation=Uniform())

    def mask(seed: int | None) -> Tensor:
        rng = None if seed is None else torch.Generator().manual_seed(seed)
        return pruner.prune_dense(1, params, "abc", Evidence(generator=rng))["a"]

    assert torch.equal(mask(0), mask(0))
    assert not torch.equal(mask(0), mask(1))
    assert mask(None).reshape(-1).tolist() == 360 * [True] + 840 * [False]


def test_a_dead_weight_does_not_come_back_whatever_the_criterion_says() -> None:
    masks = {"w": torch.tensor([True, False, True, True])}

    def loves_the_dead(_: object, masks: Mapping[str, Tensor], __: object) -> dict[str, Tensor]:
        return {name: torch.where(mask, 0.0, 9.0) for name, mask in masks.items()}

    found = Pruner(criterion=loves_the_dead, allocation=Uniform(), schedule=geometric("0.5", 1)).prune(
        1, {"w": torch.zeros(4)}, masks, Evidence()
    )
    assert found["w"].tolist() == [True, False, True, False], "and an alive weight may be exactly 0"


def test_magnitude_and_random_and_what_they_need() -> None:
    params, masks = {"w": torch.tensor([3.0, -4.0, 0.5])}, {"w": torch.tensor([True, True, False])}
    assert magnitude(params, masks, Evidence())["w"].tolist() == [3.0, 4.0, -math.inf]
    with pytest.raises(MissingEvidence, match=r"needs 'generator', and the evidence holds theta_0"):
        random(params, masks, Evidence(theta_0=params))
    draws = random(params, masks, Evidence(generator=torch.Generator().manual_seed(0)))["w"]
    assert draws.dtype is torch.float64
    assert draws[2] == -math.inf


BROKEN: dict[str, tuple[Callable[[Tensor], object], type[Exception], str]] = {
    "missing name": (lambda _: {}, InvalidScores, "gave no scores for 'w'"),
    "not a mapping": (lambda w: w, InvalidScores, "the criterion gave a Tensor"),
    "not a tensor": (lambda _: {"w": [1.0]}, InvalidScores, "gave a list for 'w'"),
    "integers": (lambda w: {"w": w.long()}, InvalidScores, r"gave a tensor of torch.int64 for 'w'"),
    "shape": (lambda w: {"w": w[:1]}, ShapeMismatch, r"gave 'w' scores of shape \(1,\), and its mask has \(3,\)"),
    "device": (lambda w: {"w": w.to("meta")}, InvalidScores, "gave 'w' scores on meta, and its mask is on cpu"),
    "nan": (lambda w: {"w": w * math.nan}, InvalidScores, "gave NaN for weights of 'w'"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_criterion_that_breaks_its_contract_is_told_how(fault: str) -> None:
    broken, error, sentence = BROKEN[fault]

    def criterion(params: Mapping[str, Tensor], *_: object) -> object:
        return broken(params["w"])

    pruner = Pruner(criterion=criterion, allocation=Global(), schedule=geometric("0.5", 1))  # type: ignore[arg-type]
    with pytest.raises(error, match=sentence):
        pruner.prune_dense(1, {"w": torch.ones(3)}, ["w"], Evidence())


def test_a_criterion_may_score_more_than_it_must() -> None:
    params = {"w": torch.tensor([1.0, math.nan]), "bias": torch.ones(2)}
    masks = {"w": torch.tensor([True, False])}

    def everything(params: Mapping[str, Tensor], *_: object) -> dict[str, Tensor]:
        return {name: value.requires_grad_() for name, value in params.items()}

    found = scored(everything, params, masks, Evidence())
    assert found.keys() == {"w"}
    assert found["w"].tolist() == [1.0, -math.inf], "NaN under a pruned entry does no harm"
    assert not found["w"].requires_grad


def test_prune_refuses_wrong_calls() -> None:
    params = weights()
    with pytest.raises(InvalidValue, match="level 0 is not made by pruning"):
        imp().prune(0, params, ones(params, params), Evidence())
    with pytest.raises(ShapeMismatch, match="mask 'a' has shape"):
        imp().prune(1, params, {"a": torch.ones(2, dtype=torch.bool)}, Evidence())
    thin = {"a": torch.arange(1200).reshape(40, 30) < 5}
    with pytest.raises(ImpossibleDensity, match="keep 960 weights of 'a', which has 5 of 1200 left"):
        imp(allocation=Uniform()).prune(1, {"a": params["a"]}, thin, Evidence())


def test_the_aliases_are_compositions() -> None:
    assert imp() == Pruner()
    assert imp(0.1).schedule == Ladder(Fraction(1, 10))
    assert one_shot(0.1).from_dense
    assert one_shot(0.1).schedule == Geometric(Fraction(1, 10), 1)
    tuned = train_prune_finetune(extra=50)
    assert (tuned.rewind.weights, tuned.rewind.position, tuned.rewind.extra) == ("end", "end", 50)


def test_unknown_names_suggest_the_nearest() -> None:
    error = UnknownName.among("allocation", "unifrom", ["uniform", "erk"])
    assert "Did you mean 'uniform'" in str(error)
