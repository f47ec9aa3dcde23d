"""What every criterion promises."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tombola.errors import ShapeMismatch
from tombola.prune.criteria import CRITERIA
from tombola.prune.evidence import Evidence, scored

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def evidence(params: dict[str, Tensor], seed: int = 0) -> Evidence:
    """Give a criterion everything it may ask for."""
    rng = torch.Generator().manual_seed(seed)
    return Evidence(theta_0=params, theta_k=params, generator=rng, density=0.5)


@pytest.mark.parametrize("name", CRITERIA)
@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1),
    st.sampled_from(DTYPES),
)
@settings(deadline=None)
def test_scores_have_the_masks_names_and_shapes_and_the_dead_score_least(
    name: str, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype
) -> None:
    rng = torch.Generator().manual_seed(0)
    params = {n: torch.randn(shape, generator=rng).to(dtype) for n, shape in shapes.items()}
    masks = {n: torch.rand(shape, generator=rng) < 0.5 for n, shape in shapes.items()}
    before = {n: value.clone() for n, value in params.items()}
    raw = CRITERIA[name].score({**params, "bias": torch.ones(2)}, masks, evidence(params))
    checked = scored(CRITERIA[name].score, params, masks, evidence(params))
    assert list(raw) == list(masks), "only what is masked"
    for n, score in raw.items():
        assert score.shape == masks[n].shape
        assert score.is_floating_point()
        assert bool((score[~masks[n]] == -torch.inf).all())
        assert bool(score[masks[n]].isfinite().all())
        assert torch.equal(score, checked[n]), "the contract changes nothing of ours; the same generator, the same bits"
        assert torch.equal(params[n], before[n]), "the weights are not written to"


@pytest.mark.parametrize("name", CRITERIA)
def test_a_mask_of_another_shape_is_refused(name: str) -> None:
    params: dict[str, Any] = {"w": torch.zeros(2, 3)}
    with pytest.raises(ShapeMismatch, match=r"mask 'w' has shape \(3, 2\), its parameter has \(2, 3\)"):
        CRITERIA[name].score(params, {"w": torch.ones(3, 2, dtype=torch.bool)}, evidence(params))


@pytest.mark.parametrize("name", CRITERIA)
def test_the_global_generator_is_not_touched(name: str) -> None:
    params = {"w": torch.zeros(5)}
    before = torch.random.get_rng_state()
    CRITERIA[name].score(params, {"w": torch.ones(5, dtype=torch.bool)}, evidence(params))
    assert torch.equal(torch.random.get_rng_state(), before)
