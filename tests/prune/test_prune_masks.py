"""Masks: counts, density, overlap, nesting, application, and the packed bits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune import masks as m

SHAPES = st.lists(st.integers(0, 5), min_size=0, max_size=4).map(tuple)


@st.composite
def masks(draw: st.DrawFn, shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES) -> Tensor:
    """Draw a mask of any shape, 0-d and empty ones among them."""
    shape = draw(shapes)
    size = math.prod(shape)
    return torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=torch.bool).reshape(shape)


@given(masks())
@settings(deadline=None)
def test_packing_is_numpys_and_comes_back(mask: Tensor) -> None:
    bits = m.pack(mask)
    assert bits.dtype is torch.uint8
    assert bits.tolist() == np.packbits(mask.numpy().reshape(-1)).tolist()
    back = m.unpack(bits, tuple(mask.shape))
    assert back.shape == mask.shape
    assert back.dtype is torch.bool
    assert torch.equal(back, mask)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 255, 256, 257, 10_001])
def test_sizes_around_a_byte_come_back(size: int) -> None:
    mask = torch.rand(size, generator=torch.Generator().manual_seed(size)) < 0.5
    assert m.pack(mask).numel() == -(-size // 8)
    assert torch.equal(m.unpack(m.pack(mask), (size,)), mask)


def test_packing_follows_the_logical_order_of_a_strided_mask() -> None:
    mask = torch.tensor([[True, True, False], [False, False, True]])
    assert m.pack(mask.T).tolist() == np.packbits(mask.numpy().T.reshape(-1)).tolist()


def test_unpacking_refuses_what_pack_never_wrote() -> None:
    with pytest.raises(ShapeMismatch, match="takes 2 bytes of bits, and there are 1"):
        m.unpack(torch.zeros(1, dtype=torch.uint8), (9,))
    with pytest.raises(ShapeMismatch, match="padding bit"):
        m.unpack(torch.tensor([1], dtype=torch.uint8), (7,))


@given(st.dictionaries(st.sampled_from("abc"), masks()))
@settings(deadline=None)
def test_the_counts_are_those_of_the_entries(found: dict[str, Tensor]) -> None:
    entries = [entry for mask in found.values() for entry in mask.reshape(-1).tolist()]
    assert m.kept(found) == entries.count(True)
    assert m.total(found) == len(entries)
    assert m.density(found) == (entries.count(True) / len(entries) if entries else 1.0)
    assert m.per_layer(found) == {name: (m.counts(found)[name], m.sizes(found)[name]) for name in found}


def test_ones_keep_everything_of_the_named_tensors() -> None:
    params = {"w": torch.zeros(2, 3), "b": torch.zeros(3)}
    found = m.ones(params, ["w"])
    assert found.keys() == {"w"}
    assert found["w"].dtype is torch.bool
    assert m.density(found) == 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_pruned_entry_is_zero_whatever_it_holds(dtype: torch.dtype, bad: float) -> None:
    params = {"w": torch.tensor([bad, 2.0, bad], dtype=dtype), "b": torch.tensor([bad])}
    done = m.apply(params, {"w": torch.tensor([False, True, True])})
    assert done["w"].dtype is dtype
    assert done["w"][:2].tolist() == [0.0, 2.0]
    assert not math.isfinite(done["w"][2]), "an entry that is left is left alone"
    assert done["b"] is params["b"]
    assert not math.isfinite(params["w"][0]), "the argument is not written to"


def test_no_gradient_reaches_a_pruned_entry() -> None:
    w = torch.tensor([math.inf, 2.0], requires_grad=True)
    m.apply({"w": w}, {"w": torch.tensor([False, True])})["w"].square().sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [0.0, 4.0]


def test_a_mask_that_does_not_belong_is_named() -> None:
    params = {"w": torch.zeros(2, 3)}
    with pytest.raises(ShapeMismatch, match=r"mask for 'v', and the network has no such parameter. It has: w"):
        m.check(params, {"v": torch.ones(2, 3, dtype=torch.bool)})
    with pytest.raises(ShapeMismatch, match=r"mask 'w' has shape \(3, 2\), its parameter has \(2, 3\)"):
        m.check(params, {"w": torch.ones(3, 2, dtype=torch.bool)})
    with pytest.raises(InvalidValue, match=r"torch.float32; masks are torch.bool"):
        m.apply(params, {"w": torch.ones(2, 3)})


@given(masks(st.just((3, 4))), masks(st.just((3, 4))))
@settings(deadline=None)
def test_nested_is_implication_entry_by_entry(inner: Tensor, outer: Tensor) -> None:
    implied = all(b or not a for a, b in zip(inner.reshape(-1), outer.reshape(-1), strict=True))
    assert m.nested({"w": inner}, {"w": outer}) == implied
    assert m.nested({"w": inner & outer}, {"w": outer})
    assert m.nested({"w": inner}, {}), "an absent tensor is dense"
    assert m.nested({}, {"w": outer}) == bool(outer.all())


def test_nested_does_not_broadcast() -> None:
    with pytest.raises(ShapeMismatch, match="'w'"):
        m.nested({"w": torch.zeros(3, 1, dtype=torch.bool)}, {"w": torch.ones(1, 3, dtype=torch.bool)})


def test_the_overlap_counts_and_its_jaccard() -> None:
    first = torch.tensor([True, True, True, False, False])
    second = torch.tensor([False, True, True, True, False])
    found = m.overlap({"w": first}, {"w": second})["w"]
    assert (found.shared, found.first, found.second, found.size) == (2, 3, 3, 5)
    assert found.jaccard == 0.5
    assert found.expected == 3 * 3 / 5
    empty = m.overlap({"w": first[:0]}, {"w": second[:0]})["w"]
    assert (empty.jaccard, empty.expected, empty.deviation) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(("size", "first", "second"), [(50, 10, 20), (200, 150, 120), (12, 1, 6)])
def test_independent_masks_overlap_as_the_hypergeometric_law_says(size: int, first: int, second: int) -> None:
    rng = torch.Generator().manual_seed(size)
    repeats = 4000
    order = torch.rand(repeats, size, generator=rng).argsort(1)
    shared = (order[:, :first] < second).sum(1).double()
    law = m.Overlap(0, first, second, size)
    mean_error = law.deviation / math.sqrt(repeats)
    assert abs(float(shared.mean()) - law.expected) < 4 * mean_error
    assert float(shared.std()) == pytest.approx(law.deviation, rel=0.06)


def test_a_full_or_empty_mask_overlaps_without_spread() -> None:
    assert m.Overlap(0, 0, 7, 10).deviation == 0.0
    assert m.Overlap(0, 10, 7, 10).deviation == 0.0
    assert m.Overlap(0, 1, 1, 1).deviation == 0.0


def test_masks_of_different_networks_are_not_compared() -> None:
    mask = torch.ones(2, dtype=torch.bool)
    with pytest.raises(ShapeMismatch, match="only one of the two masks covers v"):
        m.overlap({"w": mask}, {"w": mask, "v": mask})
    with pytest.raises(ShapeMismatch, match="'w'"):
        m.overlap({"w": mask}, {"w": mask[:1]})
    with pytest.raises(InvalidValue, match=r"torch.bool"):
        m.overlap({"w": mask.float()}, {"w": mask})
