"""Initial values beside rewound ones, the masks of the level before, and the record of all levels."""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from torch import Tensor

from tombola.errors import InvalidValue, ShapeMismatch, TombolaError
from tombola.prune.masks import fingerprint
from tombola.ticket import Ticket, decode, descends, diff, encode, save, verify
from tombola.types import Masks


def levels(number: int = 4, shape: tuple[int, ...] = (30, 40), rate: float = 0.2) -> list[dict[str, Tensor]]:
    """Masks of a search: dense first, then a fifth of the survivors less at each level."""
    order = torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(1))
    found = []
    for level in range(number):
        mask = torch.zeros(math.prod(shape), dtype=torch.bool)
        mask[order[: round(len(order) * (1 - rate) ** level)]] = True
        found.append({"fc.weight": mask.reshape(shape)})
    return found


def record(*every: Masks) -> list[dict[str, Any]]:
    return [
        {
            "level": level,
            "kept": sum(int(mask.sum()) for mask in masks.values()),
            "total": sum(mask.numel() for mask in masks.values()),
            "masks": fingerprint(masks),
        }
        for level, masks in enumerate(every)
    ]


def ticket(level: int = 3, **changes: Any) -> Ticket:
    every = levels()
    generator = torch.Generator().manual_seed(0)
    start = {"fc.weight": torch.randn(30, 40, generator=generator), "fc.bias": torch.randn(30, generator=generator)}
    parts: dict[str, Any] = {
        "start": start,
        "masks": every[level],
        "buffers": {"n": torch.tensor(1)},
        "provenance": {"level": level, "lineage": record(*every[: level + 1])},
        "theta_0": {name: value / 3 for name, value in start.items()},
        "parent": every[level - 1] if level > 1 else None,
    }
    return Ticket(**{**parts, **changes})


def test_the_parts_come_back_as_they_were() -> None:
    whole = ticket()
    back = decode(encode(whole))
    assert back == whole
    assert back.theta_0 is not None
    assert back.parent is not None
    assert torch.equal(
        back.theta_0["fc.weight"], torch.where(whole.masks["fc.weight"], whole.start["fc.weight"] / 3, 0)
    )
    assert torch.equal(back.theta_0["fc.bias"], whole.start["fc.bias"] / 3)
    assert torch.equal(back.parent["fc.weight"], levels()[2]["fc.weight"])
    assert [entry["level"] for entry in back.lineage] == [0, 1, 2, 3]
    assert encode(back) == encode(whole)


def test_each_part_changes_the_digest() -> None:
    parts = [ticket(), ticket(theta_0=None), ticket(parent=None, provenance={}), ticket(theta_0=None, parent=None,
             provenance={}), ticket(provenance={}), ticket(theta_0=ticket().start)]  # fmt: skip
    assert len({part.digest for part in parts}) == len(parts)
    assert decode(encode(ticket(parent=None, provenance={}))).parent is None


