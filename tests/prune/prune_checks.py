"""What must hold of any implementation; each check takes one and raises ``AssertionError`` where it does not hold."""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from tombola.models import kinds
from tombola.prune.controls import Case, Control
from tombola.prune.masks import overlap
from tombola.types import Params, Snapshot

Cut = Callable[[Tensor, Tensor, str], Tensor]
"""``(weights, mask, rate) -> mask``: removes a fraction of the survivors, the smallest first."""


def removes(cut: Cut, weights: Tensor, rate: str, count: int) -> None:
    """A cut of a dense vector removes exactly ``count`` weights."""
    found = cut(weights, torch.ones_like(weights, dtype=torch.bool), rate)
    removed = int((~found).sum())
    assert removed == count, f"{removed} were removed, {count} were asked for"


def distinct_scores(cut: Cut) -> None:
    """200 of 1000 different weights."""
    removes(cut, 1 + torch.randperm(1000, generator=torch.Generator().manual_seed(0)).float(), "0.2", 200)


def half_tied(cut: Cut) -> None:
    """200 of 1000 weights, half of which are equal."""
    weights = torch.cat([torch.full((500,), 0.1), torch.linspace(1, 2, 500)])
    removes(cut, weights, "0.2", 200)


def all_tied(cut: Cut) -> None:
    """A signed constant."""
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(0)).sign()
    removes(cut, weights, "0.2", 200)


def decimals(cut: Cut) -> None:
    """7 % of 100 weights are 7."""
    removes(cut, torch.arange(1.0, 101.0), "0.07", 7)


def halves(cut: Cut) -> None:
    """Half of 5 weights are 3, and half of 9 are 5."""
    removes(cut, torch.arange(1.0, 6.0), "0.5", 3)
    removes(cut, torch.arange(1.0, 10.0), "0.5", 5)


def alive_zeros(cut: Cut) -> None:
    """A weight that is alive and exactly zero is not confused with a dead one."""
    weights, mask = torch.zeros(100), torch.arange(100) >= 50
    weights[:50] = torch.linspace(1, 2, 50)  # what an optimiser left under the mask
    found = cut(weights * mask, mask, "0.2")
    assert not bool((found & ~mask).any()), "dead weights came back"
    assert int(found.sum()) == 40, f"{int(found.sum())} of 50 are left, not 40"


def large_weights(cut: Cut) -> None:
    """A large weight is large, and a dead one does not stand in for it."""
    weights, mask = torch.arange(100.0) + 2e4, torch.arange(100) >= 50
    found = cut(weights * mask, mask, "0.2")
    assert torch.equal(found, torch.arange(100) >= 60), f"{int(found.sum())} of 50 are left, not the 40 largest"


Rounds = Callable[[str, int], Sequence[float]]
"""``(final density, rounds) -> densities`` after each round, level 0 first."""


def equal_rounds(densities: Rounds) -> None:
    """Every round keeps the same fraction of the survivors, and the last reaches the density."""
    for density, rounds in (("0.1", 10), ("0.1", 5), ("0.2", 10), ("0.01", 20)):
        found = densities(density, rounds)
        assert len(found) == rounds + 1
        assert math.isclose(found[-1], float(density), rel_tol=1e-9), f"ends at {found[-1]}"
        keeps = [after / before for before, after in pairwise(found)]
        assert max(keeps) - min(keeps) < 1e-9, f"rounds keep {min(keeps)} to {max(keeps)} of the survivors"


Chooser = Callable[[Params, Mapping[str, str]], Sequence[str]]
"""``(params, kinds) -> prunable names``."""


def weights_only(choose: Chooser) -> None:
    """Biases, norms and embeddings are not pruned; convolutions and linear layers are."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2), nn.Embedding(3, 2))
    found = set(choose(dict(net.named_parameters()), kinds(net)))
    assert found == {"0.weight", "3.weight"}, f"prunes {sorted(found)}"


def _case(masks: Mapping[str, Tensor]) -> Case:
    rng = torch.Generator().manual_seed(11)
    start = Snapshot(0, {n: torch.randn(mask.shape, generator=rng) for n, mask in masks.items()})
    return Case(start, masks, lambda: start, lambda: masks, torch.Generator().manual_seed(7))


def _two_equal_layers() -> dict[str, Tensor]:
    mask = (torch.randperm(4000, generator=torch.Generator().manual_seed(2)) < 800).reshape(80, 50)
    return {"a": mask, "b": mask.clone()}


def shuffles(control: Control) -> None:
    """Counts stay, places are forgotten, every layer has its own permutation, the start stays."""
    case = _case(_two_equal_layers())
    start, found = control(case)
    assert start is case.start
    for name, law in overlap(case.masks, found).items():
        assert law.first == law.second, f"{name} has {law.second} weights, not {law.first}"
        assert abs(law.shared - law.expected) < 5 * law.deviation, f"{name} shares {law.shared} with the original"
    between = overlap({"x": found["a"]}, {"x": found["b"]})["x"]
    assert abs(between.shared - between.expected) < 5 * between.deviation, "two layers have one permutation"


def draws_at_random(control: Control) -> None:
    """The total stays, and every layer has the same density."""
    masks = {"a": torch.arange(1000) < 50, "b": torch.arange(400).reshape(20, 20) < 90}
    _, found = control(_case(masks))
    kept = {n: int(mask.sum()) for n, mask in found.items()}
    assert kept == {"a": 100, "b": 40}, f"keeps {kept}"


def signed_constant(control: Control) -> None:
    """The standard deviation is that of the whole tensor, and the signs are theta_0's."""
    case = _case({"a": torch.arange(2000) < 100})
    theta_0 = case.start.params["a"]
    theta_0[:100] *= 5
    found = control(case)[0].params["a"]
    assert torch.equal(found.sign(), theta_0.sign())
    assert torch.allclose(found.abs(), theta_0.std(correction=0).expand(2000)), f"sigma is {float(found.abs()[0])}"


def exact_zeros(apply: Callable[[Params, Mapping[str, Tensor]], Mapping[str, Tensor]]) -> None:
    """A pruned entry is zero, whatever it holds."""
    found = apply({"w": torch.tensor([math.nan, math.inf, 1.0])}, {"w": torch.tensor([False, False, True])})["w"]
    assert found.tolist() == [0.0, 0.0, 1.0], f"{found.tolist()}"


def numpys_bits(pack: Callable[[Tensor], Tensor]) -> None:
    """The packed bytes are those of ``numpy.packbits``."""
    mask = torch.rand(21, generator=torch.Generator().manual_seed(0)) < 0.3
    found, expected = pack(mask).tolist(), np.packbits(mask.numpy()).tolist()
    assert found == expected, f"the bytes are {found}, numpy's are {expected}"


def exact_shares(divide: Callable[[Mapping[str, Fraction], int, Mapping[str, int]], Mapping[str, int]]) -> None:
    """Rounded shares have the exact total and stay within one."""
    ideal = {str(i): Fraction(5, 2) for i in range(20)}
    found = divide(ideal, 50, dict.fromkeys(ideal, 5))
    assert sum(found.values()) == 50, f"{sum(found.values())} of 50"
    assert all(abs(found[n] - ideal[n]) < 1 for n in ideal)
