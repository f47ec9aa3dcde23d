"""Sparse evolutionary training (Mocanu et al. 2018): drop the smallest, grow at random."""

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from tombola.errors import InvalidValue
from tombola.prune.dynamic import SET
from tombola.prune.masks import counts

HALF = SET(end=100, every=20, fraction=0.5)
WEIGHTS = torch.tensor([5.0, -4.0, 0.1, -0.2, 0.0, 0.0, 0.0, 0.0])
MASK = torch.tensor([True] * 4 + [False] * 4)


def update(seed: int, how: SET = HALF, weights: Tensor = WEIGHTS, mask: Tensor = MASK) -> Tensor:
    return how.update(20, {"w": weights}, {"w": mask}, None, None, torch.Generator().manual_seed(seed))["w"]


def test_the_smallest_go_and_as_many_grow_at_random() -> None:
    """0.1 and -0.2 are dropped; each of the six that do not stay grows with probability 1/3, 900 times of 2700."""
    grown = Counter[int]()
    for seed in range(2700):
        found = update(seed)
        assert int(found.sum()) == 4
        assert bool(found[0] & found[1])
        grown.update(found.nonzero().reshape(-1).tolist()[2:])
    assert grown.keys() == set(range(2, 8))
    # Five standard deviations of a binomial.
    assert all(abs(times - 900) < 5 * math.sqrt(2700 * 1 / 3 * 2 / 3) for times in grown.values()), grown


def test_the_draw_is_its_generators() -> None:
    assert torch.equal(update(3), update(3))
    assert len({tuple(update(seed).tolist()) for seed in range(20)}) > 5


def test_each_tensor_keeps_its_count_and_loses_its_fraction() -> None:
    rng = torch.Generator().manual_seed(0)
    masks = {"a": torch.rand(40, 50, generator=rng) < 0.1, "b": torch.rand(9, generator=rng) < 0.5}
    masks["dense"] = torch.ones(5, 5, dtype=torch.bool)
    params = {name: torch.randn(mask.shape, generator=rng) * mask for name, mask in masks.items()}
    how = SET(end=100, fraction="3/10")
    found = how.update(100, params, masks, None, None, rng)
    assert counts(found) == counts(masks)
    assert torch.equal(found["dense"], masks["dense"])
    left = params["a"].abs()[masks["a"]].sort().values
    dropped = math.floor(0.3 * len(left) + 0.5)
    threshold = float(left[dropped])
    assert bool(found["a"][params["a"].abs() >= threshold].all())
    fresh = int((found["a"] & ~masks["a"]).sum())
    assert 0.8 * dropped < fresh <= dropped, "nearly all places are free, so few are drawn again"


def test_its_positions() -> None:
    assert HALF.steps == (20, 40, 60, 80), "none at the end"
    assert SET(end=101, every=20).steps == (20, 40, 60, 80, 100)
    assert not HALF.wants_gradient(20)


def test_what_cannot_be_is_refused() -> None:
    for fraction in (0, 1.1):
        with pytest.raises(InvalidValue, match="above 0, up to 1"):
            SET(end=10, fraction=fraction)
    with pytest.raises(InvalidValue, match="end is -1"):
        SET(end=-1)
