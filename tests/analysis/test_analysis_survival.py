"""Survival and sign flips, against brute force and by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.analysis.signs import flips
from tombola.analysis.survival import auc, ranks, survival
from tombola.errors import InvalidValue, ShapeMismatch

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30)


@given(PAIRS)
@settings(deadline=None)
def test_the_auc_is_the_share_of_pairs_won_ties_counting_half(drawn: list[tuple[int, bool]]) -> None:
    values = torch.tensor([float(value) for value, _ in drawn], dtype=torch.float64)
    kept = torch.tensor([keep for _, keep in drawn])
    won = [(a > b) + (a == b) / 2 for a in values[kept] for b in values[~kept]]
    found = auc(ranks(values), kept)
    assert found == (pytest.approx(float(sum(won) / len(won))) if won else None)


@given(PAIRS)
@settings(deadline=None)
def test_deciles_hold_every_weight_once_and_equal_ones_together(drawn: list[tuple[int, bool]]) -> None:
    values, kept = torch.tensor([float(v) for v, _ in drawn]), torch.tensor([k for _, k in drawn])
    found = survival({"w": values}, {"w": kept})["w"]
    assert len(found.deciles) == 10
    assert sum(one.size for one in found.deciles) == len(drawn)
    alive = sum(round(one.size * one.survived) for one in found.deciles if one.survived is not None)
    assert alive == int(kept.sum())
    sizes = {int((values == v).sum()) for v in values}
    assert all(one.size == 0 or one.size >= min(sizes) for one in found.deciles)


def test_deciles_are_tenths_without_ties() -> None:
    values = -torch.arange(1.0, 41)
    found = survival({"w": values}, {"w": values.abs() > 38})["w"]
    assert [one.size for one in found.deciles] == [4] * 10
    assert [one.survived for one in found.deciles] == [0.0] * 9 + [0.5]
    assert (found.auc, found.mean_kept, found.mean_pruned) == (1.0, 39.5, 19.5)


def test_a_mask_of_everything_says_nothing() -> None:
    found = survival({"w": torch.ones(3)}, {"w": torch.ones(3, dtype=torch.bool)})["w"]
    assert (found.auc, found.mean_kept, found.mean_pruned) == (None, 1.0, None)


def test_flips_on_a_hand_example() -> None:
    """Kept: 1 of 3 flips; pruned: 2 of 4; three never moved and dilute nothing."""
    w_0 = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 5.0, -5.0, 0.0])
    w_T = torch.tensor([2.0, -2.0, 3.0, 0.1, 0.1, -0.1, 0.1, 5.0, -5.0, 0.0])
    kept = torch.tensor([True, True, True, False, False, False, False, True, False, False])
    found = flips({"w": w_0}, {"w": w_T}, {"w": kept})["w"]
    assert (found.kept, found.kept_flipped, found.pruned, found.pruned_flipped, found.unmoved) == (3, 1, 4, 2, 3)
    assert (found.rate, found.rate_kept, found.rate_pruned) == (3 / 7, 1 / 3, 2 / 4)
    assert found.log_odds_ratio == pytest.approx(math.log((1.5 / 2.5) / (2.5 / 2.5)))


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.booleans()), min_size=1, max_size=30))
@settings(deadline=None)
def test_kept_pruned_and_unmoved_partition_the_weights(drawn: list[tuple[int, int, bool]]) -> None:
    w_0, w_T = (torch.tensor([float(one[side]) for one in drawn]) for side in range(2))
    kept = torch.tensor([one[2] for one in drawn])
    found = flips({"w": w_0}, {"w": w_T}, {"w": kept})["w"]
    assert found.kept + found.pruned + found.unmoved == len(drawn)
    assert found.kept_flipped + found.pruned_flipped == sum((a > 0) - (a < 0) != (b > 0) - (b < 0) for a, b, _ in drawn)
    swapped = flips({"w": w_0}, {"w": w_T}, {"w": ~kept})["w"]
    if found.log_odds_ratio is not None:
        assert swapped.log_odds_ratio == pytest.approx(-found.log_odds_ratio)


def test_a_table_without_a_side_has_no_odds() -> None:
    w_0, w_T, everything = torch.ones(3), -torch.ones(3), torch.ones(3, dtype=torch.bool)
    found = flips({"w": w_0}, {"w": w_T}, {"w": everything})["w"]
    assert (found.rate_pruned, found.log_odds_ratio) == (None, None)


def test_masks_that_do_not_fit_are_named() -> None:
    w = {"w": torch.ones(3)}
    with pytest.raises(ShapeMismatch, match="mask 'w'"):
        survival(w, {"w": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(InvalidValue, match=r"torch.bool"):
        flips(w, w, {"w": torch.ones(3)})
    with pytest.raises(ShapeMismatch, match="among the trained weights"):
        flips(w, {}, {"w": torch.ones(3, dtype=torch.bool)})
