"""The judge on studies whose answer is known."""

import dataclasses
import json
import math
import re
from collections.abc import Callable

import numpy as np
import pytest

from tombola.errors import InvalidResults, InvalidValue
from tombola.stats import LevelResults, Results, Run, Verdict, as_json, judge, required_replicates
from tombola.stats.judgement import Judgement

Study = Callable[..., Results]
MARGIN = 0.002
LADDER = {0.5: 0.004, 0.2: 0.004, 0.1: 0.003, 0.05: -0.02}
CONTROLS = {"reinit": 0.007, "shuffle": 0.011}


def at(judgement: Judgement, density: float):  # type: ignore[no-untyped-def]
    return next(level for level in judgement.levels if level.density == density)


def replicates_of(*differences: float, density: float = 0.5) -> Results:
    """One level, one dense run each, with exactly these differences."""
    count = len(differences)
    level = LevelResults(density, {"ticket": tuple(Run(0.9 + d) for d in differences)})
    return Results(tuple(range(count)), ((Run(0.9),),) * count, (level,))


def test_a_ticket_that_wins_down_to_ten_percent(study: Study) -> None:
    judgement = judge(study(LADDER, controls=CONTROLS, iterations=(700, 1000)), margin=MARGIN)
    assert [level.verdict for level in judgement.levels] == [Verdict.WINS] * 3 + [Verdict.LOSES]
    assert judgement.certified == {"budget": 0.1, "early": 0.1, "speed": 0.05}
    assert judgement.certified_density == 0.1
    assert judgement.verdict is Verdict.WINS
    assert judgement.gates == (0.5, 0.2, 0.1, 0.05)
    assert [level.certified for level in judgement.levels] == [True, True, True, False]
    assert judgement.dense_runs == (3,) * 5
    estimate = judgement.estimate
    assert estimate.density is not None
    assert estimate.low is not None
    assert estimate.high is not None
    assert 0.05 < estimate.low < estimate.density < estimate.high < 0.1


def test_the_sentence_has_the_numbers_of_the_tests(study: Study) -> None:
    judgement = judge(study(LADDER, controls=CONTROLS, iterations=(700, 1000)), margin=MARGIN)
    level = at(judgement, 0.2)
    budget, reinit, shuffle = level.budget, level.controls["reinit"], level.controls["shuffle"]
    pattern = (
        r"The ticket wins at 20\.0 % of the weights: test accuracy \+(\S+) points against dense "
        r"\(n = 5, 95 % lower limit \+(\S+), margin 0\.20\), "
        r"above reinit by (\S+) \(Holm p = (\S+)\) and shuffle by (\S+) \(p = (\S+)\)\. "
        r"Certified to 10\.0 % by accuracy\."
    )
    found = re.fullmatch(pattern, level.sentence)
    assert found, level.sentence
    numbers = [float(text) for text in found.groups()]
    expected = [100 * budget.mean, 100 * budget.lower, 100 * reinit.mean, reinit.p_holm]
    expected += [100 * shuffle.mean, shuffle.p_holm]
    assert numbers == pytest.approx(expected, rel=0.35, abs=0.0051)
    assert judgement.sentence.startswith("The ticket wins at 10.0 % of the weights")
    assert (
        "Certified to 10.0 % by accuracy after the same number of iterations, to 10.0 % by accuracy at the early stop "
        "and to 5.0 % by speed (gates 50.0 %, 20.0 %, 10.0 %, 5.0 %, each claim tested by itself)."
        in judgement.sentence
    )
    assert "Estimate, not a guarantee" in judgement.sentence


