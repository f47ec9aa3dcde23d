"""Rigging the lottery (Evci et al. 2020): drop the smallest, grow where the gradient is largest."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tombola.errors import InvalidScores, InvalidValue, MissingEvidence, ShapeMismatch
from tombola.prune.dynamic import RigL, rigl
from tombola.prune.masks import counts


def on(*places: int, size: int = 8) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(places)] = True
    return mask


HALF = RigL(end=100, every=50, fraction=1)
"""Drops a half at 50."""
WEIGHTS = torch.tensor([5.0, -4.0, 0.1, -0.2, 0.0, 0.0, 0.0, 0.0])
GRADIENT = torch.tensor([9.0, -9.0, 0.0, 0.3, 0.1, -0.5, 0.2, 0.0])


def update(how: RigL, step: int, weights: Tensor, mask: Tensor, gradient: Tensor | None) -> Tensor:
    found = None if gradient is None else {"w": gradient}
    return how.update(step, {"w": weights}, {"w": mask}, found, None, torch.Generator().manual_seed(0))["w"]


def test_algorithm_1_by_hand() -> None:
    """Of 5, -4, 0.1, -0.2 the last two are dropped. Of what does not stay the gradient is largest at 5 and at 3.

    So 3, just dropped, grows again: Algorithm 1 looks at all entries outside of those that stay. The gradients of
    those that stay, the largest of all, do not count, and neither does the sign.
    """
    assert update(HALF, 50, WEIGHTS, on(0, 1, 2, 3), GRADIENT).tolist() == on(0, 1, 3, 5).tolist()


@pytest.mark.parametrize(("step", "factor"), [(0, 1), (25, 0.5 + math.sqrt(2) / 4), (50, 0.5), (75, 0.146447), (99, 0)])
def test_the_fraction_falls_along_a_cosine(step: int, factor: float) -> None:
    """alpha / 2 (1 + cos(pi t / T_end))."""
    assert float(RigL(end=100, fraction=0.3).fraction_at(step)) == pytest.approx(0.3 * factor, abs=1e-4)


def test_from_the_end_on_nothing_is_dropped() -> None:
    assert HALF.fraction_at(100) == HALF.fraction_at(1000) == 0
    assert RigL(end=100, fraction=0.29).fraction_at(0) == Fraction(29, 100)


def test_the_count_dropped_is_exact_and_that_of_every_tensor_stays() -> None:
    rng = torch.Generator().manual_seed(0)
    names = {"a": (30, 20), "b": (7,), "dense": (4, 4)}
    params = {name: torch.randn(shape, generator=rng).round() for name, shape in names.items()}
    gradient = {name: torch.randn(shape, generator=rng).round() for name, shape in names.items()}
    masks = {name: torch.rand(shape, generator=rng) < 0.3 for name, shape in names.items()}
    masks["dense"] = torch.ones(4, 4, dtype=torch.bool)
    params = {name: value * masks[name] for name, value in params.items()}
    how = RigL(end=1000, every=10, fraction=0.3)
    gone = 0
    for step in (10, 500, 990):
        found = how.update(step, params, masks, gradient, None, torch.Generator().manual_seed(step))
        assert counts(found) == counts(masks)
        assert torch.equal(found["dense"], masks["dense"]), "what is dropped there is all that can grow"
        for name, mask in masks.items():
            dropped = math.floor(how.fraction_at(step) * int(mask.sum()) + Fraction(1, 2))
            assert int((mask & ~found[name]).sum()) <= dropped
            gone += int((mask & ~found[name]).sum())
            # All that was lost is no larger than what stayed.
            lost, stayed = params[name].abs()[mask & ~found[name]], params[name].abs()[mask & found[name]]
            if len(lost):
                assert int((stayed < lost.max()).sum()) <= dropped - len(lost)
    assert gone > 30


def test_the_defaults_are_the_papers() -> None:
    how = rigl(1000)
    assert (how.end, how.every, how.fraction) == (750, 100, Fraction(3, 10))
    assert how.steps == (100, 200, 300, 400, 500, 600, 700)
    assert RigL(end=300).steps == (100, 200), "t < T_end"
    assert how.wants_gradient(100)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(MissingEvidence, match="there is none"):
        update(HALF, 50, WEIGHTS, on(0, 1), None)
    with pytest.raises(ShapeMismatch):
        update(HALF, 50, WEIGHTS, on(0, 1), GRADIENT[:3])
    with pytest.raises(InvalidScores, match="NaN"):
        update(HALF, 50, WEIGHTS, on(0, 1), GRADIENT.log())
    for fraction in (0, 1.5, -1):
        with pytest.raises(InvalidValue, match="above 0, up to 1"):
            RigL(end=10, fraction=fraction)
        with pytest.raises(InvalidValue, match="above 0, up to 1"):
            rigl(10, until=fraction)
    with pytest.raises(InvalidValue, match="every is 0"):
        RigL(end=10, every=0)
