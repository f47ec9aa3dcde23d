"""Files that are no tickets: cut short, altered, or made up to hurt."""

import json
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tombola.errors import CorruptTicket, TicketError
from tombola.ticket import Ticket, canonical, decode, encode, load, verify


@pytest.fixture(scope="module")
def small() -> bytes:
    mask = torch.tensor([[True, False, True], [False, False, True], [True, False, False], [False, True, False]])
    ticket = Ticket(
        {"w": torch.linspace(-1, 1, 12).reshape(4, 3), "b": torch.tensor([0.5], dtype=torch.float16)},
        {"w": mask},
        {"n": torch.tensor(7)},
        {"é": 1e5},
    )
    return encode(ticket)


def refused(data: bytes, match: str = ".") -> None:
    with pytest.raises(TicketError, match=match) as caught:
        decode(data)
    assert len(str(caught.value)) < 1000


def test_every_truncation_is_noticed(small: bytes, tmp_path: Path) -> None:
    for size in range(len(small)):
        refused(small[:size])
    for size in range(0, len(small), 7):
        (tmp_path / "t").write_bytes(small[:size])
        with pytest.raises(CorruptTicket):
            load(tmp_path / "t")


def test_bytes_behind_the_end_are_noticed(small: bytes) -> None:
    for more in (b"\0", b" ", small):
        refused(small + more, "cut short or added to")


