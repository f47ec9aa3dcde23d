"""Deconstructing lottery tickets (Zhou et al. 2019): what is kept of the initial values."""

import torch

from tombola.models import build, layer_multipliers
from tombola.prune.controls import Case, permute, sign_constant
from tombola.types import Snapshot

W = torch.tensor([[0.3, -0.1, 0.0], [-0.5, 0.2, 0.4]])
MASK = torch.tensor([[True, False, True], [False, True, True]])


def case(weights: torch.Tensor = W) -> Case:
    """Make a ticket of one tensor."""
    start = Snapshot(0, {"w": weights})
    return Case(start, {"w": MASK}, lambda: start, lambda: {"w": MASK}, torch.Generator().manual_seed(0))


def test_the_signed_constant_is_the_standard_deviation_of_the_whole_tensor() -> None:
    found, masks = sign_constant(case())
    sigma = float(((W - W.mean()) ** 2).mean().sqrt())
    assert torch.allclose(found.params["w"], sigma * torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 1.0]]))
    assert masks["w"] is MASK
    survivors = float(W[MASK].std(correction=0))
    assert abs(sigma - survivors) > 0.05, "not that of the survivors"


def test_the_reshuffled_init_is_a_permutation_inside_each_layer() -> None:
    found, _ = permute(case())
    assert sorted(found.params["w"].reshape(-1).tolist()) == sorted(W.reshape(-1).tolist())
    assert not torch.equal(found.params["w"], W)


def test_its_rates_are_those_of_prune_base() -> None:
    """Appendix S2: LeNet keeps 80/80/90 % a round, Conv-2 and Conv-4 90/80/90, Conv-6 85/80/90."""
    keeps = {"lenet-300-100": {0.8, 0.9}, "conv-2": {0.9, 0.8}, "conv-4": {0.9, 0.8}, "conv-6": {0.85, 0.8, 0.9}}
    for model, expected in keeps.items():
        rates = layer_multipliers(model, build(model, (3, 32, 32), 10))
        assert {1 - float(m) / 5 for m in rates.values()} == expected
        assert rates["output.weight"] * 2 == 1
