"""Ramanujan et al. (2020): edge-popup keeps the top share of |score| in every layer, and no weight moves."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tombola.errors import InvalidValue, UnknownName
from tombola.prune.learned import Popup
from tombola.prune.learned.popup import largest
from tombola.strong.edge_popup import INITS, random_network
from tombola.types import Seed

SHAPES = {"a": (30, 41), "b": (7, 30), "c": (5, 3, 3, 3)}


def scores(seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=rng) for name, shape in SHAPES.items()}


ALIVE = {name: torch.ones(shape) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("density", [0.01, 0.3, 0.5, 1.0])
def test_the_share_is_what_is_left_in_every_layer_to_a_weight(density: float) -> None:
    """Not the share that is pruned, as in some code: 0.3 leaves 30 %."""
    for name, factor in Popup(density).factors(scores(), ALIVE, None).items():
        assert abs(int(factor.sum()) - density * factor.numel()) <= max(1, 0.5)
        chosen, size = factor.bool(), scores()[name].abs()
        assert not bool((~chosen).any()) or size[chosen].min() >= size[~chosen].max()


def test_over_all_layers_the_largest_of_all_are_in() -> None:
    found = Popup(0.25, "global").factors(scores(), ALIVE, None)
    sizes = torch.cat([one.abs().flatten() for one in scores().values()])
    chosen = torch.cat([one.flatten() for one in found.values()]).bool()
    assert int(chosen.sum()) == round(0.25 * len(sizes))
    assert sizes[chosen].min() > sizes[~chosen].max()


def test_a_gradient_goes_straight_through_with_the_sign_of_the_score() -> None:
    """dL/ds = dL/dw_eff * w * sign(s), for weights that are out too: that is how an edge pops up."""
    score = {"a": torch.tensor([3.0, -2.0, 0.5, -0.1], requires_grad=True)}
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    factor = Popup(0.5).factors(score, {"a": torch.ones(4)}, None)["a"]
    assert torch.equal(factor.detach(), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    (weight * factor * torch.tensor([1.0, 1.0, 1.0, -1.0])).sum().backward()
    assert score["a"].grad is not None
    assert torch.equal(score["a"].grad, torch.tensor([1.0, -2.0, 3.0, 4.0]))


def test_equal_scores_leave_the_exact_count() -> None:
    assert int(largest(torch.zeros(10), 3).sum()) == 3
    assert largest(torch.tensor([[1.0, 2.0], [2.0, 2.0]]), 2).tolist() == [[False, True], [True, False]]
    factor = Popup(0.5).factors({"a": torch.ones(9)}, {"a": torch.ones(9)}, None)["a"]
    assert int(factor.sum()) == 5


def test_first_scores_are_kaimings_uniform() -> None:
    found = Popup().first(torch.zeros(50, 40, 3, 3), torch.Generator().manual_seed(0))
    bound = 1 / math.sqrt(40 * 9)
    assert 0.99 * bound < found.abs().max() <= bound
    assert found.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_the_random_network_is_scaled_for_what_is_left_of_it(init: str, density: float) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 30))

    network, names = random_network(build, Seed(3), init, density)
    assert names == ("0.weight", "3.weight")
    for name, fan_in in (("0.weight", 27), ("3.weight", 64 * 36)):
        value, deviation = network.params[name], math.sqrt(2 / (density * fan_in))
        assert value.std() == pytest.approx(deviation, rel=0.05)
        if init == "signed-constant":
            assert torch.allclose(value.abs(), torch.tensor(deviation))
    assert not network.params["0.bias"].any()
    assert not network.params["3.bias"].any()
    again, _ = random_network(build, Seed(3), init, density)
    assert all(torch.equal(value, again.params[name]) for name, value in network.params.items())
    other, _ = random_network(build, replace(Seed(3), replicate=1), init, density)
    assert not torch.equal(other.params["3.weight"], network.params["3.weight"])


def test_what_is_out_of_range_is_refused() -> None:
    for bad in ({"density": 0.0}, {"density": 1.5}, {"scope": "row"}, {"lr": 0.0}, {"momentum": 1.0}):
        with pytest.raises(InvalidValue):
            Popup(**bad)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="signed-constant"):
        random_network(lambda: nn.Linear(2, 2), Seed(0), "sign-constant", 0.5)
    with pytest.raises(InvalidValue, match="nothing to choose from"):
        random_network(lambda: nn.BatchNorm1d(2), Seed(0), "kaiming-normal", 0.5)
