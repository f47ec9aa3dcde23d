"""Honest counts of parameters, and multiply-adds against counts by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune, rnn

from tombola.attach import attach
from tombola.errors import InvalidValue, ShapeMismatch, UnknownName
from tombola.models import count_params, kinds, macs


def test_at_ninety_percent_sparsity_a_tenth_is_alive() -> None:
    """10,000 weights, 1,000 of them alive: by the mask, by the zeros it leaves, attached and through a round trip."""
    net = nn.Linear(100, 100, bias=False)
    mask = torch.randperm(10_000, generator=torch.Generator().manual_seed(0)).reshape(100, 100) < 1000
    with attach(net, {"weight": mask}) as on:
        assert count_params(net) == count_params(net, on.masks) == (1000, 10_000)
        nn.functional.mse_loss(net(torch.ones(1, 100)), torch.ones(1, 100)).backward()
        torch.optim.Adam(net.parameters()).step()
        assert count_params(net) == (1000, 10_000)
    again = nn.Linear(100, 100, bias=False)
    again.load_state_dict(net.state_dict())
    assert count_params(again) == (1000, 10_000)


def test_a_pruned_network_does_not_count_what_is_gone() -> None:
    net = nn.Linear(100, 100)
    mask = torch.arange(10_000).reshape(100, 100) < 1000
    assert count_params(net, {"weight": mask}) == (1100, 10_100)
    with torch.no_grad():
        net.weight.mul_(mask)
        net.bias.zero_()
    assert count_params(net) == (1100, 10_100)
    assert count_params(dict(net.named_parameters()), {}) == (10_100, 10_100)


# Negative control: the stock tool leaves 10,000 parameters that are not zero
def test_torchs_own_masks_count() -> None:
    net = nn.Sequential(nn.Linear(100, 100, bias=False))
    prune.l1_unstructured(net[0], "weight", 0.9)
    assert sum(int(p.count_nonzero()) for p in net.parameters()) == 10_000
    assert count_params(net) == (1000, 10_000)


def test_masks_of_another_network_are_refused() -> None:
    with pytest.raises(UnknownName, match="weight"):
        count_params(nn.Linear(2, 2), {"wait": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(ShapeMismatch, match=r"\(2, 3\)"):
        count_params(nn.Linear(2, 2), {"weight": torch.ones(2, 3, dtype=torch.bool)})


class Tagger(nn.Module):
    """Tokens in, a score for each out; the embedding's table is the output layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.scale = nn.Parameter(torch.ones(4, 4))
        self.head = nn.Linear(4, 7)
        self.head.weight = self.table.weight
        self.unused = nn.Linear(4, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(tokens) @ self.scale)


class Attention(nn.Module):
    """Queries of a few positions over keys of more."""

    def __init__(self, **options: int) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(4, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        memory = torch.zeros(1, 5, self.mha.kdim)
        return self.mha(value=memory, query=x, key=memory)[0]


class Packed(nn.Module):
    """A recurrent layer that reads a packed sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(rnn.pack_sequence([x[0]]))[1]


HAND = [
    (nn.Linear(3, 5), (3,), {"weight": 15}),
    (nn.Linear(3, 5), (7, 3), {"weight": 7 * 15}),
    (nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2), (4, 8, 8), {"weight": 6 * 2 * 9 * 16}),
    (nn.Conv1d(2, 3, 2), (2, 5), {"weight": 12 * 4}),
    (nn.ConvTranspose2d(2, 3, 2, stride=2), (2, 4, 4), {"weight": 24 * 16}),
    (nn.LSTM(3, 2, batch_first=True), (6, 3), {"weight_ih_l0": 6 * 24, "weight_hh_l0": 6 * 16}),
    (Packed(), (6, 3), {"rnn.weight_ih_l0": 6 * 18, "rnn.weight_hh_l0": 6 * 12}),
    (nn.GRUCell(3, 2), (3,), {"weight_ih": 18, "weight_hh": 12}),
    (Attention(), (2, 4), {"mha.in_proj_weight": 16 * (2 + 5 + 5), "mha.out_proj.weight": 16 * 2}),
    (
        Attention(kdim=3, vdim=3),
        (2, 4),
        {"mha.q_proj_weight": 32, "mha.k_proj_weight": 60, "mha.v_proj_weight": 60, "mha.out_proj.weight": 32},
    ),
    (nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 2)), (5,), {"0.weight": 0, "1.weight": 40}),
]


@pytest.mark.parametrize(("net", "shape", "expected"), HAND, ids=lambda value: type(value).__name__)
def test_multiply_adds_by_hand(net: nn.Module, shape: tuple[int, ...], expected: dict[str, int]) -> None:
    assert macs(net, shape) == (expected, ())


def test_a_transformer_layer_counts_all_its_weights() -> None:
    net = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    counted, missing = macs(net, (3, 4))
    assert missing == ()
    assert counted == {
        "self_attn.in_proj_weight": 144, "self_attn.out_proj.weight": 48, "linear1.weight": 96, "linear2.weight": 96
    }  # fmt: skip


def test_what_cannot_be_counted_is_named() -> None:
    net = Tagger()
    counted, missing = macs(net, (5,))
    assert counted == {"table.weight": 5 * 28}
    assert missing == ("scale", "unused.weight")
    assert set(counted) | set(missing) == {name for name, kind in kinds(net).items() if kind != "bias"}
    assert macs(net, (5,), names=["scale"]) == ({}, ("scale",))


def test_a_layer_used_twice_counts_twice() -> None:
    layer = nn.Linear(3, 3)
    assert macs(nn.Sequential(layer, nn.ReLU(), layer), (3,)) == ({"0.weight": 18}, ())


def test_the_network_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))
    net[1].eval()
    modes = [part.training for part in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    before = torch.get_rng_state()
    macs(net, (3,))
    assert modes == [part.training for part in net.modules()]
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(part._forward_hooks for part in net.modules())


def test_an_example_that_does_not_fit_is_explained() -> None:
    net = nn.Linear(3, 2)
    with pytest.raises(InvalidValue, match=r"shape \(4,\)"):
        macs(net, (4,))
    assert not net._forward_hooks
