"""The trained sparse network, loaded with plain torch."""

from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from tombola.errors import InvalidValue, ShapeMismatch, UnknownName
from tombola.files import write_all
from tombola.models import tied_names
from tombola.ticket import encode_network


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def test_it_loads_in_three_lines_and_computes_the_same(tmp_path: Path) -> None:
    trained = network()
    x = torch.randn(16, 5)
    trained(x)
    params = {name: value.detach().clone() for name, value in trained.named_parameters()}
    masks = {name: torch.rand(params[name].shape) < 0.4 for name in ("0.weight", "3.weight")}
    data = encode_network(params, masks, dict(trained.named_buffers()), {"digest": "abc", "level": 3})
    write_all({tmp_path / "network.safetensors": data})

    state = safetensors.torch.load_file(tmp_path / "network.safetensors")
    fresh = network()
    fresh.load_state_dict(state)

    with torch.no_grad():
        for name, mask in masks.items():
            trained.get_parameter(name).mul_(mask)
            assert not bool(state[name][~mask].any())
            assert not bool(torch.signbit(state[name][~mask]).any())
    assert torch.equal(fresh.eval()(x), trained.eval()(x))
    with safetensors.safe_open(tmp_path / "network.safetensors", "pt") as file:
        assert file.metadata() == {"network": '{"digest":"abc","level":3}'}


def test_tied_names_are_written_out() -> None:
    net = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    params = dict(net.named_parameters())
    masks = {"0.weight": torch.eye(4, dtype=torch.bool)}
    state = safetensors.torch.load(encode_network(params, masks, {}, {}, tied=tied_names(net)))
    net.load_state_dict(state)
    assert torch.equal(net[1].weight, net[1].weight * torch.eye(4))
    # A state dict that already has the second name does not bring pruned weights back under it.
    whole = safetensors.torch.load(encode_network(net.state_dict(), masks, {}, {}, tied=tied_names(net)))
    assert torch.equal(whole["1.weight"], whole["0.weight"])


def test_equal_networks_give_equal_bytes() -> None:
    a, b = torch.randn(3, 4).T, torch.ones(2, dtype=torch.bfloat16)
    assert encode_network({"a": a, "b": b}, {}, {}, {"x": 1, "y": 2}) == encode_network(
        {"b": b, "a": a.contiguous()}, {}, {}, {"y": 2, "x": 1}
    )


def test_what_cannot_be_written_is_explained() -> None:
    w = {"w": torch.ones(2)}
    with pytest.raises(InvalidValue, match="both a parameter and a buffer"):
        encode_network(w, {}, w, {})
    with pytest.raises(InvalidValue, match="not JSON"):
        encode_network(w, {}, {}, {"x": torch.ones(1)})
    with pytest.raises(InvalidValue, match="refuses"):
        encode_network({"w": torch.ones(2, dtype=torch.complex128)}, {}, {}, {})
    with pytest.raises(ShapeMismatch):
        encode_network(w, {"w": torch.ones(3, dtype=torch.bool)}, {}, {})
    with pytest.raises(UnknownName):
        encode_network(w, {}, {}, {}, tied={"v": "u"})
