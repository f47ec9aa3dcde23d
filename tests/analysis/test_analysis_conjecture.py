"""The verdict on the conjecture: what it says, and how often it says it of families that seek nothing."""

import json
import math
from functools import cache

import pytest
import torch
from analysis_kit import COUNTS, SHAPES, family, rng, start

from tombola.analysis.conjecture import CORRELATIONAL, Conjecture, Verdict, conjecture
from tombola.analysis.excess import Excess, excesses
from tombola.analysis.family import Observed, one_shot_masks
from tombola.analysis.measurement import MEANINGS, Measurement, Outcome, measure
from tombola.analysis.overlap import agreement
from tombola.analysis.signs import flips
from tombola.analysis.survival import survival
from tombola.errors import ImpossibleDensity, InvalidValue
from tombola.prune.structure import Group, Slice
from tombola.types import Params, Seed

FAMILIES, DRAWN, REPEATS = 4, 3, 200

LARGEST = 19
"""Rejections allowed of 200 at .05: a binomial count exceeds it with probability .003."""

INPUTS = torch.randn(64, 40, generator=rng(5))
LABELS = torch.randint(12, (64,), generator=rng(6))


def evaluate(params: Params) -> float:
    """A network of two layers on inputs and labels that have nothing to do with each other."""
    hidden = torch.relu(INPUTS @ params["fc1.weight"].float().T)
    return float(((hidden @ params["fc2.weight"].float().T).argmax(1) == LABELS).double().mean())


def judged(seed: int, seeking: float = 0.0) -> Conjecture:
    families = [family(replicate, seed, seeking=seeking) for replicate in range(FAMILIES)]
    arms = torch.randn(2, FAMILIES, generator=rng(seed)) * 0.002 + 0.97 + torch.tensor([[2 * seeking], [0.0]]) / 100
    gaps = {replicate: float(arms[0, replicate] - arms[1, replicate]) for replicate in range(FAMILIES)}
    return conjecture(
        families, COUNTS, seed=Seed(seed), draws=DRAWN, evaluate=evaluate, reinit_gaps=gaps
    )  # fmt: skip


@cache
def without_seeking() -> list[Conjecture]:
    return [judged(seed) for seed in range(REPEATS)]


@pytest.mark.parametrize("name", ["survival", "signs", "overlap", "supermask", "reinit"])
def test_each_measurement_keeps_its_error_rate_where_nothing_seeks(name: str) -> None:
    found = [one.measurements[name] for one in without_seeking()]
    assert all(one.outcome is not Outcome.NOT_MEASURED for one in found)
    for outcome in (Outcome.SUPPORTS, Outcome.CONTRADICTS):
        assert sum(one.outcome is outcome for one in found) <= LARGEST, outcome
    means = torch.tensor([one.mean for one in found], dtype=torch.float64)
    assert abs(float(means.mean())) < 3.5 * float(means.std()) / math.sqrt(REPEATS), "its expectation is 0"


def test_the_whole_is_not_supported_where_nothing_seeks() -> None:
    verdicts = [one.verdict for one in without_seeking()]
    assert sum(verdict is Verdict.SUPPORTED for verdict in verdicts) <= 0.05 * REPEATS
    assert sum(verdict is Verdict.CONTRADICTED for verdict in verdicts) <= LARGEST


def test_without_the_null_everything_would_look_sought() -> None:
    """Large initial weights survive, keep their signs and agree in families that seek nothing at all."""
    for name, chance in (("survival", 0.5), ("overlap", 0.0)):
        real = [value for one in without_seeking() for value in one.measurements[name].real]
        assert min(real) > chance
    assert max(value for one in without_seeking() for value in one.measurements["signs"].real) < 0


def test_it_is_supported_where_large_weights_are_sought_out() -> None:
    found = judged(3, seeking=0.5)
    for name in ("survival", "signs", "overlap"):
        assert found.measurements[name].outcome is Outcome.SUPPORTS, found.measurements[name].sentence
    alone = [family(replicate, 3, seeking=0.5) for replicate in range(FAMILIES)]
    panel = conjecture(alone, COUNTS, seed=Seed(0), draws=DRAWN)
    assert panel.verdict is Verdict.SUPPORTED
    assert panel.failed == ()
    assert panel.sentence.startswith("That SGD seeks out and trains a well-initialised subset is supported. Survival:")
    assert panel.sentence.endswith(CORRELATIONAL)
    assert "Supermask: not measured: there is nothing to evaluate a mask with." in panel.sentence


