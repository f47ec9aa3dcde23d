"""Integer arithmetic: exact, halves up, sums that hold."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tombola.errors import ImpossibleDensity, InvalidValue
from tombola.prune.counting import Cut, apportion, at_least, exact, half_up, root_power, size_of


@pytest.mark.parametrize("value", [0.07, "0.07", "7/100", Decimal("0.07"), Fraction(7, 100), np.float32(0.07)])
def test_a_number_is_the_decimal_a_person_wrote(value: float) -> None:
    assert exact(value) == Fraction(7, 100)


@pytest.mark.parametrize("value", ["", "a fifth", "1/0", math.nan, math.inf, None, True])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(InvalidValue, match=r"is not a number\. Write a decimal"):
        exact(value)


def test_seven_percent_of_a_hundred_is_seven() -> None:
    assert math.ceil(0.07 * 100) == 8, "what floats say"
    assert half_up(exact(0.07) * 100) == 7


@given(st.integers(-1000, 1000), st.integers(1, 50))
def test_halves_go_up(top: int, bottom: int) -> None:
    value = Fraction(top, bottom)
    rounded = half_up(value)
    assert -Fraction(1, 2) < rounded - value <= Fraction(1, 2)
    assert half_up(Fraction(2 * top + 1, 2)) == top + 1


@given(st.integers(0, 12), st.integers(1, 12), st.integers(0, 10), st.integers(1, 12))
def test_a_rational_root_is_exact(top: int, extra: int, level: int, rounds: int) -> None:
    base = Fraction(top, top + extra)
    assert root_power(base**rounds, level, rounds) == base**level


@given(st.fractions(0, 1, max_denominator=10**6), st.integers(0, 30), st.integers(1, 30))
@settings(deadline=None)
def test_a_root_is_right_to_200_bits_from_below(base: Fraction, level: int, rounds: int) -> None:
    root = root_power(base, level, rounds)
    assert root**rounds <= base**level < (root + Fraction(1, 1 << 200)) ** rounds


def test_the_keep_fraction_of_a_tenth_in_ten_rounds() -> None:
    keep = root_power(Fraction(1, 10), 1, 10)
    assert f"{float(keep):.10f}" == "0.7943282347"
    assert f"{100 * float(1 - keep):.4f} %" == "20.5672 %"
    assert f"{100 * float(1 - root_power(Fraction(1, 10), 1, 5)):.4f} %" == "36.9043 %"
    assert f"{100 * float(1 - root_power(Fraction(1, 5), 1, 10)):.4f} %" == "14.8660 %"
    assert f"{100 * float(1 - root_power(Fraction(1, 100), 1, 20)):.4f} %" == "20.5672 %"


@given(st.integers(1, 10**9), st.integers(1, 100), st.integers(1, 99))
def test_a_rate_removes_its_share_of_the_survivors(alive: int, extra: int, percent: int) -> None:
    rate = Fraction(percent, 100)
    assume(half_up(rate * alive) < alive)
    assert Cut(rate=rate).total(alive + extra, alive) == alive - half_up(rate * alive)


def test_a_density_counts_from_the_original() -> None:
    assert Cut(density=Fraction(1, 5)).total(266_200, 60_000) == 53_240
    assert Cut(density=Fraction(1, 2)).total(5, 5) == 3
    assert Cut(keep=4).total(9, 5) == 4


@pytest.mark.parametrize("cut", [Cut(keep=0), Cut(density=Fraction(1, 1000)), Cut(rate=Fraction(99, 100))])
def test_a_cut_that_keeps_nothing_is_impossible(cut: Cut) -> None:
    with pytest.raises(ImpossibleDensity, match=r"keeps none of 100 weights .* The least density here is 1/100"):
        cut.total(100, 10)


def test_a_cut_never_lets_weights_come_back() -> None:
    with pytest.raises(ImpossibleDensity, match="keep 50 weights and only 10 of 100 are left"):
        Cut(density=Fraction(1, 2)).total(100, 10)


def test_a_cut_is_one_thing() -> None:
    with pytest.raises(InvalidValue, match="has none of them"):
        Cut()
    with pytest.raises(InvalidValue, match="has rate and keep"):
        Cut(rate=Fraction(1, 5), keep=0)


NUMBERS = st.one_of(
    st.integers(0, 10**15), st.floats(0, 1e15, allow_subnormal=True), st.fractions(0, 100, max_denominator=1000)
)


Case = tuple[dict[str, float | Fraction], int, dict[str, int]]


@st.composite
def shares(draw: st.DrawFn) -> Case:
    """Draw any shares, caps and a total that the caps allow."""
    names = [f"t{i}" for i in range(draw(st.integers(0, 8)))]
    most = {name: draw(st.integers(0, draw(st.sampled_from([0, 3, 1000, 10**15])))) for name in names}
    ideal = {name: draw(NUMBERS) for name in names}
    return ideal, draw(st.integers(0, sum(most.values()))), most


@given(shares())
@settings(deadline=None, max_examples=300)
def test_apportioned_counts_have_the_sum_and_respect_the_caps(case: Case) -> None:
    ideal, total, most = case
    counts = apportion(ideal, total, most)
    assert list(counts) == list(ideal)
    assert sum(counts.values()) == total
    assert all(0 <= counts[name] <= most[name] for name in counts)
    with pytest.raises(ImpossibleDensity, match="cannot keep"):
        apportion(ideal, sum(most.values()) + 1, most)


@given(shares())
@settings(deadline=None, max_examples=300)
def test_counts_are_within_one_of_one_scale_of_the_shares(case: Case) -> None:
    ideal, total, most = case
    counts = apportion(ideal, total, most)
    scales = [Fraction(counts[n] + 1) / Fraction(ideal[n]) for n in ideal if ideal[n] and counts[n] < most[n]]
    assume(any(ideal[n] and most[n] for n in ideal))
    # A scale c fits when every count is within one of min(most, c ideal): the intervals of c intersect.
    low = max((Fraction(counts[n] - 1) / Fraction(ideal[n]) for n in ideal if ideal[n]), default=Fraction(0))
    assert all(low <= high for high in scales)
    if any(ideal[n] and counts[n] + 1 < most[n] for n in ideal):
        assert all(counts[n] <= 1 for n in ideal if not ideal[n]), "nothing without a share while shares are open"


@given(st.lists(st.fractions(0, 50, max_denominator=60), min_size=1, max_size=9))
@settings(deadline=None)
def test_shares_that_sum_to_the_total_are_rounded_to_a_neighbour(values: list[Fraction]) -> None:
    total = half_up(sum(values, Fraction(0)))
    values.append(total - sum(values[:-1]) - values[-1])
    assume(values[-1] >= 0)
    ideal = {str(i): value for i, value in enumerate(values)}
    counts = apportion(ideal, total, dict.fromkeys(ideal, 1000))
    assert all(math.floor(ideal[n]) <= counts[n] <= math.ceil(ideal[n]) for n in ideal)


def test_apportioning_by_hand() -> None:
    assert apportion({"a": 0.0, "b": 0.0}, 3, {"a": 2, "b": 4}) == {"a": 1, "b": 2}, "no shares: by room"
    assert apportion({"a": 10, "b": 10}, 15, {"a": 10, "b": 10}) == {"a": 8, "b": 7}, "shares above the total"
    assert apportion({"a": 1, "b": 1}, 7, {"a": 2, "b": 5}) == {"a": 2, "b": 5}, "all caps reached"
    assert apportion({"a": 9, "b": 0}, 4, {"a": 3, "b": 3}) == {"a": 3, "b": 1}, "no share, all else full"
    huge = 10**30
    assert apportion({"a": huge, "b": 3 * huge}, 4 * huge + 1, dict.fromkeys("ab", 9 * huge)) == {
        "a": huge,
        "b": 3 * huge + 1,
    }
    assert apportion({}, 0, {}) == {}


@given(shares(), st.integers(0, 5))
@settings(deadline=None)
def test_a_minimum_for_each_comes_first(case: Case, least: int) -> None:
    ideal, total, most = case
    floor = {name: min(least, most[name]) for name in most}
    if sum(floor.values()) > total:
        with pytest.raises(ImpossibleDensity, match=f"with at least {least} in each of {len(most)} tensors"):
            apportion(ideal, total, most, least=least)
        return
    counts = apportion(ideal, total, most, least=least)
    assert sum(counts.values()) == total
    assert all(floor[name] <= counts[name] <= most[name] for name in counts)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=8), st.integers(0, 9))
def test_raising_to_a_minimum_keeps_the_sum(pairs: list[tuple[int, int]], least: int) -> None:
    counts = {str(i): min(pair) for i, pair in enumerate(pairs)}
    most = {str(i): max(pair) for i, pair in enumerate(pairs)}
    floor = {name: min(least, most[name]) for name in counts}
    if sum(floor.values()) > sum(counts.values()):
        with pytest.raises(ImpossibleDensity, match=f"at least {least} in each"):
            at_least(counts, least, most)
        return
    raised = at_least(counts, least, most)
    assert sum(raised.values()) == sum(counts.values())
    assert all(floor[name] <= raised[name] <= most[name] for name in raised)
    assert all(raised[name] <= max(counts[name], floor[name]) for name in raised), "nothing else grows"


def test_sizes_of_shapes() -> None:
    assert [size_of(shape) for shape in [(), (0, 3), (2, 3, 4)]] == [1, 0, 24]
