"""What a search cost: entries of its runs that add up, and what the clock says kept apart from them."""

import json
from dataclasses import replace
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from own_kit import searched
from small import ITERATIONS, settings

from tombola.search.find import find
from tombola.search.finding import Finding
from tombola.search.ledger import SCORING, Cost, Origin, RunCost
from tombola.search.levels import ATTEMPT
from tombola.search.way import ROUND
from tombola.sparse.kernels.library import missing


def entry(level: int, seconds: float, **changes: Any) -> RunCost:
    arm = "dense" if level == 0 else "ticket"
    made = RunCost(level, level, 0.5**level, arm, 0, 0, "sparse", 100, 6000, 1e9, 1e9 * 0.5**level, seconds)
    return replace(made, **changes)


def cost(*runs: RunCost) -> Cost:
    return Cost(runs, training=100, training_flops=1e9, elapsed=7.0)


def test_the_sums_are_the_definitions() -> None:
    """Three dense runs and tickets at a half and a quarter, one of them with half of the iterations left."""
    found = cost(entry(0, 2.0), entry(0, 2.2), entry(0, 9.0), entry(1, 1.0), entry(2, 0.3, iterations=50, samples=3000,
                 flops_dense=5e8, flops_effective=1.25e8))  # fmt: skip
    assert found.iterations == 450
    assert found.samples == 4 * 6000 + 3000
    assert found.dense_trainings == 4.5
    assert found.flops_dense == 4.5e9
    assert found.dense_trainings_effective == pytest.approx(3 + 0.5 + 0.125)
    # The first run of a process is slow at times: one dense training is the median.
    assert found.dense_training_seconds == pytest.approx(2.2)
    assert found.run_seconds == pytest.approx(14.5)
    assert found.dense_trainings_measured == pytest.approx(14.5 / 2.2)
    assert found.masked_dense_seconds == pytest.approx(4.5 * 2.2)
    # Iteration for iteration: 6 ms against 22 ms.
    assert found.ticket_time == pytest.approx(6 / 22)
    assert found.seconds == 7.0


def test_it_says_what_was_saved_or_that_nothing_was() -> None:
    dense = entry(0, 2.0)
    assert cost(dense, entry(2, 0.5)).saving == "a ticket at 25.0 % trained in 0.25 of the dense network's time"
    slower = cost(dense, entry(1, 2.4)).saving
    assert slower == "no saving: a ticket at 50.0 % trained in 1.20 of the dense network's time"
    masked = cost(replace(dense, engine="plain"), entry(1, 1.9, engine="plain")).saving
    assert masked == "no saving: masks are applied to dense tensors, so a ticket costs what the dense network does"
    sentence = cost(dense, entry(2, 0.5)).sentence
    assert sentence == (
        "Cost: 200 training iterations = 2.0 dense trainings, 1.2 by the operations of surviving weights, 1.2 by the "
        "clock (2 s summed over the runs; masked-dense, an estimated 4 s at the dense runs' own speed); a ticket at "
        "25.0 % trained in 0.25 of the dense network's time; 7 s in all."
    )


def test_what_is_not_known_is_null_and_never_invented() -> None:
    unknown = {"samples": None, "flops_dense": None, "flops_effective": None}
    found = Cost((entry(0, 0.0, **unknown), entry(1, 0.0)), training=100, training_flops=None, elapsed=1.0)
    told = found.as_json()
    assert [key for key, value in told.items() if value is None] == [
        "samples", "flops_dense", "flops_effective", "dense_trainings_effective"]  # fmt: skip
    assert [key for key, value in told["wall"].items() if value is None] == [
        "dense_training_seconds", "dense_trainings", "masked_dense_seconds", "ticket_time", "saving"]  # fmt: skip
    assert found.sentence == "Cost: 200 training iterations = 2.0 dense trainings; 1 s in all."


@pytest.fixture(scope="module")
def finding() -> Finding:
    return find(settings(rate=0.5))


