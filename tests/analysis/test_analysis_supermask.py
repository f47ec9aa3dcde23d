"""Supermasks: the masks are the criteria's, the weights are the initial ones, and no bias is left."""

import pytest
import torch
from analysis_kit import rng
from torch import Tensor

from tombola.analysis.supermask import SUPERMASKS, found_mask, start, supermasks
from tombola.errors import MissingEvidence, UnknownName
from tombola.prune.masks import counts
from tombola.types import Params

W_0 = {
    "w": torch.tensor([[0.5, -0.2, 0.9, -0.1, 0.3, -0.6]]),
    "bias": torch.tensor([7.0]),
    "norm.weight": torch.ones(1),
}
W_T = {
    "w": torch.tensor([[0.8, 0.7, -0.6, -0.5, 0.4, -0.1]]),
    "bias": torch.tensor([8.0]),
    "norm.weight": torch.ones(1),
}
KEEP = {"w": 2}

EXPECTED = {
    "large-final-same-sign": [0, 3],
    "magnitude-increase-same-sign": [0, 3],
    "magnitude": [0, 1],
    "magnitude-increase": [1, 3],
    "large-init": [2, 5],
    "movement": [1, 2],
    "small-final": [4, 5],
    "large-final-diff-sign": [1, 2],
    "magnitude-increase-diff-sign": [1, 2],
}


@pytest.mark.parametrize("criterion", EXPECTED)
def test_each_mask_is_that_of_its_criterion(criterion: str) -> None:
    found = found_mask(criterion, W_0, W_T, KEEP, rng(0))["w"]
    assert found[0].nonzero().reshape(-1).tolist() == EXPECTED[criterion]


def test_masks_meet_the_initial_weights_without_biases_and_without_training() -> None:
    seen: list[Params] = []

    def evaluate(params: Params) -> float:
        seen.append(params)
        return float(params["w"].abs().sum())

    found = supermasks(W_0, W_T, KEEP, evaluate, generator=rng(0))
    assert list(found) == list(SUPERMASKS)
    assert len(seen) == 2 * len(SUPERMASKS)
    for plain, constant in zip(seen[::2], seen[1::2], strict=True):
        alive = plain["w"] != 0
        assert int(alive.sum()) == 2
        assert torch.equal(plain["w"][alive], W_0["w"][alive])
        assert torch.equal(constant["w"] != 0, alive)
        assert torch.allclose(constant["w"][alive], W_0["w"][alive].sign() * W_0["w"].std(correction=0))
        for params in (plain, constant):
            assert params["bias"].tolist() == [0.0]
            assert params["norm.weight"].tolist() == [1.0], "the scale of a norm is no bias"
    assert W_0["bias"].tolist() == [7.0]
    assert found["large-final-same-sign"].accuracy == pytest.approx(0.6)


def test_same_and_different_signs_partition_the_weights() -> None:
    draw = rng(1)
    w_0, w_T = ({"w": torch.randn(40, 50, generator=draw)} for _ in range(2))
    same = int((w_0["w"].sign() == w_T["w"].sign()).sum())
    masks = [
        found_mask(f"large-final-{which}-sign", w_0, w_T, {"w": count}, rng(0))["w"]
        for which, count in (("same", same), ("diff", 2000 - same))
    ]
    assert torch.equal(masks[0], ~masks[1])


def test_random_masks_follow_the_generator() -> None:
    w = {"w": torch.zeros(30, 30)}

    def draw(seed: int) -> Tensor:
        return found_mask("random", w, w, {"w": 90}, rng(seed))["w"]

    assert counts({"w": draw(0)}) == {"w": 90}
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_criteria_that_need_more_are_refused() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'movement'"):
        found_mask("movment", W_0, W_T, KEEP, rng(0))
    with pytest.raises(MissingEvidence):
        found_mask("snip", W_0, W_T, KEEP, rng(0))


def test_biases_go_by_their_last_name() -> None:
    found = start({"bias_net.weight": torch.ones(1), "a.in_proj_bias": torch.ones(1)}, {})
    assert {name: value.item() for name, value in found.items()} == {"bias_net.weight": 1.0, "a.in_proj_bias": 0.0}
