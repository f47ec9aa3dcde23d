"""A ticket put into a live network: all of it, or nothing."""

import pytest
import torch
from torch import Tensor, nn

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.ticket import Ticket


def network(hidden: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 3))


def ticket_of(net: nn.Module, masked: tuple[str, ...]) -> Ticket:
    params = dict(net.named_parameters())
    masks = {name: torch.rand(params[name].shape) < 0.4 for name in masked}
    return Ticket(params, masks, dict(net.named_buffers()), {"model": "mine:net"})


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_network_becomes_the_ticket() -> None:
    origin = network()
    origin(torch.randn(9, 5))
    ticket = ticket_of(origin, ("0.weight", "3.weight"))
    net = network()
    parameters = [id(p) for p in net.parameters()]
    masks = ticket.apply_to(net)
    assert same(state(net), {**ticket.start, **ticket.buffers})
    assert [id(p) for p in net.parameters()] == parameters
    assert all(p.requires_grad for p in net.parameters())
    assert same(masks, dict(ticket.masks))
    for name, mask in masks.items():
        assert not bool(net.get_parameter(name)[~mask].any())
        assert torch.equal(net.get_parameter(name)[mask], origin.get_parameter(name)[mask])
        mask.zero_()
    assert ticket.kept > 0


def test_values_take_the_dtype_of_the_network() -> None:
    net = nn.Linear(3, 2).double()
    ticket = Ticket({"weight": torch.rand(2, 3), "bias": torch.rand(2)}, {})
    assert ticket.apply_to(net) == {}
    assert net.weight.dtype == torch.float64
    assert torch.equal(net.weight, ticket.start["weight"].double())


WRONG = {
    "a layer more": (lambda: nn.Sequential(*network(), nn.Linear(3, 3)), "'4.bias', '4.weight'"),
    "a layer less": (lambda: network()[:3], "further parameter '3.bias', '3.weight'"),
    "other names": (lambda: nn.ModuleDict({"a": network()}), "differs in .*'a.0.weight'.* and a further"),
    "another width": (lambda: network(9), r"'0.weight' has shape \(8, 5\) .* and \(9, 5\)"),
    "another buffer": (
        lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8, track_running_stats=False), *network()[2:]),
        "further buffer '1.num_batches_tracked'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "hint"), WRONG.values(), ids=WRONG)
def test_another_network_is_refused_and_left_alone(make: type[nn.Module], hint: str) -> None:
    ticket = ticket_of(network(), ("0.weight",))
    net = make()
    before = state(net)
    with pytest.raises(ShapeMismatch, match=hint) as caught:
        ticket.apply_to(net)
    assert same(state(net), before)
    assert "'mine:net'" in str(caught.value)
    assert "tombola ticket show" in str(caught.value)


def test_a_network_without_values_is_refused() -> None:
    ticket = Ticket({"weight": torch.rand(2, 3), "bias": torch.rand(2)}, {})
    with pytest.raises(InvalidValue, match="no values yet"):
        ticket.apply_to(nn.Linear(3, 2, device="meta"))
    with pytest.raises(InvalidValue, match="no values yet"):
        ticket.apply_to(nn.LazyLinear(2))


def test_a_tied_parameter_goes_by_any_of_its_names() -> None:
    def tied() -> nn.Sequential:
        net = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4, bias=False))
        net[1].weight = net[0].weight
        return net

    value, mask = torch.rand(4, 4), torch.eye(4, dtype=torch.bool)
    for names in (("0.weight",), ("1.weight",), ("0.weight", "1.weight")):
        net = tied()
        masks = Ticket(dict.fromkeys(names, value), dict.fromkeys(names, mask)).apply_to(net)
        assert masks.keys() == {"0.weight"}
        assert net[0].weight is net[1].weight
        assert torch.equal(net[1].weight, value * mask)
    both = {"0.weight": value, "1.weight": torch.rand(4, 4)}
    net = tied()
    before = state(net)
    with pytest.raises(ShapeMismatch, match="one tied parameter"):
        Ticket(both, {}).apply_to(net)
    with pytest.raises(ShapeMismatch, match="one tied parameter"):
        Ticket({"0.weight": value, "1.weight": value}, {"0.weight": mask}).apply_to(net)
    assert same(state(net), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_masks_come_on_the_device_of_the_network() -> None:
    ticket = ticket_of(network(), ("0.weight",))
    net = network().cuda()
    masks = ticket.apply_to(net)
    assert masks["0.weight"].device == net[0].weight.device
    assert same({name: value.cpu() for name, value in state(net).items()}, {**ticket.start, **ticket.buffers})