def test_every_run_has_an_entry_and_they_add_up(finding: Finding) -> None:
    """Two families: two dense runs each, then a ticket and two controls at each of two gates."""
    runs, told = finding.cost.runs, finding.as_json()["cost"]
    assert [(run.level, run.arm) for run in runs if run.replicate == 0] == [
        (0, "dense"), (0, "dense"), *((level, arm) for level in (1, 2) for arm in ("ticket", "reinit", "shuffle"))
    ]  # fmt: skip
    assert [run.order for run in runs if run.level == 0] == [0, 1, 0, 1]
    assert {run.engine for run in runs} == {"plain"}
    assert {(run.iterations, run.samples) for run in runs} == {(ITERATIONS, ITERATIONS * 50)}
    assert [run.density for run in runs] == [finding.levels[run.level].density for run in runs]
    weights = [64 * 24, 24 * 10]
    assert {run.flops_dense for run in runs} == {6.0 * sum(weights) * ITERATIONS * 50}
    assert all(run.flops_effective == pytest.approx(run.density * run.flops_dense) for run in runs)
    for key in ("iterations", "samples", "flops_dense", "flops_effective"):
        assert told[key] == pytest.approx(sum(run[key] for run in told["runs"]))
    assert told["wall"]["run_seconds"] == pytest.approx(sum(told["wall"]["runs"]))
    assert len(told["wall"]["runs"]) == len(told["runs"])
    assert "seconds" not in told["runs"][0]
    assert told["wall"]["saving"].startswith("no saving: masks are applied to dense tensors")


def test_the_last_line_of_text_and_of_the_notebook_says_it(finding: Finding) -> None:
    said = " ".join(str(finding).split())
    assert said.endswith(finding.cost.sentence)
    assert "Cost: 384 training iterations = 16.0 dense trainings" in finding._repr_html_()


def test_two_searches_write_the_same_bytes_but_for_the_clock(finding: Finding) -> None:
    both = []
    for one in (finding, find(settings(rate=0.5))):
        told = json.loads(one.encoded(Path("there"))[Path("there/result.json")])
        assert told["cost"].pop("wall")
        both.append(json.dumps(told))
    assert both[0] == both[1]


@pytest.mark.skipif(missing() is not None, reason=f"no sparse engine: {missing()}")
def test_the_sparse_engine_does_not_mask_dense_tensors() -> None:
    found = find(settings(model="lenet-300-100", engine="sparse", controls=(), rounds=1, rate=0.9, replicates=1))
    saving = found.cost.saving
    assert saving is not None
    assert "masks are applied" not in saving
    assert {run.engine for run in found.cost.runs} == {"sparse"}


def test_a_loop_of_ones_own_has_its_iterations_and_its_time() -> None:
    found = searched(controls=[], dense_runs=1)
    told = found.as_json()["cost"]
    assert all(run["samples"] is run["flops_dense"] is run["flops_effective"] is None for run in told["runs"])
    assert told["samples"] is told["flops_dense"] is told["dense_trainings_effective"] is None
    assert {run["engine"] for run in told["runs"]} == {"own"}
    assert all(seconds > 0 for seconds in told["wall"]["runs"])
    assert "operations" not in found.cost.sentence


K = 0.8
"""What a round keeps."""

SIGMA = 0.25
"""Length of a short round as a fraction of T."""


def run(level: int, arm: str = "ticket", iterations: int = 100, **changes: Any) -> RunCost:
    """Give a run at the density of a level, of T = 100 iterations or of as many as are said."""
    flops = 1e9 * K**level * iterations / 100
    return entry(level, 1.0, arm=arm, density=K**level, iterations=iterations, flops_effective=flops, **changes)


def searched_by(*cuts: tuple[int | None, int], making: tuple[RunCost, ...] = (), **changes: Any) -> Cost:
    """Give what a search cost: two dense runs, a ticket at each level that was cut to, and what made its masks."""
    tickets = [run(level) for _, level in cuts]
    dense_needed = changes.pop("dense_needed", {})
    origins = (Origin(0, None), *(Origin(level, source, dense_needed) for source, level in cuts))
    dense = [run(0, "dense"), run(0, "dense", order=1)]
    return Cost((*dense, *tickets, *making), 100, 1e9, 7.0, origins, **changes)


def geometric(first: int, last: int, step: int = 1) -> float:
    return sum(K**level for level in range(first, last, step))


def test_imp_finds_a_mask_by_as_many_trainings_as_it_has_rounds() -> None:
    """Level n takes those of levels 0 to n-1; by surviving weights (1 - k^n) / (1 - k), which is never above five."""
    n = 15
    found = searched_by(*((level - 1, level) for level in range(1, n + 1)))
    for level in range(1, n + 1):
        share = found.finding(level)
        assert (share.iterations, share.dense_trainings) == (100 * level, level)
        assert share.dense_trainings_effective == pytest.approx((1 - K**level) / (1 - K))
    assert found.finding(n).dense_trainings_effective == pytest.approx(4.8, abs=0.05)
    search, verification, controls = found.purposes.values()
    assert (search.iterations, verification.iterations, controls.iterations) == (1500, 200, 0)
    assert verification.dense_trainings_effective == pytest.approx(1 + K**n)