def test_every_verdict_is_produced(study: Study) -> None:
    def verdict(gap: float, controls: dict[str, float] | None = None, **settings: object) -> Verdict:
        return judge(study({0.2: gap}, controls=controls, **settings), margin=MARGIN, bootstrap=0).verdict

    seen = {
        verdict(0.004, CONTROLS): Verdict.WINS,
        verdict(0.004, {"reinit": 0.0, "shuffle": 0.011}, sd=0.0003): Verdict.MATCHES_NO_EFFECT,
        verdict(0.004): Verdict.MATCHES,
        verdict(-0.01, CONTROLS): Verdict.LOSES,
        verdict(-0.002): Verdict.CANNOT_TELL,
        judge(study({0.2: 0.004}), margin=MARGIN, bootstrap=0).levels[0].clauses["speed"]: Verdict.NOT_APPLICABLE,
    }
    assert set(seen) == set(Verdict)
    assert all(found is expected for found, expected in seen.items())
    for member in Verdict:
        assert "{density}" in member.sentence


def test_winning_needs_every_control() -> None:
    ticket, shuffle = (Run(0.975),) * 5, (Run(0.955),) * 5
    reinit = tuple(Run(0.9735 - step) for step in (-0.003, -0.001, 0.0, 0.001, 0.003))
    arms = {"ticket": ticket, "reinit": reinit, "shuffle": shuffle}
    level = judge(Results(tuple(range(5)), ((Run(0.97),),) * 5, (LevelResults(0.2, arms),)), margin=MARGIN).levels[0]
    assert level.controls["shuffle"].superior
    assert level.verdict is Verdict.MATCHES
    assert (
        "Whether there is a lottery effect cannot be told: the ticket is shown neither better than reinit "
        "(+0.15 points, Holm p = 0.1, 20 replicates would show it if real) nor equal to it." in level.sentence
    )
    assert level.controls["reinit"].required_replicates == required_replicates(0.0015, 5e-6**0.5, 0.0, alpha=0.025)
    assert "shuffle" not in level.sentence


def test_holm_can_take_a_win_away() -> None:
    """p = 0.03 against each of two controls: enough for one of them alone, not for both."""
    steps = np.array([-0.002, -0.001, 0.0, 0.001, 0.002])
    shift = next(s for s in np.arange(0, 0.01, 1e-5) if judge_one(steps + s) < 0.03)
    control = tuple(Run(0.91 - float(d)) for d in steps + shift)
    ticket = (Run(0.91),) * 5
    both = LevelResults(0.5, {"ticket": ticket, "a": control, "b": control})
    one = LevelResults(0.5, {"ticket": ticket, "a": control})
    dense = ((Run(0.91),),) * 5
    verdicts = [judge(Results(tuple(range(5)), dense, (level,)), margin=MARGIN).verdict for level in (one, both)]
    assert verdicts == [Verdict.WINS, Verdict.MATCHES]


def judge_one(difference: np.ndarray) -> float:
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(difference, 0, alternative="greater").pvalue)


def test_no_effect_names_the_equal_control(study: Study) -> None:
    level = judge(study({0.2: 0.004}, controls={"reinit": 0.0, "shuffle": 0.01}, sd=3e-4), margin=MARGIN).levels[0]
    assert "matches dense at 20.0 % of the weights but shows no lottery effect" in level.sentence
    assert "It is within 0.20 points, either way, of reinit (" in level.sentence
    assert "shuffle" not in level.sentence


def test_without_initial_values_nothing_is_claimed_about_them(study: Study) -> None:
    for controls in (CONTROLS, {"reinit": 0.0}, None):
        judgement = judge(study(LADDER, controls=controls), margin=MARGIN, lottery=False)
        assert judgement.verdict is Verdict.MATCHES
        assert "nothing is claimed about initial values" in judgement.sentence
        assert "wins" not in judgement.sentence
    assert set(judge(study(LADDER, controls=CONTROLS), margin=MARGIN, lottery=False).levels[0].controls) == set(
        CONTROLS
    )


def test_without_controls_the_best_is_matches(study: Study) -> None:
    judgement = judge(study(LADDER), margin=MARGIN)
    assert {level.verdict for level in judgement.levels} == {Verdict.MATCHES, Verdict.LOSES}
    assert "No control was run at this level" in judgement.sentence


