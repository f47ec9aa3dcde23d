"""Exactly k of the best, ties included, of any number."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from tombola.errors import ImpossibleDensity, InvalidScores
from tombola.prune.allocation import Global
from tombola.prune.counting import half_up
from tombola.prune.evidence import Evidence
from tombola.prune.pruner import imp
from tombola.prune.select import count_top, keep_top, select

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
VALUES = st.sampled_from([-math.inf, -3.0, -0.0, 0.0, 1.0, 1.0, 2.5, 1e30, math.inf])


def generator(seed: int = 0) -> torch.Generator:
    """Give a CPU generator."""
    return torch.Generator().manual_seed(seed)


@st.composite
def scores(draw: st.DrawFn) -> Tensor:
    """Draw a vector full of ties and infinities."""
    return torch.tensor(draw(st.lists(VALUES, min_size=0, max_size=40)), dtype=draw(st.sampled_from(FLOATS)))


@given(scores(), st.fractions(0, 1, max_denominator=40), st.booleans())
@settings(deadline=None, max_examples=200)
def test_exactly_k_are_kept_and_they_are_the_best(values: Tensor, rate: Fraction, seeded: bool) -> None:
    alive = int((values > -math.inf).sum())
    count = alive - half_up(rate * alive)
    keep = keep_top(values, count, generator() if seeded else None)
    assert keep.dtype is torch.bool
    assert int(keep.sum()) == count
    assert not bool(keep[values == -math.inf].any()), "a pruned entry never comes back"
    if 0 < count < values.numel():
        assert float(values[keep].min()) >= float(values[~keep].max())
    again = keep_top(values, count, generator() if seeded else None)
    assert torch.equal(keep, again)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [0.0, 1.0, -2.0, math.inf])
@pytest.mark.parametrize("seeded", [True, False])
def test_equal_scores_keep_exactly_k(dtype: torch.dtype, value: float, seeded: bool) -> None:
    for count in (0, 1, 199, 200, 500, 999, 1000):
        keep = keep_top(torch.full((1000,), value, dtype=dtype), count, generator() if seeded else None)
        assert int(keep.sum()) == count


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_layer_is_full_of_ties_and_keeps_exactly_k(dtype: torch.dtype) -> None:
    values = torch.randn(30_000, generator=generator()).to(dtype).abs()
    assert values.unique().numel() < 20_000
    keep = keep_top(values, 6_000)
    assert int(keep.sum()) == 6_000
    assert float(values[keep].min()) >= float(values[~keep].max())


def test_a_sign_constant_layer_is_one_tie() -> None:
    weights = torch.randn(1000, generator=generator()).sign() * 0.05
    assert int(keep_top(weights.abs(), 800, generator()).sum()) == 800


def test_without_a_generator_earlier_entries_win_ties() -> None:
    assert keep_top(torch.tensor([1.0, 0.0, 1.0, 1.0]), 2).tolist() == [True, False, True, False]


def test_minus_zero_ties_with_zero() -> None:
    assert keep_top(torch.tensor([-0.0, 0.0, -0.0]), 2).tolist() == [True, True, False]


def test_seeded_ties_are_broken_uniformly() -> None:
    rng, chosen = generator(1), torch.zeros(12)
    for _ in range(3000):
        chosen += keep_top(torch.tensor([2.0] + 12 * [1.0] + [0.0]), 5, rng)[1:13]
    assert int(chosen.sum()) == 4 * 3000
    # Each of the 12 is kept with probability 1/3, and choices within a draw exclude each other.
    statistic = float(((chosen - 1000).square() / (3000 * (1 / 3) * (2 / 3))).sum()) * 11 / 12
    assert stats.chi2.sf(statistic, 11) > 1e-3


def test_another_seed_breaks_ties_otherwise_and_leaves_the_rest() -> None:
    values = torch.tensor([5.0, 4.0] + 50 * [1.0] + 10 * [0.0])
    first, second = (keep_top(values, 27, generator(seed)) for seed in (0, 1))
    assert not torch.equal(first, second)
    assert first[:2].all()
    assert second[:2].all()
    assert not first[52:].any()


def test_without_ties_the_seed_does_not_matter() -> None:
    values = torch.randperm(500, generator=generator()).float()
    assert torch.equal(keep_top(values, 123, generator(0)), keep_top(values, 123, generator(1)))


def test_nan_has_no_rank() -> None:
    values = torch.tensor([1.0, math.nan, math.nan])
    with pytest.raises(InvalidScores, match="2 of the 3 scores of 'fc1' are NaN"):
        select({"fc1": values}, {"fc1": 1})


@pytest.mark.parametrize("count", [3, -1])
def test_more_than_are_left_or_fewer_than_none_is_refused(count: int) -> None:
    with pytest.raises(ImpossibleDensity, match=f"keep {count} weights of 'fc1', which has 2 of 3 left"):
        select({"fc1": torch.tensor([1.0, -math.inf, 2.0])}, {"fc1": count})


def test_shapes_come_back_and_tensors_are_chosen_one_by_one() -> None:
    values = {"a": torch.rand(3, 4, generator=generator()), "b": torch.tensor(1.0), "c": torch.zeros(0, 2)}
    kept = select(values, {"a": 5, "b": 1, "c": 0})
    assert {name: tuple(mask.shape) for name, mask in kept.items()} == {"a": (3, 4), "b": (), "c": (0, 2)}
    assert {name: int(mask.sum()) for name, mask in kept.items()} == {"a": 5, "b": 1, "c": 0}
    transposed = select({"a": values["a"].T}, {"a": 5})["a"]
    assert torch.equal(transposed, kept["a"].T), "a strided tensor is ranked like a contiguous one"


@given(st.lists(scores(), min_size=1, max_size=5), st.fractions(0, 1, max_denominator=40), st.booleans())
@settings(deadline=None, max_examples=200)
def test_several_vectors_are_ranked_as_one(parts: list[Tensor], rate: Fraction, seeded: bool) -> None:
    pooled = torch.cat(parts)
    count = half_up(rate * int((pooled > -math.inf).sum()))
    keep = keep_top(pooled, count, generator() if seeded else None)
    found = count_top(parts, count, generator() if seeded else None)
    assert found == [int(part.sum()) for part in keep.split([part.numel() for part in parts])]


@given(scores(), st.fractions(0, 1, max_denominator=40))
@settings(deadline=None, max_examples=100)
def test_a_stable_sort_chooses_the_same(values: Tensor, rate: Fraction) -> None:
    count = half_up(rate * int((values > -math.inf).sum()))
    best = values.argsort(descending=True, stable=True)[:count]
    assert torch.equal(keep_top(values, count), torch.zeros(len(values), dtype=torch.bool).index_fill_(0, best, True))


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e30])
def test_every_digit_of_a_score_counts(scale: float) -> None:
    values = (torch.randn(70_000, dtype=torch.float64, generator=generator()) * scale).float()
    for part in (values, values.double().add(1e-300), -values.abs(), torch.nextafter(torch.ones(()), values)):
        for count in (1, 6_999, 35_000, 69_999):
            assert float(part[keep_top(part, count)].min()) == float(part.sort(descending=True).values[count - 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("seeded", [True, False])
def test_beyond_two_to_the_24_the_count_is_exact(dtype: torch.dtype, seeded: bool) -> None:
    """Where float32 stops counting by ones and ``torch.quantile`` refuses; with nothing but ties."""
    size = 2**24 + 3
    params = {"a": torch.ones(size, dtype=dtype), "b": torch.full((7,), 2.0, dtype=dtype)}
    evidence = Evidence(generator=generator() if seeded else None)
    masks = imp("0.2", allocation=Global()).prune(1, params, {n: p > 0 for n, p in params.items()}, evidence)
    removed = half_up(Fraction(size + 7, 5))
    assert int(masks["b"].count_nonzero()) == 7
    assert int(masks["a"].count_nonzero()) == size - removed
    assert bool(masks["a"][2**24 :].any()) == seeded, "without a generator the last ones go"


# Negative control
def test_the_quantile_of_so_many_is_refused_by_torch() -> None:
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(torch.ones(2**24 + 3), 0.2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_gpu_chooses_what_a_cpu_chooses(dtype: torch.dtype) -> None:
    values = (torch.randn(100_000, generator=generator()) * 4).round().to(dtype).abs()
    for count in (0, 1, 777, 50_000, 99_999, 100_000):
        for seed in (None, 3):
            rngs = [None if seed is None else generator(seed) for _ in range(2)]
            assert torch.equal(keep_top(values, count, rngs[0]), keep_top(values.cuda(), count, rngs[1]).cpu())
