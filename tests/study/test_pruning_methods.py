"""The study that compares all methods trains what its claims are about, under one recipe and at one set of levels."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from tombola.prune.catalogue import CRITERIA, STRATEGIES
from tombola.search.finding import run_of
from tombola.search.named import prepare
from tombola.search.settings import Settings
from tombola.stats import LevelResults, Results, Run, read_csv, write_csv
from tombola.study.claims import NotMeasured, Settled, above, points_above_at_best, settle
from tombola.study.library import claims_of, named
from tombola.types import Curve

SPEC = named("pruning-methods", "small")
RANKED = (0.2, 0.05, 0.02)

APART = {"adaptive", "continued", "settled", "early-bird", "gradual-rewind", "gem-miner", "transfer"}
"""Cheaper searches, which a study of its own compares with the search they shorten, and masks from elsewhere."""


def test_every_strategy_and_every_criterion_is_in_it() -> None:
    assert {one.strategy for one in SPEC.searches.values()} == set(STRATEGIES) - APART
    once = {one.criterion for one in SPEC.searches.values() if one.strategy == "one-shot"}
    assert once == set(CRITERIA)


@pytest.mark.parametrize("size", ["smoke", "small", "paper"])
def test_all_searches_differ_in_the_method_alone(size: str) -> None:
    for name, one in named("pruning-methods", size).searches.items():
        recipe = dict(one.recipe or {})
        rate = {"rate-third": 1.2e-3 / 3, "rate-triple": 1.2e-3 * 3}.get(name, 1.2e-3)
        assert recipe.pop("lr") == pytest.approx(rate)
        last = recipe["iterations"]
        assert recipe == {
            "iterations": last, "optimizer": "adam", "batch_size": 60,
            "schedule": "step", "gamma": 0.1, "milestones": (last / 2, 3 * last / 4),
        }  # fmt: skip
        assert (one.model, one.engine, one.min_keep) == ("lenet-300-100", "auto", 1)
        assert last == {"smoke": 200, "small": 4000, "paper": 50_000}[size]


def test_levels_keep_four_fifths_and_meet_every_gate() -> None:
    for name, one in SPEC.searches.items():
        levels, gates = one.densities or (), one.gates or ()
        assert set(gates) <= set(levels), name
        assert set(gates) == set(RANKED) or name in ("rate-third", "rate-triple", "finetune", "finetune-global", "obd")
        if len(levels) > 3:
            assert all(0.79 < after / before < 0.8 for before, after in pairwise((1.0, *levels))), name
        else:
            assert levels == RANKED
    assert SPEC.searches["obd"].densities == SPEC.searches["finetune"].densities
    assert (SPEC.searches["obd"].densities or ())[-1] == 0.005


def test_every_search_can_be_run_and_judged_at_its_gates() -> None:
    for name, one in named("pruning-methods", "smoke").searches.items():
        plan = prepare(replace(one, replicates=1)).plan
        gates = tuple(plan.densities[level] for level in plan.gates)
        assert gates == pytest.approx(one.gates, rel=1e-4), name


def findings(score: Callable[[str, float, str, int], tuple[float, float]]) -> dict[str, Any]:
    """Give what the study's searches would find; ``score`` says test and validation accuracy of a run."""

    def arms(name: str, one: Settings, density: float) -> Mapping[str, Mapping[int, Run]]:
        there = ("ticket", *(one.controls if density in (one.gates or ()) else ()))
        found = {arm: {r: score(name, density, arm, r) for r in range(5)} for arm in there}
        return {
            arm: {r: Run(test, validation_accuracy=val) for r, (test, val) in of.items()} for arm, of in found.items()
        }

    return {
        name: SimpleNamespace(
            about={"data": "mnist"},
            dense={},
            levels=[SimpleNamespace(density=d, arms=arms(name, one, d)) for d in one.densities or ()],
            judgement=SimpleNamespace(replicates=range(5)),
        )
        for name, one in SPEC.searches.items()
    }


def test_every_claim_is_measured_by_what_the_study_trains() -> None:
    found = findings(lambda *_: (0.9, 0.9))
    settled = {claim.name: settle(claim, found) for claim in claims_of(SPEC)}
    assert {one.families for one in settled.values()} == {5}
    # Where all arms are alike, nothing is above anything, and nothing is lost.
    assert {name for name, one in settled.items() if one.verdict is Settled.REPRODUCED} == {
        "renda-rate-rewinding-at-least-weight-rewinding",
        *(
            f"frankle-{criterion}-does-not-mind-{control}"
            for criterion in ("snip", "grasp", "synflow")
            for control in ("shuffle", "reinit")
        ),
    }


ORDER = ("reinit", "shuffle", "random-erk", "small-dense", "at-init", "set", "rigl", "finetune", "obd", "gradual")
"""From the worst to the best as the papers have it, the tickets of the iterative search last."""


