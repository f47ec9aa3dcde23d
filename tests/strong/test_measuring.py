"""The law of subset sums is followed; wider random networks hold better subnetworks."""

from functools import partial

import pytest
import torch

from tombola.data import load
from tombola.errors import InvalidValue
from tombola.strong import figures
from tombola.strong.measuring import Law, Typical, Width, measured_law, measured_widths, wide
from tombola.train.engines import trainer
from tombola.train.recipe import Recipe
from tombola.train.source import Splits
from tombola.train.watch import Unwatched

drawn = pytest.mark.skipif(not figures.available(), reason="matplotlib is not here")


def test_errors_follow_the_law_and_its_slope() -> None:
    """Within 25 % at every n and target, off the centre too; candidates against log2(1/error) within 10 %."""
    heard: list[str] = []
    found = measured_law((10, 14, 18, 22), lists=20_000, told=heard.append)
    assert found.furthest < 1.25
    assert found.slope == pytest.approx(found.law_slope, rel=0.1)
    assert len(heard) == 4
    assert measured_law((10, 12), lists=50) == measured_law((12, 10), lists=50, threads=2), "the same lists again"


def test_a_slope_is_that_of_n_over_the_bits() -> None:
    rows = tuple(Typical(n, 0.1, 2.0**-n, 2.0 ** (-n / 2), 1.0, 5) for n in (10, 12, 14))
    found = Law(rows, 1.0, 2.0)
    assert found.furthest == 2.0**7


@pytest.mark.parametrize(
    "bad", [{"counts": (10,)}, {"counts": (10, 31)}, {"lists": 1}, {"weights": ()}, {"weights": (2.0,)}]
)
def test_what_is_no_law_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InvalidValue, match="a law is measured"):
        measured_law(**bad)  # type: ignore[arg-type]


def test_wider_random_networks_hold_better_subnetworks() -> None:
    splits = Splits(partial(load, "digits"))
    recipe = Recipe(iterations=150, batch_size=64, eval_every=75)
    found = measured_widths(
        (0.05, 1.0),
        splits.dataset,
        lambda build: trainer("plain", build, splits, recipe, "cpu", 1, Unwatched()),
        150,
        replicates=2,
    )
    assert [one.hidden for one in found] == [(15, 5), (300, 100)]
    assert [one.weights for one in found] == [64 * 15 + 75 + 50, 50_200]
    assert min(found[1].accuracy) > max(found[0].accuracy)
    with pytest.raises(InvalidValue, match="above 0"):
        measured_widths((0.0,), splits.dataset, lambda _: pytest.fail("not trained"), 1)
    assert wide((1, 2, 3), 4, (5, 6))(torch.zeros(7, 1, 2, 3)).shape == (7, 4)


@drawn
def test_figures_are_the_same_bytes_again() -> None:
    rows = tuple(Typical(n, w, 2.0**-n, 1.1 * 2.0**-n, 1.0, 5) for n in (10, 12) for w in (0.1, 0.4))
    one = figures.law(Law(rows, 1.0, 1.0))
    assert one == figures.law(Law(rows, 1.0, 1.0))
    assert b"<svg" in one
    assert b"<svg" in figures.width([Width(1.0, (3, 1), 1000, (0.9, 0.91)), Width(2.0, (6, 2), 4000, (0.95, 0.94))])
