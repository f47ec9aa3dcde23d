"""Files with hostile parents, initial values and lineages; and truncation and flipped bits of a file of every kind."""

import json
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tombola import models
from tombola.errors import TicketError, TombolaError
from tombola.prune.masks import fingerprint
from tombola.ticket import Ticket, canonical, decode, encode, load, verify
from tombola.types import Seed

Body = dict[str, Any]
Tensors = dict[str, Tensor]


def net() -> nn.Module:
    return nn.Linear(9, 5)


def whole() -> Ticket:
    """A small ticket with all parts."""
    place = torch.arange(45).reshape(5, 9)
    levels = [{"weight": place < n} for n in (45, 30, 12)]
    start = {"weight": place / 8 - 2, "bias": torch.linspace(-1, 1, 5)}
    lineage = [
        {"level": n, "kept": int(one["weight"].sum()), "total": 45, "masks": fingerprint(one)}
        for n, one in enumerate(levels)
    ]
    first = {name: value / 2 for name, value in start.items()}
    return Ticket(start, levels[2], {"n": torch.tensor(3)}, {"lineage": lineage}, first, levels[1])


def drawn() -> Ticket:
    """A small ticket whose values the seed draws."""
    start = models.initial(net, Seed(0))
    return Ticket(start.params, whole().masks, start.buffers, {"seed": 0, "replicate": 0})


def files() -> dict[str, bytes]:
    return {
        "plain": encode(Ticket(whole().start, whole().masks, whole().buffers)),
        "whole": encode(whole()),
        "drawn": encode(drawn(), seed_only=True, build=net),
    }


def refused(data: bytes, match: str = ".") -> None:
    with pytest.raises(TicketError, match=match) as caught:
        decode(data, build=net)
    assert len(str(caught.value)) < 1200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["plain", "whole", "drawn"])
def test_every_truncation_of_every_kind_is_noticed(kind: str) -> None:
    data = files()[kind]
    for size in range(len(data)):
        refused(data[:size])


