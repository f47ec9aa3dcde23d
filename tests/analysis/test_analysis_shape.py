"""Where survivors are: by layer, by output and by input, against the uniform null."""

import pytest
import torch
from analysis_kit import mask, rng

from tombola.analysis.densities import densities
from tombola.analysis.shape import shape
from tombola.errors import InvalidValue


def test_densities_share_out_the_survivors() -> None:
    found = densities({"a": mask("11 10"), "b": mask("1000 0000")})
    assert {name: (one.kept, one.size, one.density, one.share) for name, one in found.items()} == {
        "a": (3, 4, 0.75, 0.75),
        "b": (1, 8, 0.125, 0.25),
    }
    assert found["a"].relative == pytest.approx(0.75 / (4 / 12))
    empty = densities({"a": mask("00")})["a"]
    assert (empty.share, empty.relative) == (0.0, None)


def test_rows_and_columns_on_a_hand_example() -> None:
    found = shape({"w": mask("1110 0000 1000")})["w"]
    assert found.outputs.quantiles == (0, 0.5, 1, 2, 3)
    assert found.outputs.empty == pytest.approx(1 / 3)
    assert found.inputs.quantiles == (0, 0.75, 1, 1.25, 2)
    assert found.inputs.empty == 0.25


def test_chance_is_that_of_survivors_anywhere() -> None:
    """Against 4,000 masks of 3 x 4 with 4 survivors."""
    drawn = [torch.randperm(12, generator=rng(seed)).reshape(3, 4) < 4 for seed in range(4000)]
    found = [shape({"w": one})["w"] for one in drawn]
    for side in ("outputs", "inputs"):
        spreads = [getattr(one, side) for one in found]
        empty = torch.tensor([one.empty for one in spreads]).double()
        assert float(empty.mean()) == pytest.approx(spreads[0].chance_empty, abs=4 * float(empty.std()) / 4000**0.5)
        ratio = torch.tensor([one.variance_ratio for one in spreads]).double()
        assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / 4000**0.5)


def test_survivors_that_crowd_are_overdispersed() -> None:
    crowded = torch.zeros(50, 40, dtype=torch.bool)
    crowded[:5] = True
    found = shape({"w": crowded})["w"]
    assert found.outputs.variance_ratio is not None
    assert found.outputs.variance_ratio > 20
    assert found.inputs.variance_ratio == 0, "and spread evenly over the inputs"
    assert found.outputs.empty == 0.9
    assert found.outputs.chance_empty < 0.02
    conv = torch.ones(3, 2, 5, 5, dtype=torch.bool)
    assert shape({"w": conv})["w"].inputs.units == 2
    assert shape({"w": conv})["w"].inputs.variance_ratio is None


def test_a_tensor_of_one_axis_has_no_shape() -> None:
    with pytest.raises(InvalidValue, match=r"mask 'b' has shape \(3,\)"):
        shape({"b": torch.ones(3, dtype=torch.bool)})