def test_the_numbers_are_those_of_the_measurements_themselves() -> None:
    one = family(2, 7)
    found = excesses(one, COUNTS, seed=Seed(0), draws=2)
    masks = [one_shot_masks(end, COUNTS) for end in one.ends]
    expected = {
        "survival": {n: s.auc for n, s in survival(one.theta_0, masks[0]).items()},
        "signs": {n: f.log_odds_ratio for n, f in flips(one.theta_0, one.ends[0], masks[0]).items()},
        "overlap": {n: a.log_ratio for n, a in agreement(*masks).items()},
    }
    for name, layers in expected.items():
        assert {layer: pair[0] for layer, pair in found[name].layers.items()} == pytest.approx(layers)
        assert found[name].real == pytest.approx(sum(layers.values()) / 2), "layers weigh the same"
    for name, sign in (("survival", 1), ("signs", -1), ("overlap", 1)):
        assert found[name].excess == pytest.approx(sign * (found[name].real - found[name].null))


def test_the_null_permutes_the_two_runs_independently() -> None:
    """Two runs that end alike share all of their masks, and their nulls do not."""
    one = family(0, 1, runs=1, seeking=0.5)
    found = excesses(Observed(0, one.theta_0, one.ends * 2, one.prunable), COUNTS, seed=Seed(0), draws=1)["overlap"]
    for real, null in found.layers.values():
        assert null < real - 0.05


def test_more_draws_or_families_leave_the_others_as_they_are() -> None:
    families = [family(replicate, 1) for replicate in range(4)]
    fewer = conjecture(families[:3], COUNTS, seed=Seed(0), draws=2)
    more = conjecture(families, COUNTS, seed=Seed(0), draws=2)
    for name in ("survival", "signs", "overlap"):
        assert more.measurements[name].excess[:3] == fewer.measurements[name].excess
    again = conjecture(families[::-1], COUNTS, seed=Seed(0), draws=2)
    assert again.measurements["survival"].excess == more.measurements["survival"].excess[::-1]


def test_what_is_missing_is_said_and_nothing_is_supported_without_it() -> None:
    families = [family(replicate, 3, runs=1, seeking=0.5) for replicate in range(4)]
    found = conjecture(families, COUNTS, seed=Seed(0), draws=2)
    assert found.measurements["overlap"].outcome is Outcome.NOT_MEASURED
    assert found.measurements["overlap"].sentence.endswith("no family has a second dense run with another data order.")
    assert found.verdict is Verdict.CANNOT_TELL
    assert "cannot be told: overlap would have to be measured on at least 3 families." in found.sentence


def test_two_families_cannot_tell() -> None:
    found = conjecture([family(r, 3, seeking=0.5) for r in range(2)], COUNTS, seed=Seed(0), draws=2)
    assert found.verdict is Verdict.CANNOT_TELL
    assert found.measurements["survival"].p is None
    assert "fewer than 3 families cannot tell" in found.measurements["survival"].sentence
    one = conjecture([family(0, 3)], COUNTS, seed=Seed(0), draws=2)
    assert (one.measurements["survival"].low, one.between) == (None, None)


def excess(*values: float) -> dict[int, Excess]:
    return {replicate: Excess(value, 0.0, value, {}) for replicate, value in enumerate(values)}


def test_a_measurement_is_a_t_test_over_families() -> None:
    """Against the tables: t = mean / (sd / sqrt(3)), two-sided 95 % quantile 4.3027 at 2 degrees of freedom."""
    found = measure("survival", excess(1.0, 2.0, 3.0))
    assert found.mean == 2
    assert found.low == pytest.approx(2 - 4.302653 / math.sqrt(3))
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3))
    assert found.p == pytest.approx(0.03708995)
    assert found.outcome is Outcome.SUPPORTS
    assert measure("survival", excess(-1.0, -2.0, -3.0)).outcome is Outcome.CONTRADICTS
    assert measure("survival", excess(-1.0, 2.0, 0.5)).outcome is Outcome.CHANCE
    assert measure("survival", excess(1.0, 1.0)).outcome is Outcome.CANNOT_TELL


