"""What the sparse engine runs, what it does not, and that it says why."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola import models
from tombola.errors import InvalidValue
from tombola.sparse import read_chain, why_not
from tombola.sparse.chain import ActivationLayer, DropoutLayer, LinearLayer
from tombola.sparse.kernels.library import available

needs_kernels = pytest.mark.skipif(not available(), reason="the compiled kernels are not here")


class Written(nn.Module):
    """A forward pass written by hand, in every way that there is to say it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(12, 7), nn.Linear(7, 6, bias=False), nn.Linear(6, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(x.size(0), -1)
        x = functional.leaky_relu(self.first(x), 0.3)
        x = self.drop(torch.tanh(self.second(x)))
        x = functional.gelu(x, approximate="tanh")
        return self.third(x.reshape(x.shape[0], -1).sigmoid())


@needs_kernels
def test_the_lenet_is_a_chain() -> None:
    model = models.build("lenet-300-100", (1, 28, 28), 10)
    assert why_not(model) is None
    chain = read_chain(model, torch.randn(3, 1, 28, 28))
    assert [(layer.weight, layer.inputs, layer.outputs) for layer in chain.linears] == [
        ("fc1.weight", 784, 300),
        ("fc2.weight", 300, 100),
        ("output.weight", 100, 10),
    ]
    assert [type(layer) for layer in chain.layers] == [LinearLayer, ActivationLayer] * 2 + [LinearLayer]


@needs_kernels
def test_a_forward_pass_written_by_hand_is_read() -> None:
    model, x = Written(), torch.randn(4, 3, 4)
    model.second.eval()
    state = torch.get_rng_state()
    chain = read_chain(model, x)
    assert torch.equal(state, torch.get_rng_state())
    assert (model.training, model.second.training) == (True, False)
    names = [layer.function for layer in chain.layers if isinstance(layer, ActivationLayer)]
    assert names == ["leaky-relu", "tanh", "gelu-tanh", "sigmoid"]
    assert DropoutLayer(0.5) in chain.layers
    model.eval()
    torch.testing.assert_close(chain.run(dict(model.named_parameters()), x), model(x))


class Odd(nn.Module):
    """A network with one thing that no chain has."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[0].bias.requires_grad_(False)
    return model


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].register_forward_hook(lambda *_: None)
    return model


NOT_CHAINS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "conv": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3)), "'0' is a Conv2d"),
    "batch norm": (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "'1' is a BatchNorm1d"),
    "tied": (tied, "share a parameter"),
    "frozen": (frozen, "'0.bias' is frozen"),
    "hooks": (hooked, "'0' has hooks"),
    "double": (lambda: nn.Sequential(nn.Linear(4, 4)).double(), "torch.float64"),
    "no layer": (lambda: nn.Sequential(nn.ReLU()), "no linear layer"),
    "misfit": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(3, 4)), "takes 3 features and is given 4"),
    "a layer alone": (lambda: nn.Linear(4, 4), "calls linear"),
    "residual": (lambda: Odd(lambda m, x: m.b(m.a(x)) + x), "calls add"),
    "twice": (lambda: Odd(lambda m, x: m.b(m.a(m.a(x)))), "a layer is used twice"),
    "unused": (lambda: Odd(lambda m, x: m.a(x)), "'b.weight' is not one of a linear layer's"),
    "skips": (lambda: Odd(lambda m, x: (m.a(x), m.b(x))[1]), "not one chain"),
    "branches": (lambda: Odd(lambda m, x: m.b(m.a(x)) if x.sum() > 0 else x), "not a fixed chain"),
    "own dropout": (lambda: Odd(lambda m, x: m.b(functional.dropout(m.a(x)))), "calls dropout"),
    "draws": (lambda: Odd(lambda m, x: (torch.rand(1), m.b(m.a(x)))[1]), "draws random numbers"),
    "modes": (lambda: Odd(lambda m, x: m.b(m.a(x) if m.training else m.a(x).relu())), "in training than in evaluation"),
}


@pytest.mark.parametrize("case", NOT_CHAINS)
def test_what_is_no_chain_is_named(case: str) -> None:
    build, words = NOT_CHAINS[case]
    reason = why_not(build())
    assert reason is not None
    assert words in reason
    assert not reason.endswith(".")


@needs_kernels
def test_a_chain_that_computes_something_else_is_refused() -> None:
    model = Odd(lambda m, x: m.b(m.a(x).view(2, -1)))
    with pytest.raises(InvalidValue, match=r"cannot train this network.*Use the plain engine"):
        read_chain(model, torch.randn(2, 3))
    shuffled = Odd(lambda m, x: m.b(m.a(x.reshape(-1, 4))))
    with pytest.raises(InvalidValue, match="8"):
        read_chain(shuffled, torch.randn(2, 2, 4))
    assert why_not(shuffled) is None
    assert "an example has 8" in str(why_not(shuffled, torch.randn(2, 2, 4)))


def test_without_kernels_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOMBOLA_KERNELS", "none")
    network = nn.Sequential(nn.Linear(2, 2))
    assert why_not(network) == "TOMBOLA_KERNELS=none switches the compiled kernels off: unset it to have them"
    monkeypatch.delenv("TOMBOLA_KERNELS")
    monkeypatch.setattr("tombola.sparse.kernels.library.available", tuple)
    assert why_not(network) == "the compiled kernels are not here: install a C++ compiler and reinstall"