def test_big_cuts_take_as_many_trainings_as_there_are_cuts() -> None:
    """ceil(n / m), and (1 - k^n) / (1 - k^m) by surviving weights where m divides n."""
    for m, n in ((3, 12), (4, 12), (5, 12)):
        levels = [*range(0, n, m), n]
        found = searched_by(*pairwise(levels)).finding(n)
        assert found.dense_trainings == ceil(n / m)
        assert found.dense_trainings_effective == pytest.approx(geometric(0, n, m))
        if n % m == 0:
            assert found.dense_trainings_effective == pytest.approx((1 - K**n) / (1 - K**m))


def test_a_gate_beside_the_trunk_is_not_in_what_the_trunk_took() -> None:
    """Cut from the same dense network, its ticket verifies it and makes no mask."""
    found = searched_by((0, 3), (0, 5), (5, 9))
    assert [found.finding(level).dense_trainings for level in (3, 5, 9)] == [1, 1, 2]
    assert {name: share.dense_trainings for name, share in found.purposes.items()} == {
        "search": 2, "verification": 3, "controls": 0,
    }  # fmt: skip


def test_one_shot_takes_one_training_whatever_the_level() -> None:
    found = searched_by((0, 3), (0, 7), (0, 15))
    for level in (3, 7, 15):
        assert found.finding(level).dense_trainings == found.finding(level).dense_trainings_effective == 1
    assert found.purposes["search"].dense_trainings == 1
    assert found.purposes["verification"].dense_trainings == 1 + 3


def test_short_rounds_take_the_dense_run_and_a_fraction_for_each_level_between() -> None:
    """Rewound or continued, 1 + sigma (n - 1): the first mask is cut from the whole dense run.

    By surviving weights 1 + sigma k (1 - k^(n-1)) / (1 - k).
    """
    n, gate = 12, 7
    rounds = tuple(run(level, ROUND, iterations=25, toward=gate if level < gate else n) for level in range(1, n))
    found = searched_by((0, gate), (gate, n), making=rounds, tickets_make_masks=False)
    for level in (gate, n):
        share = found.finding(level)
        assert share.dense_trainings == 1 + SIGMA * (level - 1)
        assert share.dense_trainings_effective == pytest.approx(1 + SIGMA * K * (1 - K ** (level - 1)) / (1 - K))
    # The tickets at the gates make no mask, so both of them verify.
    assert found.purposes["search"] == found.finding(n)
    assert found.purposes["verification"].dense_trainings == 1 + 2


def test_early_bird_takes_the_dense_run_up_to_where_the_mask_had_settled() -> None:
    """t / T, by surviving weights as well; of several levels the one that settled last."""
    found = searched_by((0, 3), (0, 5), tickets_make_masks=False)
    origins = (Origin(0, None), Origin(3, 0, {0: 12}), Origin(5, 0, {0: 20}))
    found = replace(found, origins=origins)
    assert [found.finding(level).dense_trainings for level in (3, 5)] == [0.12, 0.2]
    assert found.finding(5).dense_trainings_effective == pytest.approx(0.2)
    assert found.purposes["search"].dense_trainings == 0.2
    assert found.purposes["verification"].dense_trainings == pytest.approx(2 - 0.2 + 2), "its rest is compared with"


def test_a_mask_that_is_made_before_training_takes_none() -> None:
    scoring = run(3, SCORING, iterations=0)
    scoring = replace(scoring, flops_effective=2e7, flops_dense=2e7)
    found = searched_by((None, 3), making=(scoring,))
    assert found.finding(3).iterations == 0
    assert found.finding(3).dense_trainings_effective == pytest.approx(0.02)
    assert found.purposes["verification"].dense_trainings == 3


def test_gradual_pruning_that_rewinds_takes_one_training_for_each_level() -> None:
    rounds = tuple(run(level, ROUND) for level in (3, 5))
    found = searched_by((None, 3), (None, 5), making=rounds)
    assert [found.finding(level).dense_trainings for level in (3, 5)] == [1, 1]
    assert [share.dense_trainings for share in found.purposes.values()] == [2, 2 + 2, 0]


def test_attempts_are_search_and_belong_to_the_level_that_came_of_them() -> None:
    """Cut from 4 to 7, given up, and cut to 5 and 6 instead."""
    found = searched_by((0, 4), (4, 5), (5, 6), making=(run(7, ATTEMPT, toward=5),))
    assert [found.finding(level).dense_trainings for level in (4, 5, 6)] == [1, 1 + 1 + 1, 1 + 1 + 1 + 1]
    assert found.finding(5).dense_trainings_effective == pytest.approx(1 + K**4 + K**7)
    assert [share.dense_trainings for share in found.purposes.values()] == [4, 1 + 1, 0]