def test_opposite_evidence_contradicts_and_is_named() -> None:
    families = [family(replicate, 1) for replicate in range(4)]
    gaps = {0: -0.010, 1: -0.011, 2: -0.012, 3: -0.010}
    found = conjecture(families, COUNTS, seed=Seed(0), draws=2, reinit_gaps=gaps)
    assert found.verdict is Verdict.CONTRADICTED
    assert found.measurements["reinit"].outcome is Outcome.CONTRADICTS
    assert "reinit" in found.failed
    assert found.sentence.startswith(
        "That SGD seeks out and trains a well-initialised subset is contradicted by reinit."
    )


def test_masks_of_two_initialisations_are_reported_raw_and_aligned() -> None:
    """A second family that is the first with its units in another order shares all once they are aligned."""
    first, order = family(0, 1), torch.randperm(24, generator=rng(0))

    def turned(params: Params) -> dict[str, torch.Tensor]:
        return {"fc1.weight": params["fc1.weight"][order], "fc2.weight": params["fc2.weight"][:, order]}

    second = Observed(1, turned(first.theta_0), tuple(map(turned, first.ends)), tuple(SHAPES))
    units = (Group("fc1", 24, (Slice("fc1.weight", 0), Slice("fc2.weight", 1))),)
    found = conjecture([first, second], COUNTS, seed=Seed(0), draws=1, groups=units).between
    assert found is not None
    assert found.aligned is not None
    assert found.pairs == 1
    assert found.raw < 1.5
    assert found.layers["fc1.weight"][1] > 3
    assert found.layers["fc2.weight"][1] > 3


def test_it_becomes_plain_values() -> None:
    found = conjecture([family(r, 1) for r in range(3)], COUNTS, seed=Seed(0), draws=1).as_json()
    assert json.loads(json.dumps(found)) == found
    assert found["verdict"] in {one.value for one in Verdict}
    assert found["measurements"]["survival"]["layers"].keys() == COUNTS.keys()
    assert found["measurements"]["reinit"]["outcome"] == "not measured"
    assert set(found["measurements"]) | {"intervention"} == set(MEANINGS)


def test_wrong_calls_are_refused() -> None:
    one = family(0, 1)
    with pytest.raises(InvalidValue, match="there is no family"):
        conjecture([], COUNTS, seed=Seed(0))
    with pytest.raises(InvalidValue, match="two families have the replicate number 0"):
        conjecture([one, one], COUNTS, seed=Seed(0))
    with pytest.raises(InvalidValue, match="a reinit gap for family 7"):
        conjecture([one], COUNTS, seed=Seed(0), reinit_gaps={7: 0.0})
    with pytest.raises(InvalidValue, match="0 draws of the null"):
        conjecture([one], COUNTS, seed=Seed(0), draws=0)
    with pytest.raises(InvalidValue, match="counts are given for v"):
        conjecture([one], {"v": 1}, seed=Seed(0))
    flat = Observed(0, {"b": torch.ones(3)}, ({"b": torch.ones(3)},), ("b",))
    with pytest.raises(InvalidValue, match="the null needs a tensor of outputs and inputs"):
        conjecture([flat], {"b": 1}, seed=Seed(0))
    with pytest.raises(ImpossibleDensity):
        conjecture([one], {"fc1.weight": 10_000}, seed=Seed(0))


def test_a_layer_that_is_kept_whole_is_left_out() -> None:
    whole = {"fc1.weight": 200, "fc2.weight": 12 * 24}
    found = excesses(family(0, 1), whole, seed=Seed(0), draws=1)
    assert list(found["survival"].layers) == ["fc1.weight"]
    assert "signs" not in excesses(family(0, 1), {"fc2.weight": 12 * 24}, seed=Seed(0), draws=1)


def test_every_outcome_and_verdict_has_been_seen() -> None:
    seen = {one.outcome for panel in without_seeking() for one in panel.measurements.values()}
    assert seen >= {Outcome.CHANCE, Outcome.SUPPORTS, Outcome.CONTRADICTS}
    assert {one.verdict for one in without_seeking()} >= {Verdict.NOT_SUPPORTED}
    assert all(one.sentence for one in Verdict)
    assert isinstance(measure("reinit", {}, without="no control"), Measurement)
    assert start(1).keys() == SHAPES.keys()
