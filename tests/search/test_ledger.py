"""What a search cost: entries of its runs that add up, and what the clock says kept apart from them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from own_kit import searched
from small import ITERATIONS, settings

from tombola.search.find import find
from tombola.search.finding import Finding
from tombola.search.ledger import Cost, RunCost
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