def test_controls_and_further_dense_runs_find_nothing() -> None:
    controls = tuple(run(level, arm) for level in (1, 2) for arm in ("reinit", "one-shot", "shuffle"))
    found, plain = (searched_by((0, 1), (1, 2), making=made) for made in (controls, ()))
    assert found.finding(2) == plain.finding(2)
    assert found.purposes["controls"].dense_trainings == 6
    assert found.purposes["controls"].dense_trainings_effective == pytest.approx(3 * (K + K**2))
    assert {name: one for name, one in found.purposes.items() if name != "controls"} == {
        name: one for name, one in plain.purposes.items() if name != "controls"
    }


def check_it_adds_up(found: Cost) -> None:
    """Nothing is in two parts, and nothing in none."""
    shares = found.purposes.values()
    assert sum(share.iterations for share in shares) == found.iterations
    assert sum(share.dense_trainings for share in shares) == pytest.approx(found.dense_trainings)
    parts = [share.dense_trainings_effective for share in shares]
    assert sum(part for part in parts if part is not None) == pytest.approx(found.dense_trainings_effective)
    for one in found.origins:
        assert found.finding(one.level).iterations <= found.purposes["search"].iterations


def test_where_operations_are_not_counted_no_share_invents_them() -> None:
    found = Cost((entry(0, 1.0), entry(1, 1.0, flops_effective=None)), 100, 1e9, 1.0, (Origin(0, None), Origin(1, 0)))
    assert found.finding(1).dense_trainings_effective == 1
    assert found.purposes["verification"].dense_trainings_effective is None


LADDER: dict[str, Any] = {
    "rate": 0.2, "rounds": 6, "gates": (0.52, 0.27), "replicates": 2, "dense_runs": 2, "controls": ("shuffle",),
    "allocation": "uniform",
}  # fmt: skip
"""Two families: levels 1 to 6, of which 3 and 6 are gates."""

TAKEN = {
    "imp": (3.0, 6.0),
    "adaptive": None,
    "one-shot": (1.0, 1.0),
    "continued": (1 + 2 * 2 / 24, 1 + 2 * 5 / 24),
    "gradual-rewind": (1.0, 1.0),
    "gem-miner": (1.0, 1.0),
    "at-init": (0.0, 0.0),
}
"""What a mask at either gate takes in each family, in trainings; a round of continued is 2 iterations of 24."""


@pytest.mark.parametrize("strategy", [*TAKEN, "settled", "early-bird"])
def test_what_a_search_spent_is_what_its_formula_says(strategy: str) -> None:
    """Searched in earnest, and counted from the runs that were trained."""
    found = find(settings(strategy=strategy, **LADDER)).cost
    check_it_adds_up(found)
    told = {one["level"]: one["dense_trainings"] for one in found.as_json()["finding"]}
    assert {3, 6} <= told.keys()
    if (taken := TAKEN.get(strategy)) is not None:
        assert (told[3], told[6]) == pytest.approx((2 * taken[0], 2 * taken[1]))
    if strategy == "imp":
        effective = found.finding(6).dense_trainings_effective
        assert effective == pytest.approx(2 * (1 - K**6) / (1 - K), rel=1e-3)
    if strategy == "adaptive":
        tried = [one for one in found.runs if one.arm == ATTEMPT]
        path = {one.level: one.cut_from for one in found.origins}
        between = sum(one.iterations for one in found.runs if one.arm == ROUND and one.toward in (*_way(path, 6), 6))
        full = len(tried) + 2 * (0 if path[6] is None else len(_way(path, 6)))
        assert told[6] == pytest.approx(full + between / 24)
    if strategy in ("settled", "early-bird"):
        needed = {one.level: one.dense_needed for one in found.origins}
        rounds = sum(one.iterations for one in found.runs if one.arm == ROUND)
        dense = [[needed[level].get(r, ITERATIONS) for r in range(2)] for level in (3, 6)]
        assert any(one < ITERATIONS for of in dense for one in of), "some mask settled early"
        assert found.finding(6).iterations == sum(dense[1]) + rounds
        assert (rounds > 0) == (strategy == "settled")
    assert found.purposes["controls"].iterations == 2 * 2 * ITERATIONS


def _way(path: dict[int, int | None], level: int) -> list[int]:
    """Give the levels that a level was cut through."""
    before = path[level]
    return [] if before is None else [*_way(path, before), before]
