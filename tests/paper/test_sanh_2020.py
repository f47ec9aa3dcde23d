"""Movement pruning (Sanh et al. 2020, section 4): weights that training pushes away from zero."""

import pytest
import torch
from torch import Tensor

from tombola.errors import MissingEvidence, ShapeMismatch
from tombola.prune.criteria.movement_pruning import movement_pruning
from tombola.prune.evidence import Evidence

MASKS = {"w": torch.tensor([True, True])}


def trained(w: Tensor, target: Tensor, rates: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Train a linear unit per weight, ``(w - target)^2 / 2``, by gradient descent; give the weights and the sum."""
    moved = torch.zeros_like(w)
    for rate in rates:
        g = w - target
        moved -= rate * g * w
        w = w - rate * g
    return w, moved


def test_three_steps_by_hand() -> None:
    """From 1 towards 3 and from 3 towards 1, at rates 1/2, 1/4, 1/4.

    The first: g = -2, -1, -0.75 at w = 1, 2, 2.25: 1/2*2*1 + 1/4*1*2 + 1/4*0.75*2.25. The second: g = 2, 1, 0.75 at
    w = 3, 2, 1.75: -(1/2*2*3 + 1/4*1*2 + 1/4*0.75*1.75).
    """
    w, moved = trained(torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0]), (0.5, 0.25, 0.25))
    assert w.tolist() == [2.4375, 1.5625]
    scores = movement_pruning({"w": w}, MASKS, Evidence(moved={"w": moved, "more": w}))
    assert list(scores) == ["w"]
    assert scores["w"].tolist() == [1.921875, -3.828125]


def test_a_small_weight_that_grows_is_kept_before_a_large_one_that_shrinks() -> None:
    w, moved = trained(torch.tensor([0.1, 9.0]), torch.tensor([0.5, 8.0]), (0.1, 0.1, 0.1))
    scores = movement_pruning({"w": w}, MASKS, Evidence(moved={"w": moved}))["w"]
    assert w[1] > w[0]
    assert scores[0] > 0 > scores[1]


def test_a_pruned_weight_never_returns() -> None:
    moved = torch.tensor([100.0, -1.0])
    given = Evidence(moved={"w": moved})
    scores = movement_pruning({"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([False, True])}, given)["w"]
    assert scores.tolist() == [-torch.inf, -1.0]
    movement_pruning({"w": moved}, MASKS, given)["w"].fill_(7.0)
    assert moved.tolist() == [100.0, -1.0], "what is given is neither written to nor handed back"


def test_what_training_added_up_is_required_and_checked() -> None:
    w = torch.zeros(2)
    with pytest.raises(MissingEvidence, match="needs 'moved'"):
        movement_pruning({"w": w}, MASKS, Evidence())
    with pytest.raises(MissingEvidence, match=r"added up for 'w', and evidence\.moved holds v\."):
        movement_pruning({"w": w}, MASKS, Evidence(moved={"v": w}))
    with pytest.raises(ShapeMismatch, match=r"holds 'w' with shape \(3,\), and its mask has \(2,\)"):
        movement_pruning({"w": w}, MASKS, Evidence(moved={"w": torch.zeros(3)}))
