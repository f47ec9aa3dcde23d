"""Zhou et al. (2019), section 5: each weight is in with a learned probability; dynamic weight rescaling."""

import pytest
import torch

from tombola.errors import InvalidValue
from tombola.prune.learned import Supermask

SCORES = {"w": torch.tensor([-3.0, 0.0, 0.1, 4.0])}
ALIVE = {"w": torch.ones(4)}


def test_half_and_more_is_in_without_a_draw() -> None:
    assert torch.equal(Supermask(rescale=False).factors(SCORES, ALIVE, None)["w"], torch.tensor([0.0, 1.0, 1.0, 1.0]))


def test_what_is_in_is_multiplied_by_the_size_over_their_number() -> None:
    found = Supermask(rescale=True).factors(SCORES, ALIVE, None)["w"]
    assert torch.allclose(found, torch.tensor([0.0, 4 / 3, 4 / 3, 4 / 3]))
    nothing = Supermask().factors({"w": torch.full((3,), -9.0)}, {"w": torch.ones(3)}, None)["w"]
    assert torch.equal(nothing, torch.zeros(3)), "an empty tensor is not divided by"


def test_a_draw_has_the_probabilities_and_the_generator_decides_it() -> None:
    scores = {"w": torch.tensor([-2.0, 0.0, 2.0]).repeat(20_000, 1)}
    alive = {"w": torch.ones(20_000, 3)}
    rule = Supermask(rescale=False)
    one = rule.factors(scores, alive, torch.Generator().manual_seed(1))["w"]
    assert torch.equal(one, rule.factors(scores, alive, torch.Generator().manual_seed(1))["w"])
    assert not torch.equal(one, rule.factors(scores, alive, torch.Generator().manual_seed(2))["w"])
    assert torch.allclose(one.mean(0), torch.tensor([-2.0, 0.0, 2.0]).sigmoid(), atol=0.02)
    assert set(one.unique().tolist()) == {0.0, 1.0}


def test_a_gradient_goes_through_the_draw_to_the_probability() -> None:
    """dL/ds = dL/dm * p (1 - p), in and out alike; times the rescaling."""
    score = torch.tensor([0.0, 2.0, -2.0, 1.0], requires_grad=True)
    drawn = torch.Generator().manual_seed(0)
    weight = torch.tensor([1.0, -2.0, 3.0, 1.0])
    (weight * Supermask(rescale=False).factors({"w": score}, ALIVE, drawn)["w"]).sum().backward()
    chance = score.detach().sigmoid()
    assert score.grad is not None
    assert torch.allclose(score.grad, weight * chance * (1 - chance))


def test_an_lr_of_zero_is_refused() -> None:
    with pytest.raises(InvalidValue, match="lr is 0"):
        Supermask(lr=0)
