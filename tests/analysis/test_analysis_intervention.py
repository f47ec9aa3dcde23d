"""The intervention: masks that go along with their initial values are told from masks that do so mechanically."""

import pytest
import torch
from analysis_kit import COUNTS, SHAPES, rng, start, trained

from tombola.analysis.excess import Excess
from tombola.analysis.intervention import follow, intervention, permuted_start
from tombola.analysis.measurement import Outcome
from tombola.errors import InvalidValue, ShapeMismatch
from tombola.types import Seed, Snapshot

REPEATS, LARGEST = 200, 19
"""A binomial count of 200 at .05 exceeds 19 with probability .003."""


def followed(seed: int, replicate: int, seeking: float = 0.0) -> Excess:
    theta_0 = start(1000 * seed + replicate)
    moved, order = permuted_start(Snapshot(0, theta_0), list(SHAPES), rng(1000 * seed + replicate))
    ends = [trained(w, 1000 * seed + 100 * run + replicate, seeking) for run, w in enumerate((theta_0, moved.params))]
    runs = (theta_0, ends[0]), (moved.params, ends[1])
    return follow(*runs, order, COUNTS, seed=Seed(seed, replicate), draws=3)


def test_the_start_keeps_the_values_of_each_input_and_says_where_they_went() -> None:
    theta_0 = {**start(0), "fc1.bias": torch.arange(24.0)}
    found, order = permuted_start(Snapshot(0, theta_0), list(theta_0), rng(1))
    assert order.keys() == SHAPES.keys()
    for name in SHAPES:
        assert torch.equal(found.params[name].sort(0).values, theta_0[name].sort(0).values)
        assert torch.equal(found.params[name], theta_0[name].gather(0, order[name]))
        assert not torch.equal(found.params[name], theta_0[name])
    assert torch.equal(found.params["fc1.bias"], theta_0["fc1.bias"])
    with pytest.raises(InvalidValue, match="carries an optimiser's state"):
        permuted_start(Snapshot(3, theta_0, optimizer={"fc1.weight": {}}), ["fc1.weight"], rng(0))


def test_a_mask_that_moves_with_its_values_overlaps_in_full() -> None:
    """Training that does nothing: masks are those of |w_0|, before and after the move, and in the null."""
    theta_0 = start(0)
    moved, order = permuted_start(Snapshot(0, theta_0), list(SHAPES), rng(1))
    found = follow((theta_0, theta_0), (moved.params, moved.params), order, COUNTS, seed=Seed(0), draws=2)
    assert found.real > 1
    assert found.excess == 0, "all of it is mechanical"


def test_it_keeps_its_error_rate_where_nothing_seeks() -> None:
    found = [
        intervention({r: followed(seed, r) for r in range(4)})
        for seed in range(REPEATS)
    ]  # fmt: skip
    for outcome in (Outcome.SUPPORTS, Outcome.CONTRADICTS):
        assert sum(one.outcome is outcome for one in found) <= LARGEST
    means = torch.tensor([one.mean for one in found], dtype=torch.float64)
    assert abs(float(means.mean())) < 3.5 * float(means.std()) / REPEATS**0.5
    assert min(value for one in found for value in one.real) > 0.1, "beyond chance, and mechanically so"


def test_it_finds_masks_that_go_along_and_says_so() -> None:
    found = intervention({r: followed(1, r, seeking=0.5) for r in range(4)})
    assert found.outcome is Outcome.SUPPORTS
    assert "the new mask with the old one moved along with the initial values" in found.sentence
    assert intervention({}).outcome is Outcome.NOT_MEASURED


def test_starts_that_do_not_belong_together_are_refused() -> None:
    theta_0 = start(0)
    moved, order = permuted_start(Snapshot(0, theta_0), list(SHAPES), rng(1))
    with pytest.raises(InvalidValue, match="is not the first one permuted in this order"):
        follow((theta_0, theta_0), (start(1), theta_0), order, COUNTS, seed=Seed(0))
    with pytest.raises(ShapeMismatch, match="a start has no such tensor"):
        follow((theta_0, theta_0), ({}, {}), order, COUNTS, seed=Seed(0))
    with pytest.raises(InvalidValue, match="0 of the 2 tensors counted were permuted"):
        follow((theta_0, theta_0), (moved.params, moved.params), {}, COUNTS, seed=Seed(0))
