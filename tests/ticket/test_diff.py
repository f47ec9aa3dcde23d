"""Two tickets compared."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.errors import ShapeMismatch
from tombola.ticket import Ticket, diff

BITS = st.lists(st.booleans(), min_size=6, max_size=6)


def ticket(mask: list[bool], **provenance: object) -> Ticket:
    return Ticket({"w": torch.arange(1.0, 7.0), "b": torch.ones(2)}, {"w": torch.tensor(mask)}, {}, provenance)


@settings(deadline=None)
@given(BITS, BITS)
def test_counts_and_nesting_are_those_of_the_sets(first: list[bool], second: list[bool]) -> None:
    a, b = ({i for i, bit in enumerate(bits) if bit} for bits in (first, second))
    found = diff(ticket(first), ticket(second))
    one = found.tensors["w"]
    assert (one.overlap.first, one.overlap.second, one.overlap.shared) == (len(a), len(b), len(a & b))
    assert one.overlap.jaccard == (len(a & b) / len(a | b) if a | b else 1.0)
    expected = "equal" if a == b else "first in second" if a <= b else "second in first" if b <= a else "no"
    assert found.nested == one.nested == expected
    assert found.same_start
    assert found.identical == (a == b)
    assert found.overlap == one.overlap


def test_a_tensor_without_a_mask_is_dense_and_does_not_count_with_the_masked() -> None:
    found = diff(ticket([True] * 3 + [False] * 3), Ticket({"w": torch.arange(1.0, 7.0), "b": torch.ones(2)}, {}))
    assert found.nested == "first in second"
    assert (found.overlap.first, found.overlap.second, found.overlap.size) == (3, 6, 6)
    assert [name for name, one in found.tensors.items() if not one.masked] == ["b"]


def test_start_values_are_compared_on_common_survivors_only() -> None:
    masks = torch.tensor([True, True, False]), torch.tensor([True, False, True])
    a = Ticket({"w": torch.tensor([1.0, 2.0, 3.0])}, {"w": masks[0]})
    b = Ticket({"w": torch.tensor([1.0, 9.0, 9.0])}, {"w": masks[1]})
    assert diff(a, b).same_start
    c = Ticket({"w": torch.tensor([8.0, 2.0, 3.0])}, {"w": masks[0]})
    assert not diff(a, c).same_start
    assert diff(a, c).tensors["w"].equal == 1
    assert not diff(a, Ticket({"w": a.start["w"].double()}, a.masks)).same_start


def test_buffers_and_provenance_that_differ_are_named() -> None:
    w = {"w": torch.ones(2)}
    a = Ticket(w, {}, {"n": torch.tensor([0.0, float("nan")]), "m": torch.ones(1)}, {"seed": 0, "data": "digits"})
    b = Ticket(w, {}, {"n": torch.tensor([0.0, float("nan")])}, {"seed": 1, "data": "digits", "level": None})
    found = diff(a, b)
    assert found.buffers == ("m",)
    assert found.provenance == {"seed": (0, 1), "level": (None, None)}
    assert not found.identical
    assert diff(a, a).identical


def test_tickets_of_two_networks_are_refused() -> None:
    with pytest.raises(ShapeMismatch, match="'v', 'w'"):
        diff(Ticket({"w": torch.ones(2)}, {}), Ticket({"v": torch.ones(2)}, {}))
    with pytest.raises(ShapeMismatch, match=r"\(2,\) in the first ticket and \(3,\)"):
        diff(Ticket({"w": torch.ones(2)}, {}), Ticket({"w": torch.ones(3)}, {}))
