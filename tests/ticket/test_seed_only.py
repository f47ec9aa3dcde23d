"""Tickets whose files leave the start values to the seed."""

import json
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tombola import models
from tombola.errors import CorruptTicket, InvalidValue, TicketError
from tombola.ticket import Ticket, canonical, decode, encode, load, save, stored, verify
from tombola.types import Seed

Factory = Callable[..., nn.Module]


def drawn(build: Factory, about: dict[str, Any], masked: tuple[str, ...] | None = None) -> Ticket:
    """A ticket of a tenth of the weights, from the values that the seed draws."""
    start = models.initial(build, Seed(about["seed"], about["replicate"]))
    generator = torch.Generator().manual_seed(9)
    names = masked if masked is not None else tuple(name for name, value in start.params.items() if value.ndim > 1)
    masks = {name: torch.rand(start.params[name].shape, generator=generator) < 0.1 for name in names}
    return Ticket(start.params, masks, start.buffers, about)


def known(name: str, shape: tuple[int, ...], classes: int = 10) -> Ticket:
    about = {"model": name, "input_shape": list(shape), "classes": classes, "seed": 3, "replicate": 1}
    return drawn(partial(models.build, name, shape, classes), about)


def mine(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], 7), nn.BatchNorm1d(7), nn.Linear(7, classes))


OWN = {"model": "mine:net", "input_shape": [5], "classes": 3, "seed": 0, "replicate": 0}


def own() -> Ticket:
    return drawn(partial(mine, (5,), 3), OWN)


@pytest.mark.parametrize(
    ("name", "shape"), [("lenet-300-100", (1, 8, 8)), ("conv-2", (3, 16, 16)), ("resnet-20", (3, 32, 32))]
)
def test_the_values_come_back_bit_for_bit(name: str, shape: tuple[int, ...]) -> None:
    ticket = known(name, shape)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    data = encode(ticket, seed_only=True)
    back = decode(data)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert back == ticket
    assert back.digest == ticket.digest
    assert encode(back, seed_only=True) == data
    assert encode(back) == encode(ticket)
    assert len(encode(ticket)) - len(data) > 3 * ticket.kept


def test_a_file_says_so_and_verifies(tmp_path: Path) -> None:
    ticket = known("lenet-300-100", (1, 8, 8))
    save(ticket, tmp_path / "full")
    save(ticket, tmp_path / "seed", seed_only=True)
    full, seed = stored(tmp_path / "full"), stored(tmp_path / "seed")
    assert (full.schema, full.seed_only, full.size) == (1, False, (tmp_path / "full").stat().st_size)
    assert (seed.schema, seed.seed_only) == (2, True)
    assert load(tmp_path / "seed") == load(tmp_path / "full")
    found = verify(tmp_path / "seed")
    assert found.ok
    assert "drawn from the seed" in found.checks[-2].sentence
    assert ticket.digest in found.checks[-1].sentence


def test_a_parent_and_a_lineage_go_with_it() -> None:
    ticket = own()
    whole = replace(ticket, parent={name: torch.ones_like(mask) for name, mask in ticket.masks.items()})
    data = encode(whole, seed_only=True, build=mine)
    assert decode(data, build=mine) == whole
    assert encode(decode(data, build=mine), seed_only=True, build=mine) == data


def test_a_network_of_ones_own_is_built_by_the_caller_only(tmp_path: Path) -> None:
    called = []

    def factory(input_shape: tuple[int, ...], classes: int) -> nn.Module:
        called.append((input_shape, classes))
        return mine(input_shape, classes)

    save(own(), tmp_path / "t", seed_only=True, build=factory)
    assert set(called) == {((5,), 3)}
    with pytest.raises(TicketError, match=r"'mine:net', which is none of .* not trusted to name code"):
        load(tmp_path / "t")
    assert not verify(tmp_path / "t").ok
    assert load(tmp_path / "t", build=factory) == own()
    assert load(tmp_path / "t", build=lambda: mine((5,), 3)) == own()
    assert verify(tmp_path / "t", build=factory).ok
    with pytest.raises(TicketError, match=r"network has '1.bias' as float32 of shape \(6,\)"):
        load(tmp_path / "t", build=lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 6)))
    with pytest.raises(TicketError, match="those drawn here have SHA-256"):
        load(tmp_path / "t", build=lambda: shifted(mine((5,), 3)))
    with pytest.raises(TicketError, match="the factory's fault"):
        load(tmp_path / "t", build=failing)
    with pytest.raises(TicketError, match="asks for neither"):
        load(tmp_path / "t", build=lambda classes: peeking(classes))