def published(search: str, _: float, arm: str, r: int) -> tuple[float, float]:
    """Give accuracies as the papers would have them."""
    if search.startswith("at-init"):
        return 0.5, 0.5
    word = arm if arm != "ticket" else next((one for one in ORDER if search.startswith(one)), "best")
    found = 0.4 + 0.05 * (ORDER.index(word) if word in ORDER else len(ORDER)) + 0.001 * (r % 2)
    return found, found


def test_claims_point_the_way_they_were_published() -> None:
    found = findings(published)
    settled = [settle(claim, found) for claim in claims_of(SPEC)]
    assert [one.claim.name for one in settled if one.verdict is not Settled.REPRODUCED] == []
    turned = findings(lambda *place: (1 - published(*place)[0],) * 2)
    told = {one.claim.name for claim in claims_of(SPEC) if (one := settle(claim, turned)).verdict is Settled.REPRODUCED}
    # Alike stays alike: what may be shuffled, and rewinding with rewinding.
    assert all("does-not-mind" in name or "at-least" in name for name in told)


def test_above_asks_for_more_than_its_least() -> None:
    place, other = ("iterative", 0.05, "ticket"), ("iterative", 0.05, "reinit")
    found = findings(lambda *place: (0.90 if place[2] == "reinit" else 0.899, 0.0))
    assert settle(above("c", "t", "s", place, other), found).verdict is Settled.NOT_REPRODUCED
    assert settle(above("c", "t", "s", place, other, least=-0.2), found).verdict is Settled.REPRODUCED
    assert settle(above("c", "t", "s", place, other), found).measured == pytest.approx(-0.1)


RATES = ("iterative", "rate-third", "rate-triple")


def places(arm: str) -> list[tuple[str, float, str]]:
    return [(search, 0.02, arm) for search in RATES]


def test_each_arm_is_taken_at_the_rate_that_its_validation_likes_best() -> None:
    # Validation likes a third of the rate for the ticket and three times it for reinit; the test would choose others.
    validation = {("rate-third", "ticket"): 0.95, ("rate-triple", "reinit"): 0.94}
    test = {
        ("iterative", "ticket"): 0.99, ("rate-third", "ticket"): 0.91,
        ("iterative", "reinit"): 0.98, ("rate-triple", "reinit"): 0.89,
    }  # fmt: skip
    found = findings(
        lambda search, _, arm, r: (test.get((search, arm), 0.5) + 0.001 * r, validation.get((search, arm), 0.9))
    )
    assert list(points_above_at_best(places("ticket"), places("reinit"))(found)) == pytest.approx([2.0] * 5)


def test_a_rate_is_chosen_by_the_mean_over_families() -> None:
    # The best single family is at a third; the best mean is at the rate itself.
    def score(search: str, _: float, arm: str, r: int) -> tuple[float, float]:
        liked = {"iterative": 0.90, "rate-third": 0.99 if r == 0 else 0.80, "rate-triple": 0.1}[search]
        return (0.7 if search == "iterative" else 0.6) - (0.1 if arm == "reinit" else 0), liked

    found = findings(lambda *place: score(*place) if place[0] in RATES else (0.5, 0.5))
    assert list(points_above_at_best(places("ticket"), [("rate-third", 0.02, "reinit")])(found)) == pytest.approx(
        [20.0] * 5
    )


def test_without_validation_no_rate_is_best() -> None:
    found = findings(lambda *_: (0.9, None))  # type: ignore[arg-type,return-value]
    with pytest.raises(NotMeasured, match="kept no validation"):
        points_above_at_best(places("ticket"), places("reinit"))(found)


@pytest.mark.parametrize(
    ("curve", "kept"), [((0.5, 0.7, 0.6), 0.6), ((0.5, 0.7, math.nan), 0.7), ((math.nan,), None), ((), None)]
)
def test_a_run_keeps_its_last_validation_accuracy(curve: tuple[float, ...], kept: float | None) -> None:
    steps = tuple(range(len(curve)))
    outcome: Any = SimpleNamespace(
        test_accuracy=0.9, test_accuracy_at_early_stop=0.8, early_stop_iteration=1, censored=False,
        curve=Curve(steps=steps, loss=curve, accuracy=curve),
    )  # fmt: skip
    assert run_of(outcome).validation_accuracy == kept


def test_validation_accuracy_is_read_back_from_a_table() -> None:
    runs = (Run(0.9, validation_accuracy=0.91), Run(0.8))
    # A loop of one's own may report per cent.
    levels = (LevelResults(0.2, {"ticket": (Run(0.7, validation_accuracy=97.3), None)}),)
    results = Results((0, 1), tuple((one,) for one in runs), levels)
    assert read_csv(write_csv(results)) == results
    old = "replicate,density,arm,test_accuracy\n0,1,dense,0.9\n0,0.2,ticket,0.9\n"
    assert read_csv(old).dense[0][0].validation_accuracy is None
