"""What a score is called, which values it takes, and how it looks."""

import math

import pytest

from tombola.errors import InvalidResults, InvalidValue
from tombola.stats import ACCURACY, Scale
from tombola.stats.wording import digits_apart, points

BLEU = Scale("BLEU")


def test_accuracy_is_shown_as_it_always_was() -> None:
    assert Scale("accuracy") == ACCURACY
    assert ACCURACY.fitted(0.00001).decimals == 2
    assert (ACCURACY.unit, ACCURACY.heading, ACCURACY.column("ticket")) == ("points", "test accuracy in %", "ticket %")
    assert (ACCURACY.value(0.97716), ACCURACY.margin_text(0.005)) == ("97.72", "0.5 points")
    for x in (0.0043, -0.0106, 0.0, 0.00001, -1e-12, math.inf):
        assert ACCURACY.difference(x) == points(x)
        assert ACCURACY.difference(x, signed=False, digits=4) == points(x, signed=False, digits=4)
    assert ACCURACY.amount(0.0043) == "+0.43 points"
    assert ACCURACY.digits_apart(-0.00199, -0.002) == digits_apart(-0.00199, -0.002)


@pytest.mark.parametrize(
    ("margin", "x", "difference", "value", "margin_text"),
    [
        (0.02, 0.0123, "+0.012", "0.012", "0.02"),
        (0.02, -1834.2, "-1834.200", "-1834.200", "0.02"),
        (0.15, 0.0, "0.00", "0.00", "0.15"),
        (5, 3.14159, "+3.1", "3.1", "5"),
        (250, -1834.2, "-1834", "-1834", "250"),
        (250, 0.3, "+0.3", "0.3", "250"),
        (1e-9, 1.234e-7, "+1.23e-07", "1.234e-07", "1e-09"),
        (1e-8, 1.234e-7, "+0.000000123", "0.000000123", "1e-08"),
        (1e-20, 1.23456789e-18, "+1.23e-18", "1.23457e-18", "1e-20"),
        (0, 0.0123456789, "+0.0123", "0.0123457", "0"),
        (0, 0.0, "0", "0", "0"),
        (0.02, 1e300, "+1e+300", "1e+300", "0.02"),
        (0.02, -math.inf, "unknown", "unknown", "0.02"),
    ],
)
def test_decimals_suit_the_margin(margin: float, x: float, difference: str, value: str, margin_text: str) -> None:
    scale = BLEU.fitted(margin)
    assert (scale.difference(x), scale.value(x), scale.margin_text(margin)) == (difference, value, margin_text)
    assert scale.amount(x) == difference
    assert scale == BLEU
    assert (scale.unit, scale.heading, scale.column("ticket")) == ("", "test BLEU", "ticket")


def test_a_limit_beside_the_margin_shows_on_which_side_it_lies() -> None:
    for margin in (0.02, 30.0, 1e-15):
        scale = BLEU.fitted(margin)
        a, b = -0.9999 * margin, -margin
        digits = scale.digits_apart(a, b)
        assert scale.difference(a, digits=digits) != scale.difference(b, digits=digits)
        assert scale.digits_apart(2 * margin, -margin) == scale.digits


@pytest.mark.parametrize("name", ["", " ", " BLEU", "BLEU\n", "\x1b[31mred", "x" * 41])
def test_a_name_is_short_plain_text(name: str) -> None:
    with pytest.raises(InvalidValue, match="1 to 40 printable characters"):
        Scale(name)


def test_values_and_margins() -> None:
    assert [BLEU.check_value(x) for x in (-1834.2, 1e308, 0.0)] == [-1834.2, 1e308, 0.0]
    assert math.isnan(BLEU.check_value(math.nan))
    assert math.isnan(ACCURACY.check_value(math.nan))
    for x in (math.inf, -math.inf):
        with pytest.raises(InvalidResults, match=r"score \(BLEU\) of -?inf\. Scores are finite numbers; write nan"):
            BLEU.check_value(x)
    with pytest.raises(InvalidResults, match="accuracy of 97"):
        ACCURACY.check_value(97.0)
    assert [BLEU.check_margin(x) for x in (0, 0.1, 1e6)] == [0, 0.1, 1e6]
    for x in (-1.0, math.inf, math.nan):
        with pytest.raises(InvalidValue, match=r"the margin is .* how much BLEU may be lost, in its own units"):
            BLEU.check_margin(x)
    with pytest.raises(InvalidValue, match=r"there is no margin for BLEU\. .* --margin 0\.1"):
        BLEU.check_margin(None)
    with pytest.raises(InvalidValue, match="is a fraction of accuracy"):
        ACCURACY.check_margin(2.0)