@pytest.mark.parametrize("count", [1, 2])
def test_below_three_replicates_nothing_is_told(count: int) -> None:
    for gap in (0.05, -0.05):
        judgement = judge(replicates_of(*[gap + 1e-4 * r for r in range(count)]), margin=MARGIN)
        level = judgement.levels[0]
        assert judgement.verdict is Verdict.CANNOT_TELL
        assert judgement.certified == {"budget": None, "early": None, "speed": None}
        assert level.required_replicates == 3
        assert "a verdict needs at least 3 replicates" in judgement.sentence
        json.dumps(as_json(judgement), allow_nan=False)


def test_cannot_tell_says_how_many_would() -> None:
    for differences in ([-0.003, 0.0005, -0.001, 0.001, -0.0035], [-0.006, -0.001, -0.003, -0.0015, -0.0025]):
        level = judge(replicates_of(*differences), margin=MARGIN, bootstrap=0).levels[0]
        sd, mean = float(np.std(differences, ddof=1)), float(np.mean(differences))
        needed = required_replicates(abs(mean + MARGIN), sd, 0.0)
        assert level.verdict is Verdict.CANNOT_TELL
        assert level.required_replicates == needed
        assert needed is not None
        assert needed > 5
        assert f"{needed} replicates would tell with power 0.8" in level.sentence
        assert re.search(r"90 % interval -\d\.\d\d to [+-]\d\.\d\d", level.sentence)


def test_more_than_a_thousand() -> None:
    level = judge(replicates_of(-0.001, -0.002, -0.003), margin=MARGIN).levels[0]
    assert (level.verdict, level.required_replicates) == (Verdict.CANNOT_TELL, None)
    assert "more than 1000 replicates would tell" in level.sentence


def test_identical_arms_match_and_have_no_nan() -> None:
    runs = tuple(Run(0.97, 0.97, 1000) for _ in range(5))
    level = LevelResults(0.3, {"ticket": runs, "reinit": runs})
    judgement = judge(Results(tuple(range(5)), tuple((run,) * 3 for run in runs), (level,)), margin=MARGIN)
    found = judgement.levels[0]
    assert found.verdict is Verdict.MATCHES_NO_EFFECT
    assert (found.budget.mean, found.budget.sd, found.budget.p, found.budget.effect) == (0.0, 0.0, 0.0, None)
    assert found.speed is not None
    assert (found.speed.ratio, found.speed.sd, found.speed.not_slower) == (1.0, 0.0, True)
    assert judgement.certified == {"budget": 0.3, "early": 0.3, "speed": 0.3}
    assert any("all differences are equal" in note for note in judgement.notes)
    text = json.dumps(as_json(judgement), allow_nan=False)
    assert "NaN" not in text
    assert "nan" not in judgement.sentence


@pytest.mark.parametrize(
    ("value", "margin", "expected"),
    [
        (0.0, 0.0, Verdict.CANNOT_TELL),  # Equal is not better.
        (-0.002, 0.002, Verdict.CANNOT_TELL),
        (-0.0019, 0.002, Verdict.MATCHES),
        (-0.0021, 0.002, Verdict.LOSES),
    ],
)
def test_without_spread_the_mean_decides(value: float, margin: float, expected: Verdict) -> None:
    assert judge(replicates_of(*[value] * 5), margin=margin, bootstrap=0).verdict is expected


def permuted(results: Results, order: list[int]) -> Results:
    levels = tuple(
        LevelResults(level.density, {name: tuple(runs[i] for i in order) for name, runs in level.arms.items()})
        for level in results.levels
    )
    return Results(tuple(results.replicates[i] for i in order), tuple(results.dense[i] for i in order), levels)


def shifted(results: Results, constant: float) -> Results:
    def move(run: Run | None) -> Run | None:
        return run and dataclasses.replace(run, test_accuracy=run.test_accuracy + constant)

    levels = tuple(
        LevelResults(level.density, {name: tuple(map(move, runs)) for name, runs in level.arms.items()})
        for level in results.levels
    )
    return dataclasses.replace(results, dense=tuple(tuple(map(move, runs)) for runs in results.dense), levels=levels)


