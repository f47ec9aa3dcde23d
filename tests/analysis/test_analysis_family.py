"""What a family is, the one-shot mask, and the null that contains no seeking."""

import pytest
import torch
from analysis_kit import COUNTS, SHAPES, family, rng, start

from tombola.analysis.family import Observed, one_shot_masks
from tombola.analysis.movement import movement
from tombola.analysis.null import column_order, reordered, without_seeking
from tombola.errors import ImpossibleDensity, InvalidValue, ShapeMismatch
from tombola.prune.masks import counts


def test_a_family_says_what_is_wrong_with_it() -> None:
    w = {"w": torch.ones(2, 3)}
    with pytest.raises(InvalidValue, match="family 4 has no dense run"):
        Observed(4, w, (), ("w",))
    with pytest.raises(InvalidValue, match="no prunable tensor"):
        Observed(4, w, (w,), ())
    with pytest.raises(ShapeMismatch, match=r"'w' has shape \(2, 3\) at the start and \(3,\) at the end"):
        Observed(4, w, ({"w": torch.ones(3)},), ("w",))
    with pytest.raises(ShapeMismatch, match="there is no 'v' among the initial weights, which are w"):
        Observed(4, w, (w,), ("v",))
    with pytest.raises(InvalidValue, match=r"a mask at level 0\. Levels of masks count from 1"):
        Observed(4, w, (w,), ("w",), {0: {"w": torch.ones(2, 3, dtype=torch.bool)}})
    with pytest.raises(ShapeMismatch, match="mask 'w'"):
        Observed(4, w, (w,), ("w",), {1: {"w": torch.ones(3, dtype=torch.bool)}})


def test_the_one_shot_mask_keeps_exactly_the_largest() -> None:
    end = family(0, 0).ends[0]
    masks = one_shot_masks(end, COUNTS, rng(0))
    assert counts(masks) == COUNTS
    for name, kept in masks.items():
        assert end[name][kept].abs().min() > end[name][~kept].abs().max()
    tied = [one_shot_masks({"w": torch.ones(100)}, {"w": 50}, rng(seed))["w"] for seed in (0, 0, 1)]
    assert torch.equal(tied[0], tied[1])
    assert not torch.equal(tied[0], tied[2])
    with pytest.raises(ShapeMismatch, match="counts are given for v, and there are no such weights, only w"):
        one_shot_masks({"w": torch.ones(2)}, {"v": 1})
    with pytest.raises(ImpossibleDensity):
        one_shot_masks({"w": torch.ones(2)}, {"w": 3})


@pytest.mark.parametrize("shape", [(7, 5), (6, 3, 2, 2)])
def test_the_null_keeps_what_each_input_moved_and_nothing_else(shape: tuple[int, ...]) -> None:
    """Whole numbers, so that sums are exact and multisets can be compared with ``==``."""
    draw = rng(3)
    w_0, step = (torch.randint(-50, 50, shape, generator=draw).double() for _ in range(2))
    step[:, 1] = 0
    bias = torch.ones(shape[0])
    theta_0, theta_T = {"w": w_0, "b": bias, "n": bias}, {"w": w_0 + step, "b": 2 * bias, "n": 3 * bias}
    null = without_seeking(theta_0, theta_T, ["w", "b"], rng(4))
    moved = null["w"] - w_0
    assert torch.equal(moved.sort(0).values, step.sort(0).values)
    assert not torch.equal(moved, step)
    assert torch.equal(null["w"][:, 1], w_0[:, 1]), "where nothing moved, nothing moves"
    assert torch.equal(null["b"], theta_T["b"]), "a tensor of one axis is left as it was trained"
    assert torch.equal(null["n"], theta_T["n"]), "so is what was not named"
    by_output = [sorted(row.reshape(-1).tolist()) for row in moved]
    assert by_output != [sorted(row.reshape(-1).tolist()) for row in step], "outputs do not keep theirs"


def test_each_input_has_an_order_of_its_own_and_every_order_is_as_likely() -> None:
    order = column_order((3, 60_000), rng(0))
    assert torch.equal(order.sort(0).values, torch.arange(3)[:, None].expand(3, 60_000))
    seen = torch.unique(order, dim=1, return_counts=True)[1].double()
    assert seen.shape == (6,)
    # A binomial count of 60,000 draws at 1/6 has a standard deviation of 91; six of them stay within four.
    assert float((seen - 10_000).abs().max()) < 4 * 91.3


def test_reordering_follows_its_definition() -> None:
    values, order = torch.arange(12).reshape(3, 4), column_order((3, 4), rng(1))
    found = reordered(values, order)
    for o in range(3):
        for i in range(4):
            assert found[o, i] == values[order[o, i], i]


def test_movement_on_a_hand_example() -> None:
    w_0, w_T = torch.tensor([[3.0, 0.0], [0.0, -4.0]]), torch.tensor([[0.0, 0.0], [0.0, -8.0]])
    found = movement({"w": w_0}, {"w": w_T}, ["w"], (0.0, 0.5, 1.0))["w"]
    assert found.quantiles == ((0.0, 0.0), (0.5, 1.5), (1.0, 4.0))
    assert found.relative == pytest.approx(1.0)
    expected = torch.corrcoef(torch.stack([w_0.abs().reshape(-1), w_T.abs().reshape(-1)]))[0, 1]
    assert found.correlation == pytest.approx(float(expected))
    still = movement({"w": torch.zeros(3)}, {"w": torch.ones(3)}, ["w"])["w"]
    assert (still.relative, still.correlation) == (None, None)
    with pytest.raises(InvalidValue, match="2 is no probability"):
        movement({"w": w_0}, {"w": w_T}, ["w"], (2,))


def test_the_start_of_the_kit_is_what_it_says() -> None:
    """Dead inputs do not move in any run, and no two runs move alike."""
    one = family(0, 0)
    for name in SHAPES:
        gaps = [end[name] - start(0)[name] for end in one.ends]
        assert all(torch.equal(gap[:, ::8], torch.zeros_like(gap[:, ::8])) for gap in gaps)
        assert not torch.equal(*gaps)
