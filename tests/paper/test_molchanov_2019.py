"""Importance estimation (Molchanov et al. 2019, section 3.1): the first-order Taylor score of a weight."""

import pytest
import torch
from torch import Tensor

from tombola.prune.criteria.taylor import taylor
from tombola.prune.evidence import Evidence

W = torch.tensor([2.0, -1.0, 5.0])
MASK = torch.tensor([True, True, False])
FIRST = (torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([1.0]))  # output 0, error -1, gradient -2 (1, 2)
SECOND = (torch.tensor([[1.0, -1.0, 9.0]]), torch.tensor([0.0]))  # output 3, error 3, gradient 6 (1, -1)


def square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Give the mean squared error."""
    return (outputs - targets).square().mean()


def score(*batches: tuple[Tensor, Tensor]) -> list[float]:
    """Score one linear unit."""
    given = Evidence(forward=lambda v, x: x @ v["w"], loss=square, batches=batches)
    return taylor({"w": W}, {"w": MASK}, given)["w"].tolist()


def test_it_is_squared_for_each_batch_and_then_averaged() -> None:
    assert score(FIRST) == [(-2 * 2) ** 2, (-4 * -1) ** 2, -torch.inf]
    assert score(SECOND) == [(6 * 2) ** 2, (-6 * -1) ** 2, -torch.inf]
    assert score(FIRST, SECOND) == [(16 + 144) / 2, (16 + 36) / 2, -torch.inf]
    assert score(SECOND, FIRST) == score(FIRST, SECOND)


def test_batches_whose_gradients_cancel_still_count() -> None:
    inputs, _ = FIRST
    up, down = (inputs, torch.tensor([1.0])), (inputs, torch.tensor([-1.0]))
    assert score(up, down) == score(up) == [16.0, 16.0, -torch.inf]
    assert score((torch.cat([inputs, inputs]), torch.tensor([1.0, -1.0])))[:2] == [0.0, 0.0], "one batch of both"


def test_it_is_the_squared_change_of_a_linear_loss_at_removal() -> None:
    """By first order; for a loss that is linear there is no other."""
    given = Evidence(forward=lambda v, x: x @ v["w"], loss=lambda z, _: z.mean(), batches=[FIRST])
    found = taylor({"w": W}, {"w": torch.ones(3, dtype=torch.bool)}, given)["w"]
    for i in range(3):
        without = W.clone()
        without[i] = 0
        assert float(found[i]) == pytest.approx(float(FIRST[0] @ (W - without)) ** 2)


def test_squares_of_small_products_are_not_lost() -> None:
    given = Evidence(forward=lambda v, x: x @ v["w"], loss=lambda z, _: z.mean() * 1e-15, batches=[FIRST])
    found = taylor({"w": W * 1e-10}, {"w": MASK}, given)["w"]
    assert float(found[0]) == pytest.approx(4e-50)