def shifted(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 1
    return net


def failing() -> nn.Module:
    raise RuntimeError("the factory's\nfault")


def peeking(classes: int) -> nn.Module:
    """A network that cannot be built without memory, because it looks at its values."""
    net = mine((5,), classes)
    if float(next(net.parameters()).sum()) > 1e9:
        raise AssertionError
    return net


def test_a_full_file_calls_no_factory() -> None:
    assert decode(encode(own()), build=failing) == own()


def test_other_start_values_are_not_left_out() -> None:
    ticket = own()

    def refused(one: Ticket, hint: str, build: Factory | None = mine) -> None:
        with pytest.raises(InvalidValue, match=hint):
            encode(one, seed_only=True, build=build)

    survivor = torch.nonzero(ticket.masks["1.weight"])[0]
    moved = ticket.start["1.weight"].clone()
    moved[tuple(survivor)] = torch.nextafter(moved[tuple(survivor)], torch.tensor(9.0))
    refused(replace(ticket, start={**ticket.start, "1.weight": moved}), "'1.weight' is not what the seed draws")
    negative = {name: -value if name == "2.bias" else value for name, value in ticket.start.items()}
    refused(replace(ticket, start=negative), "'2.bias'")
    refused(replace(ticket, buffers={**ticket.buffers, "2.running_mean": torch.ones(7)}), "buffer '2.running_mean'")
    refused(replace(ticket, buffers={}), "buffer '2.num_batches_tracked'")
    refused(replace(ticket, theta_0=ticket.start), "of a later step than the initial values")
    refused(replace(ticket, provenance={**OWN, "seed": 1}), "is not what the seed draws")
    refused(replace(ticket, provenance={**OWN, "seed": -1}), "seed is -1")
    refused(replace(ticket, provenance={**OWN, "replicate": True}), "replicate is True")
    refused(replace(ticket, provenance={}), "seed is None")
    refused(ticket, "not trusted to name code", None)
    refused(ticket, "the network has", partial(nn.Linear, 5, 7))


def test_a_network_without_masks_is_not_left_to_the_seed() -> None:
    wide = partial(nn.Linear, 2000, 1000)
    ticket = drawn(wide, {"seed": 0, "replicate": 0}, ())
    with pytest.raises(InvalidValue, match="2001000 parameters without a mask"):
        encode(ticket, seed_only=True, build=wide)
    few = drawn(wide, {"seed": 0, "replicate": 0})
    assert decode(encode(few, seed_only=True, build=wide), build=wide) == few


def forged(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """Alter what a file says and give it a seal that fits, as someone with bad intentions would."""
    import safetensors.torch

    length = int.from_bytes(data[:8], "little")
    body = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["ticket"])
    tensors: dict[str, Tensor] = dict(safetensors.torch.load(data))
    change(body)
    body["seal"] = canonical.digest(tensors, canonical.dumps({key: body[key] for key in body if key != "seal"}))
    return bytes(safetensors.torch.save(tensors, metadata={"ticket": canonical.dumps(body)}))


def about(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["provenance"].update(changes)


def declared(**shapes: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        body["provenance"].update(input_shape=shapes.pop("input_shape"), classes=shapes.pop("classes", 10))
        for name, shape in shapes.items():
            body["tensors"]["start"][name.replace("_", ".")].update(shape=shape)

    return change


BAD: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "petabytes in": (about(input_shape=[2**50]), "the network has 'fc1.weight'"),
    "petabytes out": (about(classes=2**50), "the network has 'output.bias'"),
    "more than any memory": (about(input_shape=[2**30, 2**29]), "cannot be built"),
    "overflow": (about(input_shape=[2**40, 2**40]), "what its network was built for"),
    "overflow to the size": (about(input_shape=[2**59, 2**7]), "what its network was built for"),
    "classes beyond integers": (about(classes=10**300), "cannot be built"),
    "no side": (about(input_shape=[]), "cannot be built"),
    "negative side": (about(input_shape=[-64]), "what its network was built for"),
    "nested": (about(input_shape=[[64]]), "what its network was built for"),
    "text": (about(input_shape="64"), "what its network was built for"),
    "true": (about(classes=True), "what its network was built for"),
    "many sides": (about(input_shape=[1] * 1000), "what its network was built for"),
    "another network": (about(model="vgg-19"), "cannot be built"),
    "another image network": (about(model="vgg-19", input_shape=[3, 2**40, 2**40]), "the network has|built for"),
    "code": (about(model="os:abort"), "not trusted to name code"),
    "a file": (about(model="/tmp/evil.py:net"), "not trusted to name code"),
    "a module": (about(model="antigravity"), "not trusted to name code"),
    "a list": (about(model=["lenet-300-100"]), "not trusted to name code"),
    "another seed": (about(seed=4), "those drawn here have SHA-256"),
    "endless seed": (about(seed=10**300), "a whole number"),
    "seed with a fraction": (about(seed=3.0), "a whole number"),
    "no digest of values": (lambda body: body.update(drawn=""), "those of schema 2"),
    "another digest of values": (lambda body: body.update(drawn="0" * 64), "Every bit must be equal"),
    "another digest": (lambda body: body.update(digest="0" * 64), "which it says it holds"),
    "nothing drawn": (lambda body: body.update(drawn=None), "schema 1"),
    "initial values": (lambda body: body.update(parts=["theta_0"]), "one of the two"),
    "a bias of terabytes": (declared(input_shape=[64], classes=2**40, output_bias=[2**40]), "without a mask"),
    "a bias that memory could hold": (declared(input_shape=[64], classes=2**22, output_bias=[2**22]), "without a mask"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "hint"), BAD.values(), ids=BAD)
def test_a_hostile_file_builds_nothing(change: Callable[[dict[str, Any]], None], hint: str, tmp_path: Path) -> None:
    data = forged(encode(known("lenet-300-100", (1, 8, 8)), seed_only=True), change)
    (tmp_path / "t").write_bytes(data)
    modules = set(sys.modules)
    tracemalloc.start()
    try:
        with pytest.raises(TicketError, match=hint) as caught:
            load(tmp_path / "t")
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1200
    assert not {"antigravity", "evil"} & (set(sys.modules) - modules)
    assert not verify(tmp_path / "t").ok


def test_a_wholly_unmasked_file_of_terabytes_is_refused_before_it_is_built() -> None:
    """What no mask's bits bound, the size of the file does."""

    def change(body: dict[str, Any]) -> None:
        body["provenance"]["input_shape"] = [2**38]
        body["tensors"]["start"]["fc1.weight"].update(shape=[300, 2**38], kept=None)

    data = encode(drawn(partial(models.build, "lenet-300-100", (64,), 10),
                        {**known("lenet-300-100", (64,)).provenance}, ("fc2.weight",)), seed_only=True)  # fmt: skip
    with pytest.raises(CorruptTicket, match="parameters without a mask"):
        decode(forged(data, change))


def test_a_factory_that_asks_is_given_nothing_absurd() -> None:
    given = []

    def factory(input_shape: tuple[int, ...], classes: int) -> nn.Module:
        given.append(torch.empty(0).device.type)
        return mine(input_shape, classes)

    data = forged(encode(own(), seed_only=True, build=mine), about(input_shape=[2**40]))
    with pytest.raises(TicketError, match=r"the network has '1\.weight'"):
        decode(data, build=factory)
    assert given == ["meta"]


def test_an_altered_file_is_noticed_before_anything_is_drawn() -> None:
    data = bytearray(encode(own(), seed_only=True, build=mine))
    called = []

    def factory() -> nn.Module:
        called.append(1)
        return mine((5,), 3)

    for bit in range(0, 8 * len(data), 3):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TicketError):
            decode(bytes(data), build=factory)
        data[bit // 8] ^= 1 << bit % 8
    assert not called
    assert decode(bytes(data), build=factory) == own()