def rounded(judgement: Judgement, *without: str) -> object:
    plain = {key: value for key, value in as_json(judgement).items() if key not in without}
    return json.loads(json.dumps(plain), parse_float=lambda text: round(float(text), 9))


def without_means(judgement: Judgement) -> object:
    plain = rounded(judgement)
    for level in plain["levels"]:  # type: ignore[index]
        for comparison in (level["budget"], *level["controls"].values()):
            for arm in ("ticket", "dense", "control"):
                comparison.pop(arm, None)
    return plain


def test_the_order_of_replicates_does_not_matter(study: Study) -> None:
    results = study(LADDER, controls=CONTROLS, iterations=(1000, 1000), sd=0.002)
    again = permuted(results, [3, 0, 4, 1, 2])
    first, second = judge(results, margin=MARGIN), judge(again, margin=MARGIN)
    assert rounded(first, "replicates") == rounded(second, "replicates")


def test_a_constant_added_to_every_arm_does_not_matter(study: Study) -> None:
    results = study(LADDER, controls=CONTROLS, sd=0.002)
    assert without_means(judge(shifted(results, -0.3), margin=MARGIN)) == without_means(judge(results, margin=MARGIN))


def test_pairing_is_used() -> None:
    """Families differ by 10 points, the ticket from its own family by hardly anything."""
    dense = (0.80, 0.85, 0.90, 0.88, 0.83)
    level = LevelResults(
        0.5, {"ticket": tuple(Run(a + d) for a, d in zip(dense, (0, 1e-4, -1e-4, 0, 1e-4), strict=True))}
    )
    judgement = judge(Results(tuple(range(5)), tuple((Run(a),) for a in dense), (level,)), margin=MARGIN)
    assert judgement.verdict is Verdict.MATCHES


def test_the_mean_of_the_dense_runs_is_the_reference() -> None:
    runs = tuple((Run(0.90 + r / 1000), Run(0.92 + r / 1000), Run(0.94 + r / 1000)) for r in range(4))
    level = LevelResults(0.5, {"ticket": tuple(Run(0.93 + r / 1000) for r in range(4))})
    budget = judge(Results((0, 1, 2, 3), runs, (level,)), margin=MARGIN).levels[0].budget
    assert budget.mean == pytest.approx(0.01)
    assert budget.dense.mean == pytest.approx(0.9215)


def test_each_level_has_its_own_spread(study: Study) -> None:
    quiet, loud = study({0.5: 0.0}, sd=1e-4), study({0.2: 0.0}, sd=0.005, seed=3)
    arms = {"ticket": tuple(Run(a.test_accuracy) for a in loud.levels[0].arms["ticket"] if a)}
    both = Results(quiet.replicates, quiet.dense, (quiet.levels[0], LevelResults(0.2, arms)))
    alone = Results(quiet.replicates, quiet.dense, (quiet.levels[0],))
    assert judge(both, margin=MARGIN).levels[0].budget == judge(alone, margin=MARGIN).levels[0].budget


def test_the_certificate_goes_from_dense_to_sparse_and_stops_at_the_first_failure(study: Study) -> None:
    gaps = {0.5: 0.004, 0.2: -0.003, 0.1: 0.004}
    judgement = judge(study(gaps, controls=CONTROLS), margin=MARGIN)
    assert judgement.certified["budget"] == 0.5
    last = at(judgement, 0.1)
    assert (last.verdict, last.gate, last.certified) == (Verdict.WINS, True, False)
    assert last.sentence.endswith("Not certified; the certificate ends at 50.0 %.")


def test_without_a_certificate_the_first_gate_speaks(study: Study) -> None:
    judgement = judge(study({0.5: -0.02, 0.2: 0.004}), margin=MARGIN)
    assert judgement.certified_density is None
    assert judgement.verdict is Verdict.LOSES
    assert "No density is certified by accuracy after the same number of iterations (" in judgement.sentence


