"""Numbers as they stand in sentences."""

import pytest

from tombola.stats.wording import counted, digits_apart, listed, p_text, percent, points


@pytest.mark.parametrize(
    ("density", "text"),
    [(1, "100.0 %"), (0.2113, "21.1 %"), (0.036, "3.6 %"), (0.00996, "1.0 %"), (0.0045, "0.45 %"), (1e-5, "0.001 %")],
)
def test_percent(density: float, text: str) -> None:
    assert percent(density) == text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.0043, "+0.43"), (-0.0106, "-1.06"), (0.0, "0.00"), (-0.0, "0.00"), (0.00001, "+0.001"), (-1e-12, "-1e-10")],
)
def test_points(fraction: float, text: str) -> None:
    assert points(fraction) == text


def test_a_limit_beside_the_margin_shows_on_which_side_it_lies() -> None:
    digits = digits_apart(-0.00199, -0.002)
    assert points(-0.00199, digits=digits) != points(-0.002, digits=digits)
    assert digits_apart(0.0043, -0.002) == 2


def test_words() -> None:
    assert [p_text(p) for p in (0.034, 0.0004, 1.0, 0.0)] == ["= 0.034", "= 4e-4", "= 1", "< 1e-16"]
    assert [counted(n, "replicate") for n in (0, 1, 2)] == ["0 replicates", "1 replicate", "2 replicates"]
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
