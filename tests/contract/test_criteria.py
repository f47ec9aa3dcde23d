"""What every criterion promises."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.errors import InvalidValue, MissingEvidence, ShapeMismatch
from tombola.prune.allocation import ALLOCATIONS
from tombola.prune.criteria import CRITERIA
from tombola.prune.evidence import Evidence
from tombola.prune.masks import counts, kept, nested, ones
from tombola.prune.pruner import Pruner
from tombola.prune.schedules import ladder
from tombola.testing import check_criterion
from tombola.testing.subjects import SUBJECTS, Subject, case
from tombola.types import Masks

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
ONE_BY_ONE = [name for name, known in CRITERIA.items() if not known.about.looks]
"""Those that score a weight by what is known of it alone, so that any tensors will do."""


@pytest.mark.parametrize("name", CRITERIA)
def test_it_holds_the_public_contract(name: str) -> None:
    check_criterion(CRITERIA[name].score)


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("subject", SUBJECTS[:2], ids=lambda subject: subject.name)
def test_scores_are_for_what_is_masked_in_its_order(name: str, subject: Subject) -> None:
    tried = case(subject, torch.float32, 0.5)
    backwards: Masks = dict(reversed(tried.masks.items()))
    some: Masks = {n: mask for n, mask in tried.masks.items() if n != subject.masked[-1]}
    for masks in (backwards, some):
        raw = CRITERIA[name].score(tried.params, masks, tried.evidence(masks))
        assert list(raw) == list(masks), "only what is masked, and in that order"
        assert not any(score.requires_grad for score in raw.values()), "scores carry no graph of the network"


@pytest.mark.parametrize("name", CRITERIA)
def test_a_norm_is_scored_like_any_other_or_refused_by_name(name: str) -> None:
    tried = case(replace(SUBJECTS[1], masked=("0.weight", "1.weight", "1.bias", "7.weight")), torch.float32, 0.5)
    try:
        raw = CRITERIA[name].score(tried.params, tried.masks, tried.evidence(tried.masks))
    except InvalidValue as error:
        assert "1.weight" in str(error)  # noqa: PT017
        return
    for n, mask in tried.masks.items():
        assert bool((raw[n][~mask] == -torch.inf).all())
        assert bool(raw[n][mask].isfinite().all())


@pytest.mark.parametrize("name", ONE_BY_ONE)
@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1),
    st.sampled_from(DTYPES),
)
@settings(deadline=None)
def test_tensors_of_any_shape_are_scored(name: str, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    params, before, moved = (
        {n: torch.randn(shape, generator=rng).to(dtype) for n, shape in shapes.items()} for _ in range(3)
    )
    masks = {n: torch.rand(shape, generator=rng) < 0.5 for n, shape in shapes.items()}
    evidence = Evidence(theta_0=before, theta_k=before, moved=moved, generator=rng, density=0.25)
    raw = CRITERIA[name].score({**params, "bias": torch.ones(2)}, masks, evidence)
    for n, mask in masks.items():
        assert raw[n].shape == mask.shape
        assert raw[n].is_floating_point()
        assert bool((raw[n][~mask] == -torch.inf).all())
        assert bool(raw[n][mask].isfinite().all())


@pytest.mark.parametrize("name", CRITERIA)
def test_a_mask_of_another_shape_is_refused_by_name(name: str) -> None:
    tried = case(SUBJECTS[0], torch.float32, 1.0)
    masks = {**tried.masks, "2.weight": tried.masks["2.weight"].T}
    with pytest.raises(ShapeMismatch, match=r"mask '2.weight' has shape \(6, 3\), its parameter has \(3, 6\)"):
        CRITERIA[name].score(tried.params, masks, tried.evidence(tried.masks))


@pytest.mark.parametrize("name", CRITERIA)
def test_evidence_that_is_missing_is_asked_for_by_name(name: str) -> None:
    """Field by field: what a criterion asks for is added until it is satisfied; only that is ever missing."""
    tried = case(SUBJECTS[0], torch.float32, 0.5)
    everything, given = vars(tried.evidence(tried.masks)), dict[str, object]()
    for _ in everything:
        try:
            raw = CRITERIA[name].score(tried.params, tried.masks, Evidence(**given))  # type: ignore[arg-type]
        except MissingEvidence as error:
            asked = str(error).split("'")[1]
            assert asked not in given, "what was given is not asked for again"
            given[asked] = everything[asked]
        except InvalidValue as error:
            # No stages are what a network has that is no chain of layers, so that is what is said.
            assert "chain of" in str(error)  # noqa: PT017
            assert "stages" not in given
            given["stages"] = everything["stages"]
        else:
            assert list(raw) == list(tried.masks)
            return
    pytest.fail("it asks for more than there is")


@pytest.mark.parametrize("name", CRITERIA)
def test_with_its_own_allocation_masks_nest_and_have_the_planned_sizes(name: str) -> None:
    subject = SUBJECTS[1]
    tried = case(subject, torch.float32, 1.0)
    allocation = ALLOCATIONS[CRITERIA[name].about.allocation or "layer-rates"]({})
    pruner = Pruner(CRITERIA[name].score, allocation, ladder("0.4"), min_keep=1)
    masks: Masks = ones(tried.params, subject.masked)
    planned = pruner.plan({n: tuple(mask.shape) for n, mask in masks.items()}, 3)
    for level in range(1, 4):
        found = pruner.prune(level, tried.params, masks, tried.evidence(masks))
        assert nested(found, masks)
        assert kept(found) == sum(planned[level].values())
        assert allocation.name == "global" or counts(found) == planned[level]
        masks = found
