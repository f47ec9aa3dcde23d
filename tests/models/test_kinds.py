"""What each parameter is, over a zoo of modules."""

import pytest
import torch
from torch import nn

from tombola.models import initial, kinds, tied_names
from tombola.types import Seed


class Raw(nn.Module):
    """Holds a parameter itself."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(2, 2))
        self.bias = nn.Parameter(torch.ones(2))


class MyRMSNorm(nn.Module):
    """A norm of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))


class Tied(nn.Module):
    """A language model's shape: the embedding's table is the output layer's weight."""

    def __init__(self, *, linear_first: bool) -> None:
        super().__init__()
        if linear_first:
            self.head, self.table = nn.Linear(3, 5), nn.Embedding(5, 3)
            self.table.weight = self.head.weight
        else:
            self.table, self.head = nn.Embedding(5, 3), nn.Linear(3, 5)
            self.head.weight = self.table.weight


ZOO = [
    (nn.Linear(2, 2), {"weight": "linear", "bias": "bias"}),
    (nn.Bilinear(2, 2, 2), {"weight": "linear", "bias": "bias"}),
    (nn.Conv1d(1, 1, 1), {"weight": "conv", "bias": "bias"}),
    (nn.Conv3d(1, 1, 1, bias=False), {"weight": "conv"}),
    (nn.ConvTranspose2d(1, 1, 1), {"weight": "conv", "bias": "bias"}),
    (nn.BatchNorm2d(2), {"weight": "norm", "bias": "bias"}),
    (nn.GroupNorm(1, 2), {"weight": "norm", "bias": "bias"}),
    (nn.InstanceNorm1d(2, affine=True), {"weight": "norm", "bias": "bias"}),
    (nn.LayerNorm(2), {"weight": "norm", "bias": "bias"}),
    (nn.RMSNorm(2), {"weight": "norm"}),
    (MyRMSNorm(), {"weight": "norm"}),
    (nn.Embedding(2, 2), {"weight": "embedding"}),
    (nn.EmbeddingBag(2, 2), {"weight": "embedding"}),
    (nn.PReLU(), {"weight": "other"}),
    (Raw(), {"theta": "other", "bias": "bias"}),
    (
        nn.LSTM(2, 2, bidirectional=True, proj_size=1),
        {
            f"{part}_l0{way}": "bias" if part.startswith("bias") else "recurrent"
            for part in ("weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh")
            for way in ("", "_reverse")
        },
    ),
    (nn.GRUCell(2, 2), {k: k.split("_")[0].replace("weight", "recurrent")
                        for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}),
    (
        nn.MultiheadAttention(4, 2, add_bias_kv=True),
        {"in_proj_weight": "attention", "in_proj_bias": "bias", "out_proj.weight": "attention", "out_proj.bias": "bias",
         "bias_k": "bias", "bias_v": "bias"},
    ),
    (
        nn.MultiheadAttention(4, 2, kdim=3, bias=False),
        dict.fromkeys(("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"), "attention"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("module", "expected"), ZOO, ids=lambda value: type(value).__name__)
def test_kind_of_every_parameter(module: nn.Module, expected: dict[str, str]) -> None:
    assert kinds(module) == expected
    nested = nn.Sequential(nn.Flatten(), nn.Sequential(module))
    assert kinds(nested) == {f"1.0.{name}": kind for name, kind in expected.items()}
    assert list(kinds(nested)) == [name for name, _ in nested.named_parameters()]


@pytest.mark.parametrize(("linear_first", "first", "further"), [(True, "head", "table"), (False, "table", "head")])
def test_a_tied_parameter_counts_once_as_an_embedding(linear_first: bool, first: str, further: str) -> None:
    net = Tied(linear_first=linear_first)
    assert kinds(net) == {f"{first}.weight": "embedding", "head.bias": "bias"}
    assert tied_names(net) == {f"{further}.weight": f"{first}.weight"}
    assert initial(lambda: net, Seed(0)).params.keys() == kinds(net).keys()


def test_a_shared_module_counts_once() -> None:
    layer = nn.Linear(2, 2)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    assert kinds(net) == {"0.weight": "linear", "0.bias": "bias"}
    assert tied_names(net) == {"2.weight": "0.weight", "2.bias": "0.bias"}
