"""Masks of another search: taken as they are, on this family's own values, data and order."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small import settings

from tombola.errors import InvalidValue, ShapeMismatch, TombolaError
from tombola.prune.masks import apply, counts
from tombola.search.find import find, run
from tombola.search.named import prepare
from tombola.search.settings import Settings
from tombola.search.transferred import transferred
from tombola.types import Masks

GIVEN = {"rounds": None, "rate": None, "strategy": "transfer", "source": "somewhere"}


def donors(count: int = 2) -> dict[int, dict[int, Masks]]:
    """Give random masks for levels 3 and 7 of some search."""
    params = prepare(settings()).families[0].init.params
    drawn: dict[int, dict[int, Masks]] = {}
    for r in range(count):
        rng = torch.Generator().manual_seed(r)
        for level, keep in ((3, 0.5), (7, 0.2)):
            ranks = {n: torch.randperm(v.numel(), generator=rng) for n, v in params.items() if v.dim() > 1}
            masks = {n: (rank < keep * rank.numel()).view(params[n].shape) for n, rank in ranks.items()}
            drawn.setdefault(r, {})[level] = masks
    return drawn


def test_the_masks_are_those_given_and_the_values_the_familys_own() -> None:
    given = donors()
    setup = transferred(prepare(settings(**GIVEN)), given, "somewhere")
    assert [dict(one) for one in setup.plan.levels[1:]] == [counts(given[0][level]) for level in (3, 7)]
    found = run(setup)
    r = found.ticket.provenance["replicate"]
    level = {found.levels[1].kept: 3, found.levels[2].kept: 7}[found.ticket.kept]
    assert all(torch.equal(mask, given[r][level][name]) for name, mask in found.ticket.masks.items())
    init = setup.families[r].init.params
    assert all(torch.equal(value, found.ticket.start[name]) for name, value in
               apply(init, given[r][level]).items())  # fmt: skip
    assert {one.cut_from for one in found.levels} == {None}
    assert found.cost.finding(2).iterations == 0
    assert "somewhere" in " ".join(found.notes)


def test_the_dense_runs_are_those_of_any_search_of_the_same_seed() -> None:
    other = find(settings())
    found = run(transferred(prepare(settings(**GIVEN)), donors(), "somewhere"))
    assert found.dense == other.dense


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        ({"replicates": 3}, InvalidValue, "masks of 2 families, and 3 are asked for"),
        ({"controls": ("one-shot",)}, InvalidValue, "one-shot prunes"),
        ({"exclude": ("1.weight",)}, ShapeMismatch, "Take the same network"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], kind: type[TombolaError], match: str) -> None:
    with pytest.raises(kind, match=match):
        transferred(prepare(settings(**{**GIVEN, **change})), donors(), "somewhere")


def test_masks_of_another_shape_are_refused() -> None:
    given = donors()
    given[1] = {level: {n: mask[:, :-1] for n, mask in masks.items()} for level, masks in given[1].items()}
    with pytest.raises(ShapeMismatch):
        transferred(prepare(settings(**GIVEN)), given, "somewhere")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"strategy": "transfer"}, "give --source"),
        ({"source": "somewhere"}, "Leave it out"),
        ({"strategy": "transfer", "source": "somewhere", "rounds": 3}, "nothing is said of how they are made"),
        ({"strategy": "transfer", "source": "somewhere", "criterion": "snip"}, "nothing is said of how they are made"),
    ],
)
def test_a_source_belongs_to_transfer_and_says_everything(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidValue, match=match):
        Settings(**wrong)
    assert replace(Settings(strategy="transfer", source="somewhere"), replicates=3).source == "somewhere"
