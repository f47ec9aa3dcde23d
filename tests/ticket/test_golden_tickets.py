"""Ticket files that were written once and must be read by every later version, under the digests they had."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tombola.ticket import Ticket, decode, encode, load, stored, verify

FOLDER = Path(__file__).parents[1] / "golden" / "tickets"

DIGESTS = {
    "schema-1": "f993a83abbd1f2312685b77bcb327c663a44b6a21972eb11438118c689de5bb6",
    "schema-2": "a9eda49a94c5fb24d4b419d3c5c4a71c2483d1e2d9e73e3cb1ef9805275f2895",
    "schema-2-drawn": "aaa0adfbe131268475279e21308a1717fe25b79720c5fb88c4dfdef530ce7e74",
}


def counted(classes: int) -> nn.Module:
    """A network that draws nothing, so that its start values are the same under every torch."""
    net = nn.Sequential(nn.Linear(6, classes), nn.BatchNorm1d(classes))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) / 8 - 1)
    return net


def golden(name: str) -> Ticket:
    return load(FOLDER / f"{name}.safetensors", build=counted)


@pytest.mark.parametrize("name", DIGESTS)
def test_a_stored_file_is_read_under_its_digest(name: str) -> None:
    path = FOLDER / f"{name}.safetensors"
    ticket = golden(name)
    assert ticket.digest == DIGESTS[name]
    assert verify(path, build=counted).ok
    seed_only = name.endswith("drawn")
    assert (stored(path).schema, stored(path).seed_only) == (int(name[7]), seed_only)
    again = encode(ticket, seed_only=seed_only, build=counted)
    assert decode(again, build=counted) == ticket
    # Another zlib may compress the parent otherwise, so only a file without one is the same bytes everywhere.
    assert ticket.parent is not None or again == path.read_bytes()


def test_schema_1_says_what_it_said() -> None:
    ticket = golden("schema-1")
    assert (ticket.kept, ticket.total, ticket.theta_0, ticket.parent, ticket.lineage) == (40, 87, None, None, ())
    assert ticket.start["fc.weight"][0, :4].tolist() == [-3.6875, 0.0, 0.0, -3.3125]
    assert ticket.start["conv.weight"].dtype == torch.float64
    assert ticket.start["head"].tolist() == [-0.25] * 5
    assert torch.signbit(ticket.start["gain"]).tolist() == [False, True]
    assert ticket.buffers["norm.phase"].tolist() == [1 + 2j]
    assert ticket.provenance["recipe"] == {"lr": 0.0012, "milestones": [1, 2]}


def test_schema_2_says_what_it_said() -> None:
    ticket = golden("schema-2")
    assert [(one["level"], one["kept"]) for one in ticket.lineage] == [(0, 87), (1, 63), (2, 33)]
    assert ticket.theta_0 is not None
    assert ticket.parent is not None
    for name, value in ticket.start.items():
        assert torch.equal(ticket.theta_0[name], value * -0.5)
    place = torch.arange(60).reshape(6, 10)
    assert torch.equal(ticket.parent["fc.weight"], place % 7 % 3 < 2)
    assert torch.equal(ticket.masks["fc.weight"], place % 7 % 3 == 0)


def test_drawn_start_values_are_those_of_the_factory() -> None:
    ticket = golden("schema-2-drawn")
    assert ticket.start["0.weight"][0].tolist() == [-1.0, 0.0, 0.0, -0.625, 0.0, 0.0]
    assert ticket.start["1.bias"].tolist() == [-1.0, -0.875, -0.75, -0.625, -0.5]