def test_every_flipped_bit_is_noticed(small: bytes) -> None:
    assert decode(small)
    data = bytearray(small)
    for bit in range(8 * len(small)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TicketError):
            decode(bytes(data))
        data[bit // 8] ^= 1 << bit % 8
    assert bytes(data) == small


def test_one_flipped_mask_bit_fails_verification(small: bytes, tmp_path: Path) -> None:
    header = json.loads(small[8 : 8 + int.from_bytes(small[:8], "little")])
    at = 8 + int.from_bytes(small[:8], "little") + header["mask/w"]["data_offsets"][0]
    (tmp_path / "t").write_bytes(small[:at] + bytes([small[at] ^ 128]) + small[at + 1 :])
    found = verify(tmp_path / "t")
    assert not found.ok
    assert [check.ok for check in found.checks] == [True, True, True, True, False]
    assert found.checks[-1].name == "digest"
    assert "altered" in found.checks[-1].sentence


def forge(small: bytes, change: Callable[[dict[str, Any], dict[str, Any]], None], *, reseal: bool = True) -> bytes:
    """Alter a ticket and give it a digest that fits, as someone with bad intentions would."""
    tensors: dict[str, Any] = dict(safetensors.torch.load(small))
    header = json.loads(small[8 : 8 + int.from_bytes(small[:8], "little")])
    about = json.loads(header["__metadata__"]["ticket"])
    change(about, tensors)
    if reseal:
        about["digest"] = canonical.digest(tensors, canonical.dumps({k: v for k, v in about.items() if k != "digest"}))
    return bytes(safetensors.torch.save(tensors, metadata={"ticket": canonical.dumps(about)}))


def test_forging_nothing_gives_the_ticket(small: bytes) -> None:
    assert forge(small, lambda _, __: None) == small


def describe(name: str, **changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda about, _: about["tensors"]["start"][name].update(changes)


def put(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda _, tensors: tensors.update({key.replace("_", "/"): value for key, value in changes.items()})


def rename(name: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(about: dict[str, Any], tensors: dict[str, Any]) -> None:
        about["tensors"]["start"][name] = about["tensors"]["start"].pop("b")
        tensors[f"start/{name}"] = tensors.pop("start/b")

    return change


FORGED = {
    "newer schema": (lambda about, _: about.update(schema=3), "schema 3; .* reads schema 1 or 2"),
    "older schema": (lambda about, _: about.update(schema=0), "schema 0"),
    "schema 2 without its keys": (lambda about, _: about.update(schema=2), "keys of schema 2"),
    "keys of schema 2": (lambda about, _: about.update(parts=[], drawn=None, seal="0" * 64), "keys of schema 1"),
    "schema is text": (lambda about, _: about.update(schema="1"), "schema number"),
    "schema is true": (lambda about, _: about.update(schema=True), "schema number"),
    "extra key": (lambda about, _: about.update(more=1), "keys of schema 1"),
    "no provenance": (lambda about, _: about.update(provenance=None), "provenance"),
    "no tensors": (lambda about, _: about.update(tensors=[]), "does not describe"),
    "start is a list": (lambda about, _: about["tensors"].update(start=[]), "does not describe"),
    "entry is a list": (lambda about, _: about["tensors"]["start"].update(b=[]), "other words"),
    "larger shape": (describe("w", shape=[5, 4]), "shape"),
    "smaller shape": (describe("w", shape=[2, 2]), "shape|keeps"),
    "same bits, other shape": (describe("w", shape=[13]), None),
    "huge shape": (describe("w", shape=[2**40, 2**40]), "a tensor of"),
    "huge shape of few bits": (describe("w", shape=[2**62]), "a tensor of"),
    "overflow to 12": (describe("w", shape=[2**32, 2**32, 12]), "a tensor of"),
    "huge beside zero": (describe("w", shape=[0, 2**59, 2**59], kept=0), "a tensor of"),
    "negative shape": (describe("w", shape=[-4, -3]), "a tensor of"),
    "float shape": (describe("w", shape=[4.0, 3.0]), "a tensor of"),
    "many axes": (describe("w", shape=[1] * 99), "a tensor of"),
    "shape of text": (describe("w", shape="12"), "a tensor of"),
    "other dtype": (describe("w", dtype="float64"), "float32"),
    "unknown dtype": (describe("w", dtype="object"), "a tensor of"),
    "dtype is a list": (describe("w", dtype=["float32"]), "a tensor of"),
    "more kept": (describe("w", kept=6), "shape"),
    "kept too many": (describe("w", kept=13), "a count"),
    "kept is true": (describe("w", kept=True), "a count"),
    "unmasked": (describe("w", kept=None), "shape"),
    "masked": (describe("b", kept=1), "shape"),
    "more survivors": (put(start_w=torch.ones(6)), "shape"),
    "fewer bits": (put(mask_w=torch.zeros(1, dtype=torch.uint8)), "shape"),
    "bits of another dtype": (put(mask_w=torch.zeros(2, dtype=torch.bool)), "uint8"),
    "stray padding bit": (put(mask_w=torch.tensor([163, 33], dtype=torch.uint8)), "behind the end"),
    "mask keeps more": (put(mask_w=torch.tensor([255, 240], dtype=torch.uint8)), "keeps 12"),
    "extra tensor": (put(start_more=torch.ones(1)), "does not describe"),
    "missing tensor": (lambda _, tensors: tensors.pop("buffer/n"), "shape None"),
    "nan": (put(start_w=torch.tensor([1, 2, float("nan"), 4, 5])), "NaN or Inf"),
    "infinity": (put(start_b=torch.tensor([float("inf")], dtype=torch.float16)), "NaN or Inf"),
    "control character": (rename("a\x00b"), "plain name"),
    "escape sequence": (rename("\x1b[2J"), "plain name"),
    "empty name": (rename(""), "plain name"),
    "long name": (rename("n" * 600), "plain name"),
    "name that leads up": (rename("../../../tmp/x"), "plain name"),
    "name between dots": (rename("layer..weight"), "plain name"),
    "name with a dot in front": (rename(".weight"), "plain name"),
    "absolute name": (rename("/etc/passwd"), "plain name"),
    "name of a share": (rename("\\\\host\\share"), "plain name"),
    "line feed": (rename("a\nb"), "plain name"),
    "text from right to left": (rename("a\u202eb"), "plain name"),
    "half of a character": (lambda about, _: about["tensors"]["start"].update({"\ud800": 1}), "plain name"),
    "claim beyond floats": (lambda about, _: about["provenance"].update(density=10**400), "masks show"),
    "endless schema": (lambda about, _: about.update(schema=10**4000), "schema 1000"),
    "false claim": (lambda about, _: about["provenance"].update(density=0.01), "masks show"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forgeries_with_a_fitting_digest_are_refused(small: bytes, name: str) -> None:
    change, match = FORGED[name]
    data = forge(small, change)
    if match is None:
        # 12 weights and 13 weights take two bytes of bits alike: a consistent ticket, only another one.
        assert decode(data).digest != decode(small).digest
    else:
        refused(data, match)


def test_a_wrong_digest_is_refused(small: bytes) -> None:
    refused(forge(small, lambda about, _: about["provenance"].update(x=1), reseal=False), "altered")


def test_an_odd_zero_shape_is_read_without_harm(small: bytes) -> None:
    def change(about: dict[str, Any], tensors: dict[str, Any]) -> None:
        about["tensors"]["start"]["w"].update(shape=[0, 2**59], kept=0)
        tensors.update({"start/w": torch.zeros(0), "mask/w": torch.zeros(0, dtype=torch.uint8)})

    assert decode(forge(small, change)).start["w"].shape == (0, 2**59)


def container(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HEADERS = {
    "empty": (b"", "no header"),
    "short": (b"1234567", "no header"),
    "zeros": (bytes(8), "not JSON"),
    "absurd length": (b"\xff" * 8, "header takes 18446744073709551615 bytes"),
    "length one too long": (container({})[:-1], "whole"),
    "not JSON": (container(b"{"), "not JSON"),
    "not UTF-8": (container(b'{"\xff": 1}'), "not JSON"),
    "not an object": (container([]), "no JSON object"),
    "white space": (container(b" {}"), "no JSON object"),
    "deep": (container(b"[" * 200_000), "not JSON"),
    "deep objects": (container(b'{"a":' * 200_000), "not JSON"),
    "number too long": (container(b'{"a": ' + b"9" * 10_000 + b"}"), "not JSON"),
    "twice": (container(b'{"a": 1, "a": 2}'), "twice"),
    "no metadata": (container({"a": tensor()}, bytes(4)), "metadata keys"),
    "other metadata": (container({"__metadata__": {"format": "pt"}}), "It is no ticket"),
    "more metadata": (container({"__metadata__": {"ticket": "{}", "more": ""}}), "one key 'ticket'"),
    "metadata not text": (container({"__metadata__": {"ticket": 1}}), "not texts"),
    "metadata is a list": (container({"__metadata__": []}), "not texts"),
    "ticket not JSON": (container({"__metadata__": {"ticket": "{"}}), "not JSON"),
    "ticket with NaN": (container({"__metadata__": {"ticket": '{"schema":NaN}'}}), "not JSON"),
    "ticket with 1e999": (container({"__metadata__": {"ticket": '{"schema":1,"x":1e999}'}}), "not JSON"),
    "ticket is deep": (container({"__metadata__": {"ticket": "[" * 200_000}}), "not JSON"),
    "ticket is a list": (container({"__metadata__": {"ticket": "[]"}}), "schema number"),
    "ticket not canonical": (container({"__metadata__": {"ticket": '{"schema": 1}'}}), "did not write"),
    "entry is text": (container({"a": "b"}), "other words"),
    "unknown dtype": (container({"a": tensor("F4")}, bytes(4)), "dtype"),
    "dtype is a list": (container({"a": tensor(["F32"])}, bytes(4)), "dtype"),  # type: ignore[arg-type]
    "wrong length": (container({"a": tensor(shape=[2])}, bytes(4)), "from its shape"),
    "overflow to 4 bytes": (container({"a": tensor(shape=[2**62 + 1])}, bytes(4)), "can have"),
    "overflow of a product": (container({"a": tensor(shape=[2**33, 2**31])}, bytes(4)), "can have"),
    "negative offsets": (container({"a": tensor(offsets=[-4, 0])}, bytes(4)), "two byte offsets"),
    "offsets are true": (container({"a": tensor("U8", offsets=[False, True])}, bytes(1)), "two byte offsets"),
    "offsets overlap": (container({"a": tensor(), "b": tensor()}, bytes(4)), "begins at byte 0"),
    "gap": (container({"a": tensor(offsets=[4, 8])}, bytes(8)), "begins at byte 4"),
    "data of a terabyte": (container({"a": tensor("U8", [2**40], [0, 2**40])}, bytes(4)), "cut short"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie_are_refused_without_taking_memory(name: str, tmp_path: Path) -> None:
    data, match = HEADERS[name]
    (tmp_path / "t").write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptTicket, match=match):
            load(tmp_path / "t")
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()
    refused(data, match)
    assert not verify(tmp_path / "t").ok


def test_a_huge_file_is_refused_by_its_header(tmp_path: Path) -> None:
    with open(tmp_path / "t", "wb") as file:
        file.write((2**40 - 8).to_bytes(8, "little"))
        file.truncate(2**40)
    with pytest.raises(CorruptTicket, match="at most"):
        load(tmp_path / "t")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    (tmp_path / "a").write_bytes(pickle.dumps(Trap()))
    torch.save({"w": Trap()}, tmp_path / "b")
    for name in "ab":
        with pytest.raises(CorruptTicket):
            load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_what_is_no_file_is_explained(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "secret").write_bytes(b"")
    cases = {
        tmp_path / "missing": "there is no file",
        tmp_path: "is a folder|no ordinary file",
        tmp_path / "pipe": "no ordinary file",
        tmp_path / "secret" / "x": "cannot be read",
        tmp_path / "\0": "cannot be read",
    }
    for path, match in cases.items():
        with pytest.raises(TicketError, match=match):
            load(path)
        found = verify(path)
        assert not found.ok
        assert [check.name for check in found.checks] == ["file"]


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.ones(3)}, tmp_path / "t")
    with pytest.raises(CorruptTicket, match="It is no ticket"):
        load(tmp_path / "t")
