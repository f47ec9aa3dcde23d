"""The theorems' numbers, and the measured law against problems that are solved."""

import math

import pytest
import torch

from tombola.errors import InvalidValue
from tombola.strong import bounds
from tombola.strong.subset_sum import nearest


def test_one_pair_for_each_weight_takes_what_malach_says() -> None:
    """621 tries are expected for 0.2 within 1e-3; by chance that is how many it takes."""
    assert bounds.tries(0.2, 1e-3) == pytest.approx(621.3, abs=0.1)
    assert bounds.malach(0.2, 1e-3, 266_610) == pytest.approx(621.3 * math.log(266_610 / 0.01), rel=1e-3)
    rng = torch.Generator().manual_seed(0)
    products = torch.rand(4_000_000, generator=rng) * (torch.rand(4_000_000, generator=rng) * 2 - 1)
    hit = ((products - 0.2).abs() <= 1e-3).double().mean().item()
    assert 1 / hit == pytest.approx(bounds.tries(0.2, 1e-3), rel=0.05)


@pytest.mark.parametrize(("count", "rows"), [(10, 6000), (14, 4000), (18, 2000), (20, 1000)])
def test_the_median_error_follows_the_law(count: int, rows: int) -> None:
    rng = torch.Generator().manual_seed(count)
    items = torch.rand(rows, count, generator=rng).double() * (torch.rand(rows, count, generator=rng).double() * 2 - 1)
    for weight in (0.0, 0.45):
        found = nearest(items, torch.full((rows,), weight).double()).errors.median().item()
        # 0 itself is hit by the empty subset; what is next to it is what the law speaks of.
        found = nearest(items, torch.full((rows,), 1e-2).double()).errors.median().item() if weight == 0 else found
        assert found == pytest.approx(bounds.median_error(count, weight), rel=0.25)


def test_the_law_and_its_inverse_agree_and_fall_by_one_bit_a_candidate() -> None:
    for weight in (0.0, 0.25, 0.5):
        for count in (8, 12, 16, 24):
            assert bounds.candidates(bounds.median_error(count, weight), weight) == pytest.approx(count, abs=1e-6)
    assert bounds.median_error(13) / bounds.median_error(12) == pytest.approx(0.5 * math.sqrt(13 / 12))
    assert [f"{bounds.median_error(n):.1e}" for n in (8, 12, 16, 20)] == ["2.3e-03", "1.7e-04", "1.2e-05", "8.7e-07"]


def test_all_ask_for_more_where_less_may_go_wrong() -> None:
    for error in (1e-2, 1e-3, 1e-4):
        assert bounds.malach(0.3, error) > bounds.orseau(error) > bounds.lueker(error) > bounds.candidates(error)
        assert bounds.lueker(error / 2, 1e-6) >= bounds.lueker(error, 1e-6)
        assert bounds.orseau(error / 2) > bounds.orseau(error)
        assert bounds.orseau(error, weights=1000) > bounds.orseau(error)
        assert bounds.malach(0.3, error / 2) == pytest.approx(2 * bounds.malach(0.3, error))
    # Pair by pair the need grows with 1/error, and by subsets with its logarithm.
    assert bounds.malach(0.3, 1e-6) / bounds.malach(0.3, 1e-3) == pytest.approx(1000)
    assert bounds.lueker(1e-6, 1e-7) == bounds.lueker(1e-3, 1e-7)
    assert bounds.lueker(1e-6, 0.5) / bounds.lueker(1e-3, 0.5) == pytest.approx(math.log2(2e6) / math.log2(2e3))
    assert bounds.miss(1) == 1
    assert bounds.miss(20) == pytest.approx(6.2e-4, rel=0.01)


@pytest.mark.parametrize("error", [0.0, -1.0, math.nan, math.inf])
def test_an_error_that_is_none_is_refused(error: float) -> None:
    for function in (bounds.lueker, bounds.orseau, bounds.candidates):
        with pytest.raises(InvalidValue, match="above 0"):
            function(error)
    with pytest.raises(InvalidValue, match="above 0"):
        bounds.tries(0.2, error)


def test_what_is_no_probability_and_no_weight_is_refused() -> None:
    with pytest.raises(InvalidValue, match="probability"):
        bounds.lueker(1e-3, 1.0)
    with pytest.raises(InvalidValue, match="the weight is"):
        bounds.tries(1.5, 1e-3)
