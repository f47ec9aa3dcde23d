"""Turns alternate, the first does not count, and the sums are those of the definition."""

import gc

import pytest

from tombola.bench.turns import alternate, summary, undisturbed


def test_turns_alternate_and_the_first_does_not_count() -> None:
    made: list[str] = []

    def way(name: str) -> float:
        made.append(name)
        return float(len(made))

    times = alternate({name: lambda name=name: way(name) for name in "ab"}, 2)  # type: ignore[misc]
    assert made == ["b", "a", "a", "b", "b", "a"]
    assert times == {"a": [3.0, 6.0], "b": [4.0, 5.0]}


def test_ratios_are_of_neighbours() -> None:
    found = summary([3.0, 30.0, 300.0], [1.0, 10.0, 300.0])
    assert (found.ratio, found.ratio_of_least) == (3.0, 3.0)


def test_one_turn_has_no_spread() -> None:
    assert summary([1.0], [1.0]).spread is None


def test_the_collector_rests_and_comes_back() -> None:
    assert gc.isenabled()
    with undisturbed():
        assert not gc.isenabled()
    assert gc.isenabled()

    def fails() -> None:
        with undisturbed():
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert gc.isenabled()
