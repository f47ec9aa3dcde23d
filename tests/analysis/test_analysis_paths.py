"""Effective density: against every path of tiny networks, one after the other."""

from itertools import product

import pytest
import torch
from analysis_kit import mask, rng
from torch import Tensor, nn

from tombola.analysis.paths import effective
from tombola.errors import InvalidValue, ShapeMismatch
from tombola.models import build


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def by_enumeration(masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Walk every path of a chain of linear layers and mark the weights of those that are whole."""
    layers = list(masks.values())
    sizes = [layers[0].shape[1], *(layer.shape[0] for layer in layers)]
    found = {name: torch.zeros_like(layer) for name, layer in masks.items()}
    for units in product(*map(range, sizes)):
        steps = list(zip(units[1:], units[:-1], strict=True))
        if all(layer[step] for layer, step in zip(layers, steps, strict=True)):
            for layer, step in zip(found.values(), steps, strict=True):
                layer[step] = True
    return found


@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_weights_of_all_whole_paths(seed: int) -> None:
    net, draw = mlp(), rng(seed)
    masks = {n: torch.rand(p.shape, generator=draw) < 0.35 for n, p in net.named_parameters() if p.dim() == 2}
    found = effective(net, torch.zeros(1, 3), masks)
    expected = by_enumeration(masks)
    assert all(torch.equal(found.masks[name], expected[name]) for name in masks)
    assert found.effective_density == sum(int(one.sum()) for one in expected.values()) / 30
    assert found.density == sum(int(one.sum()) for one in masks.values()) / 30
    again = effective(net, torch.zeros(1, 3), found.masks)
    assert again.effective_density == again.density == found.effective_density


@pytest.mark.parametrize("seed", range(5))
def test_what_is_not_on_a_path_makes_no_difference_and_no_gradient(seed: int) -> None:
    """In a convolutional network of positive weights without biases, with pooling and a flattening layer."""
    net = build("lenet-5", (1, 8, 8), 10)
    draw = rng(seed)
    params = {n: p.detach().abs().requires_grad_() for n, p in net.named_parameters()}
    masks = {n: torch.rand(p.shape, generator=draw) < 0.03 for n, p in params.items() if p.dim() > 1}
    x = torch.rand(4, 1, 8, 8, generator=draw)
    found = effective(net, x, masks)
    assert 0 < found.effective_density < found.density

    def outputs(kept: dict[str, Tensor]) -> Tensor:
        values = {n: p * kept[n] if n in kept else torch.zeros_like(p) for n, p in params.items()}
        return torch.func.functional_call(net, values, (x,))

    assert torch.equal(outputs(masks), outputs(dict(found.masks)))
    outputs(masks).sum().backward()
    felt = {n: params[n].grad for n in masks}
    for name, gradient in felt.items():
        assert gradient is not None
        assert bool((gradient != 0).any())
        assert not bool(((gradient != 0) & masks[name] & ~found.masks[name]).any())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.block, self.leave = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave(x + self.block(x))


def test_units_that_meet_in_a_sum_are_one() -> None:
    """The stream's unit 1 is written by the block alone, from unit 0; unit 0 is entered and unit 1 read."""
    masks = {"enter.weight": mask("10 00"), "block.weight": mask("00 11"), "leave.weight": mask("01")}
    found = effective(Residual(), torch.zeros(1, 2), masks)
    assert found.masks["enter.weight"].tolist() == mask("10 00").tolist()
    assert found.masks["block.weight"].tolist() == mask("00 11").tolist(), "an upper bound: nothing has come to unit 1"
    assert found.masks["leave.weight"].tolist() == mask("01").tolist()
    cut = effective(Residual(), torch.zeros(1, 2), {**masks, "block.weight": mask("00 01")})
    assert cut.effective_density == 0


def test_a_tensor_without_a_mask_is_dense_and_a_single_unit_is_followed() -> None:
    net = nn.Sequential(nn.Linear(3, 1), nn.ReLU(), nn.Linear(1, 2))
    found = effective(net, torch.zeros(1, 3), {"0.weight": mask("000"), "2.weight": mask("1 1")})
    assert found.effective_density == 0
    assert effective(net, torch.zeros(1, 3), {"2.weight": mask("1 0")}).effective_density == 0.5


def test_one_layer_is_all_paths() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    assert effective(net, torch.zeros(1, 2), {"0.weight": mask("10 11")}).effective_density == 0.75


@pytest.mark.parametrize(
    ("net", "shape", "name", "said"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)), (1, 4), "0.weight", "LayerNorm mixes them"),
        (nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Conv2d(4, 2, 1)), (1, 2, 5, 5), "0.weight", "'0' is grouped"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), (1, 4), "0.bias", "a mask over 0.bias"),
    ],
)
def test_what_is_not_understood_is_refused(net: nn.Module, shape: tuple[int, ...], name: str, said: str) -> None:
    masks = {name: torch.ones_like(net.get_parameter(name), dtype=torch.bool)}
    with pytest.raises(InvalidValue, match=f"{said}.*Effective density is for networks of linear layers"):
        effective(net, torch.zeros(shape), masks)


def test_masks_of_another_network_are_refused() -> None:
    with pytest.raises(ShapeMismatch, match=r"mask '0\.weight'"):
        effective(mlp(), torch.zeros(1, 3), {"0.weight": mask("1")})
    with pytest.raises(InvalidValue, match="cannot be followed"):
        effective(mlp(), torch.zeros(1, 7), {})
