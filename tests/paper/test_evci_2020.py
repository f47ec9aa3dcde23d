"""Rigging the Lottery (Evci et al. 2020): the Erdős–Rényi-kernel densities."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.prune.allocation import ERK
from tombola.prune.allocation.erk import erk_densities
from tombola.prune.counting import Cut, half_up, size_of

LENET = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}


@pytest.mark.parametrize(
    ("density", "golden"),
    [
        ("0.2", (0.16224, 0.46936, 1.0)),
        ("0.1", (0.07957, 0.23019, 1.0)),
        ("0.05", (0.03848, 0.11133, 0.91851)),
        ("0.02", (0.01539, 0.04453, 0.36740)),
    ],
)
def test_the_densities_of_lenet(density: str, golden: tuple[float, ...]) -> None:
    found = erk_densities(LENET, half_up(Fraction(density) * 266200))
    assert tuple(round(float(d), 5) for d in found.values()) == golden


SHAPES = st.one_of(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.tuples(st.integers(1, 64), st.integers(1, 64), st.integers(1, 5), st.integers(1, 5)),
)


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=2), SHAPES, min_size=1), st.data())
@settings(deadline=None)
def test_both_equations_hold(shapes: dict[str, tuple[int, ...]], data: st.DataObject) -> None:
    size = sum(map(size_of, shapes.values()))
    total = data.draw(st.integers(1, size))
    densities = erk_densities(shapes, total)
    assert all(0 < d <= 1 for d in densities.values())
    assert sum(densities[n] * size_of(shapes[n]) for n in shapes) == total, "the total, exactly"
    scale = {n: densities[n] / Fraction(sum(shapes[n]), size_of(shapes[n])) for n in shapes}
    free = {scale[n] for n in shapes if densities[n] < 1}
    assert len(free) <= 1, "one epsilon for all that are not saturated"
    assert all(scale[n] <= epsilon for n in shapes if densities[n] == 1 for epsilon in free)
    planned = ERK().plan(shapes, {n: size_of(s) for n, s in shapes.items()}, Cut(keep=total))
    assert sum(planned.values()) == total
    assert all(abs(planned[n] - densities[n] * size_of(shapes[n])) < 1 for n in shapes)


def test_a_matrix_has_the_density_of_the_erdos_renyi_graph() -> None:
    """Mocanu et al. (2018): epsilon (n_in + n_out) / (n_in n_out)."""
    found = erk_densities({"a": (30, 70), "b": (50, 50)}, 500)
    assert found["a"] / found["b"] == Fraction(100, 2100) / Fraction(100, 2500)
