"""Gates, the fixed sequence and Holm."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tombola.errors import InvalidValue
from tombola.stats import default_gates, holm, passed
from tombola.stats.sequence import pick_gates


def paper_ladder() -> list[float]:
    """LeNet-300-100: 20 % a round, 10 % in the output layer (Frankle & Carbin 2019, appendix G)."""
    return [(0.8**k * 265_200 + 0.9**k * 1000) / 266_200 for k in range(1, 13)]


def test_default_gates_of_the_papers_ladder_are_levels_3_7_10_12() -> None:
    ladder = paper_ladder()
    assert default_gates(ladder) == tuple(ladder[k - 1] for k in (3, 7, 10, 12))


def test_a_long_ladder_has_six_gates_and_a_short_one_each_level_once() -> None:
    ladder = [0.8**k for k in range(1, 25)]
    assert [ladder.index(gate) + 1 for gate in default_gates(ladder)] == [3, 7, 10, 13, 18, 21]
    assert default_gates([0.8, 1.0]) == (0.8,)
    assert default_gates([0.2, 0.5]) == (0.5, 0.2)
    with pytest.raises(InvalidValue, match="between 0 and 1"):
        default_gates([1.0])


def test_nearest_means_in_log_density() -> None:
    assert default_gates([0.5, 0.205, 0.0996, 0.048, 0.0302, 0.0131, 0.008]) == (
        0.5, 0.205, 0.0996, 0.048, 0.0302, 0.008,
    )  # fmt: skip


def test_gates_are_found_as_printed_and_sorted() -> None:
    densities = [0.5123457, 0.2112347, 0.0361111]
    assert pick_gates([0.0361111, 0.512346, 0.5123457], densities) == (0.5123457, 0.0361111)
    with pytest.raises(InvalidValue, match=r"density 0\.21 .* 0\.512346, 0\.211235, 0\.0361111"):
        pick_gates([0.21], densities)
    with pytest.raises(InvalidValue, match="no level"):
        pick_gates([float("nan")], densities)
    with pytest.raises(InvalidValue, match="empty"):
        pick_gates([], densities)


@given(st.lists(st.booleans(), max_size=8))
def test_a_fixed_sequence_stops_at_the_first_failure(rejected: list[bool]) -> None:
    assert passed(rejected) == len(list(itertools.takewhile(bool, rejected)))


def test_holm_by_hand() -> None:
    # Ranked .005, .01, .03, .04 of four: 4 x .005, 3 x .01, 2 x .03, then .04 raised to the .06 before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.5, 0.6]) == (1.0, 1.0)
    assert holm([0.03]) == (0.03,)
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_keeps_order_and_lies_between_p_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    for raw, value in zip(p, adjusted, strict=True):
        assert raw <= value <= min(1.0, len(p) * raw)
    for i, j in itertools.permutations(range(len(p)), 2):
        assert p[i] > p[j] or adjusted[i] <= adjusted[j]
