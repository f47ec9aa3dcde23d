"""Splits: exact counts, disjoint, stratified, and drawn by the replicate or by the study as the data set says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.data import Dataset, load, split
from tombola.data.splits import apportion, indices
from tombola.errors import DataTooSmall
from tombola.types import Seed


def made(counts: list[int], *, test: int = 0, name: str = "made") -> Dataset:
    """A data set whose inputs are their own positions, so that a part shows where it came from."""
    y = torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])
    x = torch.arange(len(y), dtype=torch.float32).reshape(-1, 1)
    test_x = -1 - torch.arange(test, dtype=torch.float32).reshape(-1, 1) if test else None
    test_y = torch.arange(test) % len(counts) if test else None
    return Dataset(name, x, y, test_x, test_y, len(counts), 0.005)


@settings(deadline=None)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=6), st.integers(0, 5), st.booleans())
def test_parts_are_disjoint_complete_stratified_and_exact(counts: list[int], replicate: int, published: bool) -> None:
    data = made(counts, test=7 if published else 0)
    total = sum(counts)
    try:
        parts = split(data, Seed(11, replicate))
    except DataTooSmall:
        assert total < 12  # Then 15 % or 10 % can leave a class of three without a training example.
        return
    val = (10 * total + 50) // 100 if published else (15 * total + 50) // 100
    test = 0 if published else (30 * total + 50) // 100
    drawn = [parts.train_x, parts.val_x] if published else [parts.train_x, parts.val_x, parts.test_x]
    assert [len(part) for part in drawn] == [total - val - test, val, test][: len(drawn)]
    assert sorted(torch.cat(drawn).reshape(-1).tolist()) == list(range(total))
    for x, y in ((parts.train_x, parts.train_y), (parts.val_x, parts.val_y), (parts.test_x, parts.test_y)):
        if x.min() >= 0:
            assert y.tolist() == data.train_y[x.reshape(-1).long()].tolist()
            assert x.reshape(-1).tolist() == sorted(x.reshape(-1).tolist())
    for y, size in ((parts.val_y, val), *([] if published else [(parts.test_y, test)])):
        for k, count in enumerate(counts):
            # Two rounds of sharing out, each off by less than one example.
            assert abs(int((y == k).sum()) - size * count / total) < 2
    if published:
        assert parts.test_x is data.test_x


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.data())
def test_apportion_gives_exactly_the_total_and_never_too_much(counts: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(counts)))
    shares = apportion(total, counts)
    assert sum(shares) == total
    for share, count in zip(shares, counts, strict=True):
        assert 0 <= share <= count
        assert abs(share - total * count / max(sum(counts), 1)) < 1


def test_the_digits_are_drawn_for_each_replicate() -> None:
    data = load("digits")
    drawn = [split(data, Seed(0, replicate)) for replicate in range(3)]
    for parts in drawn:
        assert [len(y) for y in (parts.train_y, parts.val_y, parts.test_y)] == [988, 270, 539]
        assert torch.bincount(parts.test_y).tolist() == [53, 55, 53, 55, 54, 55, 54, 54, 52, 54]
        assert parts.train_x.dtype == torch.float32
        assert parts.train_x.shape[1:] == (1, 8, 8)
    at = [indices(data, Seed(0, replicate)) for replicate in range(3)]
    for part in ("train", "val", "test"):
        chosen = [tuple(getattr(one, part).tolist()) for one in at]
        assert len(set(chosen)) == 3
    assert indices(data, Seed(1)).val.tolist() != at[0].val.tolist()


def test_a_published_test_part_gives_every_replicate_the_same_validation() -> None:
    data = made([300, 200], test=20)
    first = indices(data, Seed(5, 0))
    assert first.test is None
    for replicate in range(1, 4):
        other = indices(data, Seed(5, replicate))
        assert torch.equal(first.val, other.val)
        assert torch.equal(first.train, other.train)
    assert not torch.equal(first.val, indices(data, Seed(6, 0)).val)


@pytest.mark.parametrize("data", [made([40, 60]), made([40, 60], test=5)], ids=["drawn", "published"])
def test_splits_are_deterministic_and_know_no_data_order(data: Dataset) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = indices(data, Seed(3, 2))
    torch.rand(5)
    again = indices(data, Seed(3, 2, order=4))
    assert torch.equal(first.train, again.train)
    assert torch.equal(first.val, again.val)
    torch.set_rng_state(state)
    indices(data, Seed(3, 2))
    assert torch.equal(torch.get_rng_state(), state)  # The global generator is not touched.


def test_the_first_draws_do_not_change() -> None:
    digits = indices(load("digits"), Seed(0))
    assert digits.test is not None
    assert digits.train[:8].tolist() == [0, 1, 4, 5, 6, 7, 10, 11]
    assert digits.val[:8].tolist() == [3, 17, 20, 24, 36, 38, 42, 70]
    assert digits.test[:8].tolist() == [2, 8, 9, 12, 19, 22, 23, 28]
    full = Dataset(
        "mnist", torch.zeros(60_000, 1), torch.arange(60_000) % 10, torch.zeros(2, 1), torch.tensor([0, 1]), 10, 0.002
    )
    assert indices(full, Seed(0)).val[:8].tolist() == [2, 14, 18, 30, 41, 50, 61, 75]


@pytest.mark.parametrize(
    ("name", "total", "val"),
    [
        ("mnist", 60_000, 5_000),
        ("fashion-mnist", 60_000, 5_000),
        ("cifar-10", 50_000, 5_000),
        ("mnist", 1_000, 100),
        ("own", 60_000, 6_000),
    ],
)
def test_validation_sizes(name: str, total: int, val: int) -> None:
    data = Dataset(
        name, torch.zeros(total, 1), torch.arange(total) % 10, torch.zeros(2, 1), torch.tensor([0, 1]), 10, 0.002
    )
    parts = split(data, Seed(0))
    assert (len(parts.train_y), len(parts.val_y), len(parts.test_y)) == (total - val, val, 2)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (made([1, 2]), "3 training examples, which gives 2 for train, 0 for validation, 1 for test. Each part"),
        (made([2, 2], test=3), "4 for train, 0 for validation, 3 for test"),
        (made([50, 0, 50]), "has 0 of class 1 among 100 training examples, and the split"),
    ],
)
def test_too_small(data: Dataset, expected: str) -> None:
    with pytest.raises(DataTooSmall, match=expected):
        split(data, Seed(0))


def test_an_empty_published_test_part_is_too_small() -> None:
    data = Dataset("d", torch.zeros(20, 1), torch.arange(20) % 2, torch.zeros(0, 1), torch.zeros(0).long(), 2, 0.005)
    with pytest.raises(DataTooSmall, match="0 for test"):
        split(data, Seed(0))


def test_a_class_with_one_example_stays_in_training_or_is_named() -> None:
    for replicate in range(20):
        try:
            parts = split(made([60, 1]), Seed(0, replicate))
        except DataTooSmall as error:
            pytest.fail(f"a class of one of sixty-one is never shared out: {error}")
        assert 1 in parts.train_y
    with pytest.raises(DataTooSmall, match="has 1 of class 0"):
        split(made([1] * 10), Seed(0))
