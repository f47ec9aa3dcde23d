"""Sreenivasan et al. (2022), Algorithm 1: scores in [0, 1], rounded, with the lowest frozen at 0; the weights stay."""

import pytest
import torch

from tombola.errors import InvalidValue
from tombola.prune.dynamic import Gradual
from tombola.prune.learned import GemMiner

RULE = GemMiner()
SCORES = {"w": torch.tensor([0.2, 0.6, 0.9, 0.5])}
ALIVE = {"w": torch.tensor([1.0, 1.0, 0.0, 1.0])}


def test_the_network_computes_with_rounded_scores_that_are_not_frozen() -> None:
    assert torch.equal(RULE.factors(SCORES, ALIVE, None)["w"], torch.tensor([0.0, 1.0, 0.0, 0.0]))


def test_a_gradient_passes_the_rounding_and_not_the_freezing() -> None:
    """A hand-worked step: the loss is the weighted sum, so a score's gradient is its weight, off or on."""
    score = SCORES["w"].clone().requires_grad_()
    weight = torch.tensor([3.0, -2.0, 5.0, 7.0])
    (weight * RULE.factors({"w": score}, ALIVE, None)["w"]).sum().backward()
    assert score.grad is not None
    assert torch.equal(score.grad, torch.tensor([3.0, -2.0, 0.0, 7.0]))


def test_scores_are_projected_in_place() -> None:
    score = torch.tensor([-0.1, 0.3, 1.7])
    RULE.settle({"w": score})
    assert torch.equal(score, torch.tensor([0.0, 0.3, 1.0]))


def test_first_scores_are_uniform_and_do_not_look_at_the_weights() -> None:
    one = RULE.first(torch.zeros(50, 200), torch.Generator().manual_seed(1))
    assert torch.equal(one, RULE.first(torch.ones(50, 200), torch.Generator().manual_seed(1)))
    hist = torch.histc(one, 10, 0.0, 1.0)
    assert hist.sum() == 10_000
    assert (hist - 1000).abs().max() < 150


def test_every_freezing_takes_the_same_share_and_the_last_leaves_the_count() -> None:
    freezing = Gradual((("a", 10), ("b", 3)), begin=0, end=300, every=100, geometric=True)
    sizes = {"a": 10_000, "b": 81}
    planned = [freezing.planned(step, sizes) for step in (0, 100, 200, 300)]
    assert [one["a"] for one in planned] == [10_000, 1_000, 100, 10]
    assert [one["b"] for one in planned] == [81, 27, 9, 3]


def test_the_cubic_keeps_the_name_it_had_in_records() -> None:
    assert "geometric" not in Gradual((("a", 1),), 0, 10).describe()
    assert Gradual((("a", 1),), 0, 10, geometric=True).describe()["geometric"] is True


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"lr": float("nan")}, {"weight_decay": -1e-9}])
def test_parameters_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InvalidValue, match="scores are trained with"):
        GemMiner(**bad)
