"""What a ticket is, and that a file gives it back."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tombola.errors import CannotWrite, InvalidValue, ShapeMismatch
from tombola.prune.masks import fingerprint
from tombola.ticket import Ticket, decode, encode, load, save, verify
from tombola.ticket.ticket import plain_name

SETTINGS = settings(max_examples=60, deadline=None)
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12).filter(plain_name)


def bits(value: Tensor) -> bytes:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(a: Ticket, b: Ticket) -> bool:
    """Equal names, dtypes, shapes, bits and provenance."""
    pairs = (
        (a.start, b.start),
        (a.masks, b.masks),
        (a.buffers, b.buffers),
        (a.theta_0, b.theta_0),
        (a.parent, b.parent),
    )
    for x, y in pairs:
        if x is None or y is None:
            if x is not y:
                return False
            continue
        if x.keys() != y.keys():
            return False
        for name in x:
            if (x[name].dtype, x[name].shape, bits(x[name])) != (y[name].dtype, y[name].shape, bits(y[name])):
                return False
    return a.provenance == b.provenance


@st.composite
def tickets(draw: st.DrawFn) -> Ticket:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    start, masks, buffers = {}, {}, {}
    for name in draw(st.lists(NAMES, unique=True, max_size=4)):
        shape = draw(st.lists(st.integers(0, 5), max_size=4))
        value = torch.randn(shape, generator=generator).to(draw(st.sampled_from(DTYPES)))
        if draw(st.booleans()):
            masks[name] = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
        start[name] = value
    for name in draw(st.lists(NAMES, unique=True, max_size=2)):
        shape = draw(st.lists(st.integers(0, 3), max_size=2))
        dtype = draw(st.sampled_from([*DTYPES, torch.bool, torch.int64, torch.uint8, torch.complex64]))
        buffers[name] = torch.randint(0, 2, shape, generator=generator).to(dtype)
    reserved = ("kept", "total", "density", "level", "lineage")
    provenance = draw(st.dictionaries(st.text().filter(lambda key: key not in reserved), JSON, max_size=3))
    theta_0 = {name: torch.randn(value.shape, generator=generator).to(value.dtype) for name, value in start.items()}
    parent = {name: mask | (torch.rand(mask.shape, generator=generator) < 0.3) for name, mask in masks.items()}
    if draw(st.booleans()):
        dense = {name: torch.ones_like(mask) for name, mask in masks.items()}
        provenance["lineage"] = [
            {"level": level, "kept": sum(int(m.sum()) for m in one.values()),
             "total": sum(m.numel() for m in one.values()), "masks": fingerprint(one)}
            for level, one in enumerate((dense, parent, masks))
        ]  # fmt: skip
        return Ticket(start, masks, buffers, provenance, theta_0 if draw(st.booleans()) else None, parent)
    return Ticket(
        start, masks, buffers, provenance,
        theta_0 if draw(st.booleans()) else None, parent if draw(st.booleans()) else None,
    )  # fmt: skip


@SETTINGS
@given(tickets())
def test_a_ticket_comes_back_as_it_was(ticket: Ticket) -> None:
    data = encode(ticket)
    back = decode(data)
    assert same(back, ticket)
    assert back.digest == ticket.digest
    assert back == ticket
    assert hash(back) == hash(ticket)
    assert encode(back) == data
    assert (back.kept, back.total, back.density) == (ticket.kept, ticket.total, ticket.density)


def example(shape: tuple[int, ...] = (4, 6), density: float = 0.3) -> Ticket:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(shape, generator=generator) < density
    value = torch.randn(shape, generator=generator)
    return Ticket(
        {"fc.weight": value, "fc.bias": torch.zeros(shape[0])},
        {"fc.weight": mask},
        {"norm.count": torch.tensor(3)},
        {"recipe": {"lr": 0.0012, "name": "π"}, "seed": [0, 1], "level": 3},
    )


def test_start_values_are_zero_where_pruned_and_bitwise_equal_elsewhere() -> None:
    value = torch.tensor([-1.5, float("nan"), -0.0, -0.0])
    mask = torch.tensor([True, False, True, False])
    ticket = decode(encode(Ticket({"w": value}, {"w": mask})))
    assert bits(ticket.start["w"]) == bits(torch.tensor([-1.5, 0.0, -0.0, 0.0]))
    assert (ticket.kept, ticket.total, ticket.density) == (2, 4, 0.5)


def test_density_of_all_parameters_counts_the_dense_ones() -> None:
    ticket = Ticket({"w": torch.ones(8), "b": torch.ones(2)}, {"w": torch.arange(8) < 2})
    assert (ticket.density, ticket.density_all_parameters) == (0.25, 0.4)
    assert Ticket({}, {}).density_all_parameters == 1.0


def test_a_ticket_keeps_its_own_copies() -> None:
    value, buffer = torch.ones(4), torch.ones(2)
    ticket = Ticket({"w": value.requires_grad_()}, {}, {"b": buffer})
    digest = ticket.digest
    with torch.no_grad():
        value.zero_()
        buffer.zero_()
    assert decode(encode(ticket)).digest == digest
    assert ticket.start["w"].tolist() == [1, 1, 1, 1]
    assert not ticket.start["w"].requires_grad


def test_tied_and_strided_tensors_are_written() -> None:
    base = torch.arange(24.0).reshape(4, 6)
    image = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    start = {"a": base, "b": base, "view": base[:, ::2], "t": base.T, "wide": torch.ones(1).expand(5), "image": image}
    back = decode(encode(Ticket(start, {"t": base.T > 3, "image": image > 0})))
    assert torch.equal(back.start["b"], base)
    assert torch.equal(back.start["view"], base[:, ::2])
    assert torch.equal(back.start["t"], torch.where(base.T > 3, base.T, 0))
    assert torch.equal(back.start["image"], image.clamp(min=0))
    assert torch.equal(back.start["wide"], torch.ones(5))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: Ticket({**t.start, "fc.bias": t.start["fc.bias"] + 1}, t.masks, t.buffers, t.provenance),
        lambda t: Ticket(t.start, {}, t.buffers, t.provenance),
        lambda t: Ticket(t.start, t.masks, {}, t.provenance),
        lambda t: Ticket(t.start, t.masks, {"norm.count": torch.tensor(3.0)}, t.provenance),
        lambda t: Ticket(t.start, t.masks, t.buffers, {**t.provenance, "seed": [0, 2]}),
    ],
)
def test_any_change_changes_the_digest(change: object) -> None:
    ticket = example()
    assert callable(change)
    other = change(ticket)
    assert other != ticket
    assert other.digest != ticket.digest
    assert ticket != "a ticket"


def test_bytes_do_not_depend_on_the_process_or_the_order_of_names(tmp_path: Path) -> None:
    script = (
        "import sys, torch; from tombola.ticket import Ticket, save\n"
        "names = sys.argv[2].split(',')\n"
        "start = {n: torch.arange(20.0) * len(n) for n in names}\n"
        "masks = {n: torch.arange(20) % 3 > 0 for n in names[:3]}\n"
        "save(Ticket(start, masks, {'b' + n: start[n] for n in names},\n"
        "            {n: {n: 1, 'x': 2} for n in names}), sys.argv[1])\n"
    )
    for seed, names in (("1", "b,a,ccc,dd,e"), ("2", "ccc,b,a,e,dd")):
        path = tmp_path / f"{seed}.safetensors"
        subprocess.run(
            [sys.executable, "-c", script, path, names], check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        )
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()


def test_save_load_save_gives_the_same_bytes(tmp_path: Path) -> None:
    save(example(), tmp_path / "a" / "ticket.safetensors")
    save(load(tmp_path / "a" / "ticket.safetensors"), str(tmp_path / "b"))
    assert (tmp_path / "a" / "ticket.safetensors").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("density", [0.01, 0.2, 1.0])
def test_size_follows_the_density(density: float) -> None:
    n = 1000 * 1000
    mask = torch.zeros(n, dtype=torch.bool)
    mask[torch.randperm(n, generator=torch.Generator().manual_seed(0))[: int(density * n)]] = True
    size = len(encode(Ticket({"w": torch.randn(1000, 1000)}, {"w": mask.reshape(1000, 1000)})))
    assert size <= 1.1 * (4 * density * n + n / 8) + 16 * 1024
    if density == 0.01:
        assert size <= 200_000


def test_the_format_is_readable_without_tombola(tmp_path: Path) -> None:
    """The whole of the reader that another program needs."""
    import json

    ticket, path = example(), tmp_path / "ticket.safetensors"
    save(ticket, path)
    with safetensors.safe_open(path, "np") as file:
        about = json.loads(file.metadata()["ticket"])
        shape = about["tensors"]["start"]["fc.weight"]["shape"]
        mask = np.unpackbits(file.get_tensor("mask/fc.weight"), count=math.prod(shape)).reshape(shape).astype(bool)
        dense = np.zeros(shape, np.float32)
        dense[mask] = file.get_tensor("start/fc.weight")
    assert about["schema"] == 1
    assert about["tensors"]["start"]["fc.weight"]["kept"] == ticket.kept
    assert (mask == ticket.masks["fc.weight"].numpy()).all()
    assert (dense == ticket.start["fc.weight"].numpy()).all()


W, ALL = torch.ones(2), torch.ones(2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("start", "masks", "buffers", "provenance", "error"),
    [
        ({"w": torch.tensor([float("nan"), 1])}, {}, {}, {}, "NaN or Inf"),
        ({"w": torch.tensor([1, float("inf")])}, {"w": ALL}, {}, {}, "NaN or Inf"),
        ({"w": torch.ones(2, dtype=torch.int64)}, {}, {}, {}, "int64"),
        ({"w": torch.ones(2, dtype=torch.float8_e4m3fn)}, {}, {}, {}, "float8"),
        ({"w": torch.ones(2, 2).to_sparse()}, {}, {}, {}, "sparse"),
        ({"w": W}, {}, {"b": torch.ones(2, dtype=torch.complex128)}, {}, "complex128"),
        ({"w\n": W}, {}, {}, {}, "printable"),
        ({"": W}, {}, {}, {}, "printable"),
        ({"w" * 513: W}, {}, {}, {}, "512"),
        ({"w": W}, {"w": W}, {}, {}, "bool"),
        ({"w": W}, {}, {}, {"x": float("nan")}, "not JSON"),
        ({"w": W}, {}, {}, {"x": W}, "not JSON"),
        ({"w": W}, {}, {}, {1: 2, "1": 3}, "not JSON"),
        ({"w": W}, {"w": ALL}, {}, {"kept": 1}, "masks show 2"),
        ({"w": W}, {"w": ALL}, {}, {"density": 0.5}, "masks show 1.0"),
    ],
)
def test_what_is_no_ticket_is_refused(start: dict, masks: dict, buffers: dict, provenance: dict, error: str) -> None:
    with pytest.raises(InvalidValue, match=error):
        Ticket(start, masks, buffers, provenance)


@pytest.mark.parametrize("masks", [{"w": torch.ones(3, dtype=torch.bool)}, {"v": ALL}])
def test_masks_belong_to_parameters(masks: dict[str, Tensor]) -> None:
    with pytest.raises(ShapeMismatch):
        Ticket({"w": W}, masks)


def test_a_header_that_no_reader_takes_is_not_written() -> None:
    with pytest.raises(InvalidValue, match="provenance take"):
        encode(Ticket({}, {}, {}, {"log": "x" * (1 << 25)}))


def test_nothing_is_left_where_a_ticket_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "ticket", tmp_path / "folder"):
        with pytest.raises(CannotWrite):
            save(example(), path)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", tmp_path / "folder"]
    assert list((tmp_path / "folder").iterdir()) == []


def test_verify_says_what_it_found(tmp_path: Path) -> None:
    save(example(), tmp_path / "t")
    found = verify(tmp_path / "t")
    assert found.ok
    assert [check.name for check in found.checks] == [
        "file", "container", "schema", "shapes", "digest", "masks", "lineage", "values", "provenance"
    ]  # fmt: skip
    assert example().digest in found.checks[4].sentence
    assert f"{example().kept} of 24" in found.checks[5].sentence
