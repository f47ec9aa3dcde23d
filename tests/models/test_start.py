"""Start values: a function of the seed, whatever else draws random numbers."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tombola.errors import InvalidValue
from tombola.models import build, initial
from tombola.types import Seed, Snapshot


class Own(nn.Module):
    """A module with an initialiser and buffers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.rand(3, 2))
        self.register_buffer("kept", torch.randn(2))
        self.register_buffer("dropped", torch.randn(2), persistent=False)
        self.inner = nn.Sequential(nn.Dropout(0.5), nn.LSTM(2, 2), nn.BatchNorm1d(2))


FACTORIES: list[Callable[[], nn.Module]] = [
    lambda: build("lenet-300-100", (9,), 3),
    lambda: build("resnet-20", (1, 8, 8), 3),
    Own,
    lambda: nn.TransformerEncoderLayer(4, 2, 8),
]


def same(a: Snapshot, b: Snapshot) -> bool:
    return all(
        x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)
        for x, y in ((a.params, b.params), (a.buffers, b.buffers))
    )


@pytest.mark.parametrize("factory", FACTORIES)
def test_start_values_follow_from_the_seed_alone(factory: Callable[[], nn.Module]) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = initial(factory, Seed(7, replicate=2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, initial(factory, Seed(7, replicate=2, order=3)))
    assert not same(first, initial(factory, Seed(7, replicate=3)))
    assert not same(first, initial(factory, Seed(8, replicate=2)))


@pytest.mark.parametrize("factory", FACTORIES)
def test_snapshot_is_the_whole_state_dict(factory: Callable[[], nn.Module]) -> None:
    net = factory()
    start = initial(lambda: net, Seed(0))
    assert (start.step, start.optimizer) == (0, None)
    assert {*start.params, *start.buffers} == net.state_dict().keys()
    assert list(start.params) == [name for name, _ in net.named_parameters()]
    net.load_state_dict({**start.params, **start.buffers})


def test_values_are_copies() -> None:
    net = nn.Linear(2, 2)
    start = initial(lambda: net, Seed(0))
    assert not start.params["weight"].requires_grad
    with torch.no_grad():
        net.weight.zero_()
    assert bool(start.params["weight"].any())


def test_transient_buffers_are_left_out() -> None:
    assert "kept" in initial(Own, Seed(0)).buffers
    assert "dropped" not in initial(Own, Seed(0)).buffers


def test_generator_is_put_back_after_a_failure() -> None:
    before = torch.get_rng_state()

    def fail() -> nn.Module:
        torch.rand(3)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        initial(fail, Seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("factory", [lambda: nn.LazyLinear(2), lambda: nn.Linear(2, 2, device="meta"), lambda: 3])
def test_networks_without_values_are_refused(factory: Callable[[], nn.Module]) -> None:
    with pytest.raises(InvalidValue, match=r"no values yet|expected a torch\.nn\.Module"):
        initial(factory, Seed(0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_network_made_on_the_gpu_is_replayed() -> None:
    torch.cuda.init()
    before = torch.cuda.get_rng_state()
    first, second = (initial(lambda: nn.Linear(3, 3, device="cuda"), Seed(0)) for _ in range(2))
    assert same(first, second)
    assert torch.equal(torch.cuda.get_rng_state(), before)