@pytest.mark.parametrize("kind", ["plain", "whole", "drawn"])
def test_every_flipped_bit_of_every_kind_is_noticed(kind: str) -> None:
    """In the length, the header, every tensor and both ends; also where zlib itself would read on."""
    data = bytearray(files()[kind])
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TicketError):
            decode(bytes(data), build=net)
        data[bit // 8] ^= 1 << bit % 8
    assert decode(bytes(data), build=net)


def test_a_large_file_is_noticed_at_every_kilobyte(tmp_path: Path) -> None:
    mask = torch.rand(400, 500, generator=torch.Generator().manual_seed(0)) < 0.2
    value = {"w": torch.randn(400, 500)}
    data = encode(Ticket(value, {"w": mask}, theta_0=value, parent={"w": mask | (torch.rand(400, 500) < 0.1)}))
    assert len(data) > 300_000
    for size in range(0, len(data), 1024):
        (tmp_path / "t").write_bytes(data[:size])
        with pytest.raises(TombolaError):
            load(tmp_path / "t")
        assert not verify(tmp_path / "t").ok
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    base = 8 + int.from_bytes(data[:8], "little")
    places = {0, 7, 8, base - 1, len(data) - 1}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (base + at for at in entry["data_offsets"])
            places |= {begin, (begin + end) // 2, end - 1}
    for at in sorted(places):
        for bit in (0, 7):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            refused(bytes(changed))


def forge(data: bytes, change: Callable[[Body, Tensors], None]) -> bytes:
    """Alter a ticket and give it digests that fit, as someone with bad intentions would."""
    length = int.from_bytes(data[:8], "little")
    body = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["ticket"])
    tensors: Tensors = dict(safetensors.torch.load(data))
    change(body, tensors)
    if body["drawn"] is None:
        plain = {name: inflated(value) if name.startswith("parent/") else value for name, value in tensors.items()}
        inner = {key: body[key] for key in ("schema", "parts", "tensors", "provenance")}
        body["digest"] = canonical.digest(plain, canonical.dumps(inner))
    body["seal"] = canonical.digest(tensors, canonical.dumps({key: body[key] for key in body if key != "seal"}))
    return bytes(safetensors.torch.save(tensors, metadata={"ticket": canonical.dumps(body)}))


def inflated(stream: Tensor) -> Tensor:
    try:
        content = zlib.decompressobj().decompress(stream.numpy().tobytes(), 100)
    except zlib.error:
        return stream
    return torch.tensor(list(content), dtype=torch.uint8)


def test_forging_nothing_gives_the_ticket() -> None:
    assert forge(files()["whole"], lambda _, __: None) == files()["whole"]
    assert forge(files()["drawn"], lambda _, __: None) == files()["drawn"]


def stream(content: bytes) -> Callable[[Body, Tensors], None]:
    data = torch.tensor(list(content), dtype=torch.uint8)
    return lambda _, tensors: tensors.update({"parent/weight": data})


def xor(*changed: int) -> bytes:
    """The stream of a parent that differs from the mask in these places."""
    bits = bytearray(6)
    for at in changed:
        bits[at // 8] |= 128 >> at % 8
    return zlib.compress(bytes(bits))


def put(**changes: Tensor) -> Callable[[Body, Tensors], None]:
    return lambda _, tensors: tensors.update({key.replace("__", "/"): value for key, value in changes.items()})


def last(**changes: Any) -> Callable[[Body, Tensors], None]:
    return lambda body, _: body["provenance"]["lineage"][-1].update(changes)


WHOLE: dict[str, tuple[Callable[[Body, Tensors], None], str]] = {
    "no zlib": (stream(b"plain text"), "does not decompress"),
    "nothing": (stream(b""), "does not decompress"),
    "too short": (stream(zlib.compress(bytes(5))), "does not decompress"),
    "too long": (stream(zlib.compress(bytes(7))), "does not decompress"),
    "something behind": (stream(xor(20) + b"\0"), "does not decompress"),
    "two streams": (stream(xor(20) * 2), "does not decompress"),
    "cut short": (stream(xor(20)[:-1]), "does not decompress"),
    "wrong checksum": (stream(xor(20)[:-1] + b"\0"), "does not decompress"),
    "preset dictionary": (stream(b"\x78\xbb\0\0\0\1" + xor(20)[2:]), "does not decompress"),
    "gzip": (stream(b"\x1f\x8b\x08\0\0\0\0\0\0\3" + xor(20)[2:]), "does not decompress"),
    "padding": (stream(xor(46)), "behind the end of parent"),
    "not nested": (stream(xor(0)), "keep 1 weights that the parent's masks prune"),
    "not nested at all": (stream(xor(*range(12))), "keep 12 weights"),
    "another parent": (stream(xor(20)), "the parent's masks"),
    "two axes": (put(parent__weight=torch.zeros(2, 4, dtype=torch.uint8)), "of one axis"),
    "bits of another dtype": (put(parent__weight=torch.zeros(8, dtype=torch.int8)), "uint8"),
    "no parent": (lambda _, tensors: tensors.pop("parent/weight"), "of one axis"),
    "parent of a bias": (put(parent__bias=torch.zeros(8, dtype=torch.uint8)), "does not describe"),
    "initial values too many": (put(theta_0__weight=torch.ones(13)), "shape"),
    "initial values of another dtype": (put(theta_0__weight=torch.ones(12).double()), "float64"),
    "initial values not finite": (put(theta_0__bias=torch.full((5,), float("nan"))), "NaN or Inf among the theta_0"),
    "no initial values": (lambda _, tensors: tensors.pop("theta_0/bias"), "shape None"),
    "parts less": (lambda body, _: body.update(parts=["parent"]), "does not describe"),
    "no parts": (lambda body, _: body.update(parts=[]), "schema 1"),
    "parts in another order": (lambda body, _: body.update(parts=["theta_0", "parent"]), "those of schema 2"),
    "parts twice": (lambda body, _: body.update(parts=["parent", "parent"]), "those of schema 2"),
    "parts of another schema": (lambda body, _: body.update(parts=["parent", "theta_1"]), "those of schema 2"),
    "parts are text": (lambda body, _: body.update(parts="parent"), "those of schema 2"),
    "schema 1 with parts": (lambda body, _: body.update(schema=1), "keys of schema 1"),
    "lineage of another ticket": (last(masks="0" * 64), "They must be equal"),
    "lineage that keeps more": (last(kept=13), "They must be equal"),
    "lineage of absurd numbers": (last(total=10**300), "expected a level"),
    "lineage with control characters": (last(masks="\x1b[2J"), "expected a level"),
    "lineage is text": (lambda body, _: body["provenance"].update(lineage="\x1b[2J"), "it is a list"),
    "lineage without this ticket": (lambda body, _: body["provenance"]["lineage"].pop(), "They must be equal"),
    "start values drawn as well": (lambda body, _: body.update(drawn="0" * 64), "one of the two"),
}


@pytest.mark.parametrize(("change", "hint"), WHOLE.values(), ids=WHOLE)
def test_forged_parts_are_refused(change: Callable[[Body, Tensors], None], hint: str) -> None:
    refused(forge(files()["whole"], change), hint)


def test_a_parent_that_is_not_above_fails_one_check_of_verify(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(forge(files()["whole"], stream(xor(0))))
    found = verify(tmp_path / "t")
    assert not found.ok
    assert [check.name for check in found.checks if not check.ok] == ["lineage"]
    assert found.checks[-1].sentence.endswith("give those of this ticket's own parent.")


def test_another_compression_of_the_same_parent_is_the_same_ticket() -> None:
    place = range(12, 30)
    bits = zlib.decompress(xor(*place))
    for data in (zlib.compress(bits, 0), zlib.compress(bits, 1)):
        assert decode(forge(files()["whole"], stream(data))) == whole()


@pytest.mark.parametrize(
    "content",
    [
        zlib.compress(bytes(1 << 28), 9),
        b"\x78\x9c" + b"\0\0\0\xff\xff" * 200_000,
        zlib.compress(b"".join(bytes([n % 256]) * 9999 for n in range(20_000))),
    ],
    ids=["zeros", "empty blocks", "long"],
)  # fmt: skip
def test_a_zip_bomb_takes_neither_memory_nor_time(content: bytes) -> None:
    data = forge(files()["whole"], stream(content))
    tracemalloc.start()
    began = time.monotonic()
    try:
        refused(data, "does not decompress")
        assert tracemalloc.get_traced_memory()[1] < 20e6 + 8 * len(content)
        assert time.monotonic() - began < 10
    finally:
        tracemalloc.stop()


def test_hostile_files_together_grow_no_process(tmp_path: Path) -> None:
    """All the memory there is counts here, torch's own too."""
    cases = [forge(files()["whole"], change) for change, _ in WHOLE.values()]
    cases.append(forge(files()["whole"], stream(zlib.compress(bytes(1 << 28), 9))))
    about = {"model": "lenet-300-100", "input_shape": [64], "classes": 10, "seed": 0, "replicate": 0}
    start = models.initial(lambda: models.build("lenet-300-100", (64,), 10), Seed(0))
    masks = {"fc1.weight": torch.ones(300, 64, dtype=torch.bool)}
    data = encode(Ticket(start.params, masks, {}, about), seed_only=True)
    for shape, classes in (([2**50], 10), ([2**36], 10), ([64], 2**40), ([2**20], 2**20)):

        def change(body: Body, _: Tensors, shape: list[int] = shape, classes: int = classes) -> None:
            body["provenance"].update(input_shape=shape, classes=classes)
            body["tensors"]["start"]["fc1.weight"].update(shape=[300, shape[0]])
            body["tensors"]["start"]["output.weight"].update(shape=[classes, 100])
            body["tensors"]["start"]["output.bias"].update(shape=[classes])

        cases.append(forge(data, change))
    for number, case in enumerate(cases):
        (tmp_path / f"{number:02}").write_bytes(case)
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom tombola.errors import TombolaError\n"
        "from tombola.ticket import decode, load\n"
        f"decode(bytes.fromhex({files()['whole'].hex()!r}))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n        load(path)\n    except TombolaError:\n        continue\n"
        "    raise SystemExit(f'{path} was read')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) < 200_000
    assert len(list(tmp_path.iterdir())) == len(cases)