def test_the_digest_does_not_depend_on_how_zlib_compresses(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ticket()
    data, digest = encode(whole), whole.digest
    real = zlib.compress
    monkeypatch.setattr(zlib, "compress", lambda content, _: real(content, 0))
    other = encode(ticket())
    assert other != data
    assert ticket().digest == digest
    assert decode(other) == whole


def test_theta_0_is_zero_where_pruned_even_where_it_was_not_finite() -> None:
    w, mask = torch.tensor([1.0, float("nan")]), torch.tensor([True, False])
    assert decode(encode(Ticket({"w": w}, {"w": mask}, theta_0={"w": w * 2}))).theta_0["w"].tolist() == [2.0, 0.0]  # type: ignore[index]


W, ON = torch.ones(2), torch.ones(2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("theta_0", "error", "hint"),
    [
        ({}, ShapeMismatch, "only one of start and theta_0 has 'w'"),
        ({"w": W, "v": W}, ShapeMismatch, "'v'"),
        ({"w": torch.ones(3)}, ShapeMismatch, r"\(3,\) in theta_0 and \(2,\) in start"),
        ({"w": W.double()}, InvalidValue, "float64 in theta_0 and torch.float32 in start"),
        ({"w": W.long()}, InvalidValue, "int64"),
        ({"w": W * float("inf")}, InvalidValue, "initial value 'w' holds NaN or Inf"),
    ],
)
def test_initial_values_are_those_of_the_same_network(
    theta_0: dict[str, Tensor], error: type[Exception], hint: str
) -> None:
    with pytest.raises(error, match=hint):
        Ticket({"w": W}, {"w": ON}, theta_0=theta_0)


@pytest.mark.parametrize(
    ("parent", "error", "hint"),
    [
        ({}, ShapeMismatch, "only one of the masks and the parent's masks covers 'w'"),
        ({"w": ON, "v": ON}, ShapeMismatch, "'v'"),
        ({"w": torch.ones(3, dtype=torch.bool)}, ShapeMismatch, "shape"),
        ({"w": W}, InvalidValue, "bool"),
        (
            {"w": torch.tensor([True, False])},
            InvalidValue,
            "keep 1 weights that the parent's masks prune, 1 of them in 'w'",
        ),
    ],
)
def test_a_parent_that_cannot_be_is_refused(parent: dict[str, Tensor], error: type[Exception], hint: str) -> None:
    with pytest.raises(error, match=hint):
        Ticket({"w": W}, {"w": ON}, parent=parent)


def edit(**changes: Any) -> Any:
    """Change the last entry but one, or the one of ``place``."""
    place = changes.pop("place", 2)

    def change(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        entries[place] = {**entries[place], **changes}
        return entries

    return change


CLAIMS: dict[str, tuple[Any, str]] = {
    "no list": (lambda _: {}, "it is a list"),
    "empty": (lambda _: [], "it is a list"),
    "an entry that is a list": (lambda entries: [[], *entries[1:]], "entry 0 of the lineage"),
    "a key more": (edit(more=1), "entry 2 of the lineage"),
    "a key less": (lambda entries: [{"level": 0}, *entries[1:]], "entry 0"),
    "text for a count": (edit(kept="1"), "entry 2"),
    "true for a count": (edit(kept=True), "entry 2"),
    "fraction for a count": (edit(kept=768.0), "entry 2"),
    "negative": (edit(kept=-1), "entry 2"),
    "more than there are": (edit(kept=1201), "entry 2"),
    "absurd": (edit(kept=2, total=10**300), "entry 2"),
    "no fingerprint": (edit(masks="x" * 64), "entry 2"),
    "half a fingerprint": (edit(masks="0" * 32), "entry 2"),
    "does not begin at 0": (lambda entries: entries[1:], "entry 0"),
    "levels out of order": (edit(level=1), "The level rises"),
    "count that rises": (edit(place=1, kept=700), "the count never rises"),
    "total that changes": (edit(place=1, total=1201), "the total stays"),
    "another last count": (edit(place=3, kept=600), "level 3 of the lineage keeps 600"),
    "another last fingerprint": (edit(place=3, masks="0" * 64), "these masks"),
    "another parent's fingerprint": (edit(masks="0" * 64), "the parent's masks"),
    "another parent's count": (edit(kept=769), "the parent's masks keep 768"),
    "another level": (edit(place=3, level=4), "says level 3, and the lineage ends at level 4"),
}


@pytest.mark.parametrize(("change", "hint"), CLAIMS.values(), ids=CLAIMS)
def test_a_lineage_that_contradicts_is_refused(change: Any, hint: str) -> None:
    about = dict(ticket().provenance)
    with pytest.raises(InvalidValue, match=hint) as caught:
        ticket(provenance={**about, "lineage": change(list(about["lineage"]))})
    assert len(str(caught.value)) < 800


def test_without_a_parent_the_level_before_is_dense() -> None:
    every = levels()
    first = ticket(1)
    assert first.parent is None
    assert first.lineage[0]["kept"] == first.total
    with pytest.raises(InvalidValue, match="a parent that is not given"):
        ticket(parent=None)
    with pytest.raises(InvalidValue, match="there is a parent"):
        ticket(0, parent=every[0])
    # Each level cut from the dense network: the levels between are not its lineage.
    from_dense = [record(every[0])[0], {**record(every[3])[0], "level": 3}]
    assert ticket(parent=None, provenance={"level": 3, "lineage": from_dense}).lineage[1]["level"] == 3


def test_verify_says_where_the_masks_come_from(tmp_path: Path) -> None:
    def said(one: Ticket) -> str:
        save(one, tmp_path / "t")
        found = verify(tmp_path / "t")
        assert found.ok
        return next(check.sentence for check in found.checks if check.name == "lineage")

    assert said(ticket()) == (
        "the mask is a subset of its parent's: 614 of 768 weights; 4 levels of which the last is this, "
        "and the kept counts never rise: 1200 to 614 weights"
    )
    assert said(ticket(1)).startswith("2 levels of which")
    assert said(ticket(0)) == "1 level of which the last is this, and the kept counts never rise: 1200 weights"
    assert "nothing to compare" in said(ticket(parent=None, provenance={}))


def test_a_child_descends_from_its_parent_and_from_no_other() -> None:
    child, parent = ticket(3), ticket(2)
    assert [check.name for check in descends(child, parent)] == ["nested", "parent masks", "parent values"]
    assert all(check.ok for check in descends(child, parent))
    assert all(check.ok for check in descends(ticket(1), ticket(0)))

    def wrong(child: Ticket, parent: Ticket) -> dict[str, str]:
        return {check.name: check.sentence for check in descends(child, parent) if not check.ok}

    assert wrong(parent, child).keys() == {"nested", "parent masks", "parent values"}
    assert "prune" in wrong(parent, child)["nested"]
    assert wrong(child, ticket(1)).keys() == {"parent masks"}
    assert wrong(replace(child, parent=None, provenance={}), ticket(1)) == {}
    assert "it is not the ticket's parent" in wrong(ticket(1), ticket(3))["parent masks"]
    assert "begins with the ticket itself" in wrong(ticket(0), ticket(0))["parent masks"]
    other = [{**entry, "masks": "0" * 64} if entry["level"] == 0 else entry for entry in parent.lineage]
    about = {**parent.provenance, "lineage": other}
    assert "not the beginning" in wrong(child, replace(parent, provenance=about))["parent masks"]

    nudged = {**parent.start, "fc.bias": parent.start["fc.bias"] + 1e-7}
    assert "'fc.bias'" in wrong(child, replace(parent, start=nudged))["parent values"]
    survivor = torch.where(child.masks["fc.weight"], 2.0, parent.start["fc.weight"])
    assert (
        "start values of 'fc.weight'"
        in wrong(child, replace(parent, start={**parent.start, "fc.weight": survivor}))["parent values"]
    )
    pruned = torch.where(child.masks["fc.weight"], parent.start["fc.weight"], 2.0)
    assert wrong(child, replace(parent, start={**parent.start, "fc.weight": pruned})) == {}
    assert "initial values" in wrong(child, replace(parent, theta_0=parent.start))["parent values"]
    assert wrong(child, replace(parent, theta_0=None)) == {}
    zero = Ticket({"w": torch.tensor([0.0])}, {})
    assert "'w'" in wrong(zero, Ticket({"w": torch.tensor([-0.0])}, {}))["parent values"]
    stranger = Ticket({"v": W}, {"v": ON})
    assert wrong(child, stranger).keys() == {"nested", "parent masks", "parent values"}


def test_diff_knows_the_parts() -> None:
    whole = ticket()
    assert (diff(whole, ticket()).theta_0, diff(whole, ticket()).parent) == ("equal", "equal")
    assert diff(whole, ticket()).identical
    before = diff(whole, ticket(2))
    assert (before.theta_0, before.parent, before.lineage) == ("equal", "they differ", (4, 3, 3))
    less = diff(whole, ticket(theta_0=None, parent=None, provenance={}))
    assert (less.theta_0, less.parent, less.lineage) == ("first only", "first only", (4, 0, 0))
    assert diff(ticket(theta_0=None), whole).theta_0 == "second only"
    bare = ticket(theta_0=None, parent=None, provenance={})
    assert (diff(bare, bare).theta_0, diff(bare, bare).parent) == ("neither", "neither")
    assert not diff(whole, ticket(theta_0=None)).identical
    first = whole.theta_0
    assert first is not None
    moved = diff(whole, ticket(theta_0={**first, "fc.bias": first["fc.bias"] + torch.eye(30)[0]}))
    assert moved.theta_0 == "they differ"
    assert moved.tensors["fc.bias"].equal_theta_0 == 29
    assert not moved.identical
    assert moved.same_start


@pytest.mark.parametrize("level", [1, 2, 5, 10, 21])
def test_a_ticket_with_its_parent_is_within_the_bound(level: int) -> None:
    n = 1000 * 1000
    before, masks = levels(level + 1, (1000, 1000))[-2:]
    density = 0.8**level
    start = {"fc.weight": torch.randn(1000, 1000)}
    size = len(encode(Ticket(start, masks, parent=before)))
    assert size <= 1.1 * (4 * density * n + n / 8) + 16 * 1024
    both = len(encode(Ticket(start, masks, theta_0=start, parent=before)))
    assert both <= 2 * (1.1 * (4 * density * n + n / 8) + 16 * 1024)
    if level == 21:
        assert density < 0.01
        assert size <= 200_000


def test_the_new_tensors_are_readable_without_tombola(tmp_path: Path) -> None:
    """The whole of the reader that another program needs."""
    whole, path = ticket(), tmp_path / "ticket.safetensors"
    save(whole, path)
    with safetensors.safe_open(path, "np") as file:
        about = json.loads(file.metadata()["ticket"])
        shape = about["tensors"]["start"]["fc.weight"]["shape"]
        bits = file.get_tensor("mask/fc.weight")
        first = file.get_tensor("theta_0/fc.weight")
        change = np.frombuffer(zlib.decompress(file.get_tensor("parent/fc.weight").tobytes()), np.uint8)
    assert (about["schema"], about["parts"], about["drawn"]) == (2, ["parent", "theta_0"], None)
    assert about["digest"] == whole.digest
    mask = np.unpackbits(bits, count=math.prod(shape)).reshape(shape).astype(bool)
    before = np.unpackbits(bits ^ change, count=math.prod(shape)).reshape(shape).astype(bool)
    assert whole.theta_0 is not None
    assert whole.parent is not None
    assert (before == whole.parent["fc.weight"].numpy()).all()
    assert (first == whole.theta_0["fc.weight"].numpy()[mask]).all()


def test_the_documented_reader_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ticket.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    assert "tombola" not in code
    before, masks = levels(3)[1:]
    w = torch.randn(30, 40)
    one = Ticket(
        *({name.replace("fc", "fc1"): value for name, value in part.items()} for part in ({"fc.weight": w}, masks))
    )
    for parent in (None, {"fc1.weight": before["fc.weight"]}):
        save(replace(one, parent=parent), tmp_path / "ticket.safetensors")
        monkeypatch.chdir(tmp_path)
        found: dict[str, Any] = {}
        exec(code, found)
        assert (found["start"] == one.start["fc1.weight"].numpy()).all()
        if parent is not None:
            assert (found["before"].reshape(30, 40) == before["fc.weight"].numpy()).all()


def test_the_lineage_is_that_of_the_masks_only() -> None:
    """What no lineage entry may say of another network's masks."""
    for wrong in (levels(shape=(40, 30)), [{"fc": one["fc.weight"]} for one in levels()]):
        with pytest.raises(TombolaError):
            ticket(provenance={"lineage": record(*wrong)})


def test_a_ticket_without_the_parts_is_written_as_before() -> None:
    bare: Mapping[str, Any] = {"theta_0": None, "parent": None, "provenance": {"lineage": record(*levels()[:1])}}
    data = encode(ticket(0, **bare))
    assert (
        json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["ticket"])["schema"]
        == 1
    )
