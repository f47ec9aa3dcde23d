"""To prune, or not to prune (Zhu & Gupta 2017): gradual pruning along a cubic."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tombola.errors import EmptiedLayer, InvalidValue, MissingEvidence
from tombola.prune.allocation import LAMP, Global
from tombola.prune.dynamic import Gradual
from tombola.prune.evidence import Evidence, only_alive
from tombola.prune.masks import counts, kept, nested, ones
from tombola.types import Masks, Params, Scores

SIZES = {"a": 100, "b": 60}
HALF = Gradual((("a", 20), ("b", 30)), begin=40, end=120, every=20)


def draw(seed: int = 0, *, ties: bool = False) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    found = {"a": torch.randn(10, 10, generator=rng), "b": torch.randn(60, generator=rng)}
    return {name: value.round() if ties else value for name, value in found.items()}


def path(how: Gradual, params: Params, masks: Masks, moved: Params | None = None) -> Iterator[tuple[int, Masks]]:
    for step in how.steps:
        masks = how.update(step, params, masks, None, moved, torch.Generator().manual_seed(step))
        yield step, masks


@pytest.mark.parametrize(
    ("step", "a", "b"),
    [(0, 100, 60), (40, 100, 60), (60, 54, 43), (80, 30, 34), (100, 21, 30), (120, 20, 30), (999, 20, 30)],
)
def test_equation_1_by_hand(step: int, a: int, b: int) -> None:
    """k + (N - k)(1 - x)^3 with x = 0, 1/4, 1/2, 3/4, 1: 20 + 80 * 27/64 = 53.75, 30 + 30 * 27/64 = 42.66, ..."""
    assert HALF.planned(step, SIZES) == {"a": a, "b": b}


@pytest.mark.parametrize("step", range(40, 121, 10))
def test_equation_1_as_the_paper_writes_it(step: int) -> None:
    """In sparsities, from s_i to s_f, n changes of Delta t."""
    s_i, s_f, t_0, n, delta = 0.1, 0.8, 40, 4, 20
    sparsity = s_f + (s_i - s_f) * (1 - (step - t_0) / (n * delta)) ** 3
    how = Gradual((("w", 200),), begin=t_0, end=t_0 + n * delta, every=delta, initial=(("w", 900),))
    assert abs(how.planned(step, {"w": 1000})["w"] - 1000 * (1 - sparsity)) <= 0.5 + 1e-9


def test_its_positions_are_those_of_the_paper_and_the_end_is_always_one() -> None:
    assert HALF.steps == (40, 60, 80, 100, 120)
    assert replace(HALF, every=30).steps == (40, 70, 100, 120)
    assert replace(HALF, every=1).steps == tuple(range(40, 121))
    assert replace(HALF, every=1000).steps == (40, 120)
    assert not HALF.wants_gradient(60)


@pytest.mark.parametrize("every", [1, 20, 33])
@pytest.mark.parametrize("ties", [False, True])
def test_counts_are_exact_masks_are_nested_and_the_largest_stay(every: int, ties: bool) -> None:
    how, params = replace(HALF, every=every), draw(ties=ties)
    before: Masks = ones(params, params)
    for step, masks in path(how, params, before):
        assert counts(masks) == how.planned(step, SIZES)
        assert nested(masks, before)
        for name, mask in masks.items():
            gone = before[name] & ~mask
            if bool(gone.any()):
                assert float(params[name].abs()[mask].min()) >= float(params[name].abs()[gone].max())
        before = masks
    assert counts(before) == {"a": 20, "b": 30}


@pytest.mark.parametrize("allocation", [Global(), LAMP()])
def test_an_allocation_by_score_divides_the_exact_total(allocation: Global | LAMP) -> None:
    how, params = replace(HALF, allocation=allocation), {**draw(), "a": 1.5 * draw()["a"]}
    seen = list(path(how, params, ones(params, params)))
    assert [kept(masks) for _, masks in seen] == [sum(how.planned(step, SIZES).values()) for step, _ in seen]
    first, last = seen[0][1], seen[-1][1]
    assert nested(last, first)
    assert counts(last) == allocation.place(
        {name: value.abs() for name, value in params.items()}, first, {"a": 20, "b": 30}, None
    )
    assert counts(last) != {"a": 20, "b": 30}


def test_a_pruned_weight_does_not_come_back_however_large() -> None:
    params = draw()
    cut = HALF.update(80, params, ones(params, params), None, None, torch.Generator())
    grown = {name: torch.where(cut[name], value, 100.0) for name, value in params.items()}
    assert nested(HALF.update(120, grown, cut, None, None, torch.Generator()), cut)


def by_moved(params: Params, masks: Masks, evidence: Evidence) -> Scores:  # noqa: ARG001
    moved: Params = evidence.require("moved")
    return only_alive(moved, masks)


def by_density(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    assert evidence.require("density") == 64 / 160
    assert params is not masks
    return only_alive(params, masks)


def test_its_criterion_is_any_and_sees_what_training_accumulates() -> None:
    how, params, moved = replace(HALF, criterion=by_moved), draw(), draw(1)
    (*_, (_, masks)) = path(how, params, ones(params, params), moved)
    for name, mask in masks.items():
        assert float(moved[name][mask].min()) > float(moved[name][~mask].max())
    with pytest.raises(MissingEvidence, match="moved"):
        how.update(60, params, ones(params, params), None, None, torch.Generator())
    replace(HALF, criterion=by_density).update(80, params, ones(params, params), None, None, torch.Generator())


def test_where_less_is_left_than_planned_nothing_changes() -> None:
    params = draw()
    masks = HALF.update(100, params, ones(params, params), None, None, torch.Generator())
    assert HALF.update(60, params, masks, None, None, torch.Generator()) == masks


def test_no_tensor_is_emptied() -> None:
    how, params = replace(HALF, final=(("a", 20), ("b", 0))), draw()
    with pytest.raises(EmptiedLayer, match="empty 'b' at position 120"):
        list(path(how, params, ones(params, params)))
    (*_, (_, masks)) = path(replace(how, min_keep=2), params, ones(params, params))
    assert counts(masks) == {"a": 18, "b": 2}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidValue, match="begins at 40 and ends at 40"):
        replace(HALF, end=40)
    with pytest.raises(InvalidValue, match="every is 0"):
        replace(HALF, every=0)
    with pytest.raises(InvalidValue, match="begin is -1"):
        replace(HALF, begin=-1)
    with pytest.raises(InvalidValue, match="no more at the end"):
        replace(HALF, initial=(("a", 19), ("b", 30)))
    with pytest.raises(InvalidValue, match="the same tensors"):
        replace(HALF, initial=(("a", 50),))
    with pytest.raises(InvalidValue, match="min_keep is -1"):
        replace(HALF, min_keep=-1)
    with pytest.raises(InvalidValue, match="for the tensors that have masks"):
        HALF.planned(60, {"a": 100})
    with pytest.raises(InvalidValue, match="for the tensors that have masks"):
        HALF.planned(60, {"a": 19, "b": 60})