def test_only_gates_are_certified(study: Study) -> None:
    judgement = judge(study(LADDER, controls=CONTROLS), margin=MARGIN, gates=[0.1, 0.5])
    assert judgement.gates == (0.5, 0.1)
    middle = at(judgement, 0.2)
    assert (middle.gate, middle.certified, middle.verdict) == (False, False, Verdict.WINS)
    assert middle.sentence.endswith("Not a gate, so not certified.")
    with pytest.raises(InvalidValue, match=r"no level of density 0\.3 .* 0\.5, 0\.2, 0\.1, 0\.05"):
        judge(study(LADDER), margin=MARGIN, gates=[0.3])


def test_incomplete_replicates_are_left_out_with_a_sentence(study: Study) -> None:
    results = study(LADDER, replicates=6)
    ticket = (None, *results.levels[3].arms["ticket"][1:])
    levels = (*results.levels[:3], LevelResults(0.05, {"ticket": ticket}))
    judgement = judge(dataclasses.replace(results, levels=levels), margin=MARGIN)
    assert judgement.replicates == (1, 2, 3, 4, 5)
    assert judgement.dropped[0].startswith("Replicate 0 is left out at every level")
    assert "1 replicate left out for want of a result." in judgement.sentence
    with pytest.raises(InvalidResults, match=r"no replicate has a result in every cell\. Replicate 0 is left out"):
        judge(dataclasses.replace(results, dense=((),) * 6), margin=MARGIN)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": 1.0}, r"the margin is 1\. It is a fraction .* 0\.01 for 1 point\."),
        ({"margin": 0.6}, "between 0 and 0.5"),
        ({"margin": -0.1}, "the margin is -0.1"),
        ({"margin": math.nan}, "the margin is nan"),
        ({"margin": 0.01, "alpha": 0.5}, "alpha is 0.5"),
        ({"margin": 0.01, "alpha": 0.0}, "alpha is 0"),
        ({"margin": 0.01, "eta": -0.1}, "eta is -0.1"),
        ({"margin": 0.01, "bootstrap": -1}, "bootstrap is -1"),
        ({"margin": 0.01, "gates": []}, "gates is empty"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        judge(replicates_of(0.0, 0.001, -0.001), **settings)  # type: ignore[arg-type]


def test_notes(study: Study) -> None:
    notes = " ".join(judge(study(LADDER, replicates=3, dense=1), margin=0.0).notes)
    assert "Exploratory: 3 replicates" in notes
    assert "cannot fall below 0.125" in notes
    assert "single dense run" in notes
    assert "a ticket exactly as good as dense passes one gate with probability 0.05" in notes
    assert "A margin of 0 asks for better than dense" in notes
    assert "every claim is conditional on it" in notes
    assert "Exploratory" not in " ".join(judge(study(LADDER), margin=MARGIN).notes)
    assert "meant as a percentage" in " ".join(judge(study(LADDER), margin=0.2).notes)


def test_a_margin_finer_than_the_test_set_is_noted() -> None:
    """A test set of 360 images has steps of 0.28 points."""
    tickets = tuple(Run(k / 360) for k in range(340, 352))
    level = LevelResults(0.5, {"ticket": tickets})
    results = Results(tuple(range(12)), ((Run(345 / 360),),) * 12, (level,))
    assert any("steps of 0.28 points" in note for note in judge(results, margin=MARGIN).notes)
    assert not any("Resolution" in note for note in judge(results, margin=0.01).notes)


def test_json_has_plain_types_and_the_promised_keys(study: Study) -> None:
    plain = as_json(judge(study(LADDER, controls=CONTROLS, replicates=5), margin=MARGIN))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    promised = {"certified_density", "certified", "levels", "sentence", "margin", "alpha", "gates", "replicates"}
    assert promised <= set(plain)
    levels = plain["levels"]
    assert isinstance(levels, list)
    assert {"density", "gate", "verdict", "certified", "sentence", "budget", "controls"} <= set(levels[0])
    assert levels[0]["verdict"] == "wins"
    assert levels[0]["speed"] is None


def test_the_same_seed_gives_the_same_judgement(study: Study) -> None:
    results = study(LADDER, replicates=22)
    assert judge(results, margin=MARGIN, seed=3) == judge(results, margin=MARGIN, seed=3)
