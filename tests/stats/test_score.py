"""Judging by another score than accuracy: the same verdicts in other units."""

import dataclasses
import json
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tombola.cli import main
from tombola.errors import InvalidResults, InvalidValue
from tombola.stats import LevelResults, Results, Run, Scale, Verdict, as_json, judge, read_csv, write_csv
from tombola.stats.judgement import Judgement

Study = Callable[..., Results]
MARGIN = 0.002
LADDER = {0.5: 0.004, 0.2: 0.004, 0.1: 0.003, 0.05: -0.02}
CONTROLS = {"reinit": 0.007, "shuffle": 0.011}
BLEU = Scale("BLEU")


def changed(results: Results, change: Callable[[float], float]) -> Results:
    def one(run: Run | None) -> Run | None:
        if run is None:
            return None
        early = run.test_accuracy_at_early_stop
        return dataclasses.replace(
            run,
            test_accuracy=change(run.test_accuracy),
            test_accuracy_at_early_stop=None if early is None else change(early),
        )

    levels = tuple(
        LevelResults(level.density, {name: tuple(map(one, runs)) for name, runs in level.arms.items()})
        for level in results.levels
    )
    return dataclasses.replace(results, dense=tuple(tuple(map(one, runs)) for runs in results.dense), levels=levels)  # type: ignore[arg-type]


def skeleton(text: str) -> str:
    """A sentence without its numbers and units, the score's name put back."""
    without = re.sub(r"(= |< )?(?<![A-Za-z])[+-]?\d+(\.\d+)?(e[+-]?\d+)?", "#", text)
    return without.replace("# points", "#").replace("BLEU", "accuracy").replace("Accuracy", "accuracy")


def unitless(judgement: Judgement) -> list[object]:
    """Everything in a judgement that has no unit."""
    found: list[object] = [judgement.verdict, judgement.certified, judgement.gates, judgement.not_applicable.keys()]
    for level in judgement.levels:
        found += [level.verdict, level.certified, level.clauses, level.required_replicates, level.speed]
        found += [bool(c and c.sd) for c in (level.budget, level.early)]
        found += [(c.superior, c.equivalent, c.required_replicates) for c in level.controls.values()]
    return found


def p_values(judgement: Judgement) -> list[float]:
    found = []
    for level in judgement.levels:
        for compared in (level.budget, level.early):
            found += [compared.p, compared.p_sign_flip, compared.effect or 0.0] if compared else []
        found += [p for c in level.controls.values() for p in (c.p, c.p_holm, c.p_equivalence)]
    return found


@st.composite
def tables(draw: st.DrawFn) -> Results:
    """Accuracies on a test set of 500, with ties, equal arms and arms without spread."""
    count = draw(st.integers(1, 6))
    early = draw(st.booleans())
    offsets = st.lists(st.integers(-4, 4), min_size=count, max_size=count) | st.integers(-4, 4).map(
        lambda k: [k] * count
    )
    base = draw(st.lists(st.integers(400, 490), min_size=count, max_size=count))

    def runs() -> tuple[Run, ...]:
        shift = draw(st.integers(-3, 3))
        accuracies = [(b + o + shift) / 500 for b, o in zip(base, draw(offsets), strict=True)]
        return tuple(Run(a, a if early else None, 100 if early else None) for a in accuracies)

    dense = list(zip(*(runs() for _ in range(draw(st.integers(1, 2)))), strict=True))
    arms = ["ticket", "reinit", "shuffle"][: draw(st.integers(1, 3))]
    densities = [0.5, 0.2, 0.1][: draw(st.integers(1, 3))]
    return Results(
        tuple(range(count)), tuple(dense), tuple(LevelResults(d, {arm: runs() for arm in arms}) for d in densities)
    )


@settings(deadline=None)  # the first example imports scipy
@given(
    tables(),
    st.floats(-6, 6).map(lambda exponent: 10**exponent),
    st.floats(-1000, 1000),
    st.sampled_from([0.0, 0.002, 0.004, 0.01]),
    st.booleans(),
)
def test_an_affine_map_of_the_score_gives_the_same_judgement(
    results: Results, a: float, b: float, margin: float, lottery: bool
) -> None:
    first = judge(results, margin=margin, bootstrap=0, lottery=lottery)
    # A mean of differences that cancel is said to be ahead or not by its last bit.
    compared = [control for level in first.levels for control in level.controls.values()]
    assume(all(abs(c.mean) > 1e-9 or c.lower == c.upper or c.n == 1 for c in compared))
    mapped = changed(results, lambda x: a * (x + b))
    second = judge(mapped, margin=a * margin, bootstrap=0, lottery=lottery, score=BLEU)
    assert unitless(first) == unitless(second)
    assert p_values(first) == pytest.approx(p_values(second), rel=1e-6, abs=1e-9)
    assert (first.estimate.density or 0.0) == pytest.approx(second.estimate.density or 0.0, rel=1e-6)
    for level, other in zip(first.levels, second.levels, strict=True):
        assert other.budget.mean == pytest.approx(a * level.budget.mean, abs=1e-9 * a)
        assert other.budget.lower == pytest.approx(a * level.budget.lower, abs=1e-9 * a)
        assert other.budget.ticket.mean == pytest.approx(a * (level.budget.ticket.mean + b), rel=1e-9, abs=1e-9 * a)
        assert skeleton(level.sentence) == skeleton(other.sentence)
    assert skeleton(first.sentence) == skeleton(second.sentence)
    assert "accuracy" not in second.sentence + " ".join(second.notes)
    assert "points" not in second.sentence + " ".join(second.notes)


@pytest.mark.parametrize("power", [-900, -40, 0, 40, 900])
def test_a_power_of_two_changes_no_bit(study: Study, power: int) -> None:
    """From 1e-271 to 1e271, interval of the estimate and all."""
    results = study(LADDER, controls=CONTROLS, iterations=(700, 1000))
    unit = 2.0**power
    plain = judge(results, margin=MARGIN, score=BLEU)
    scaled = judge(changed(results, lambda x: unit * x), margin=unit * MARGIN, score=BLEU)
    assert unitless(plain) == unitless(scaled)
    assert p_values(plain) == p_values(scaled)
    assert plain.estimate == scaled.estimate
    assert [level.budget.times(unit) for level in plain.levels] == [level.budget for level in scaled.levels]
    assert plain.verdict is Verdict.WINS
    json.dumps(as_json(scaled), allow_nan=False)


def test_the_sentence_of_another_score(study: Study) -> None:
    """Negative perplexities around -1834.2, ten for a point of accuracy."""
    mapped = changed(study(LADDER, controls=CONTROLS, iterations=(700, 1000)), lambda x: 1000 * (x - 0.97) - 1834.2)
    judgement = judge(mapped, margin=2.0, score=Scale("negative perplexity"))
    budget = next(level for level in judgement.levels if level.density == 0.2).budget
    sentence = judgement.levels[1].sentence
    assert sentence.startswith(
        f"The ticket wins at 20.0 % of the weights: test negative perplexity {budget.mean:+.1f} against dense "
        f"(n = 5, 95 % lower limit {budget.lower:+.1f}, margin 2.0), above reinit by "
    )
    assert sentence.endswith("Certified to 10.0 % by negative perplexity.")
    assert (
        "Certified to 10.0 % by negative perplexity after the same number of iterations, to 10.0 % by negative "
        "perplexity at the early stop and to 5.0 % by speed" in judgement.sentence
    )
    assert judgement.score == as_json(judgement)["score"] == "negative perplexity"
    assert judgement.scale.value(budget.dense.mean) == f"{budget.dense.mean:.1f}"
    assert budget.dense.mean == pytest.approx(-1834.2, abs=2)


def test_notes_on_accuracy_only_are_left_out() -> None:
    tickets = tuple(Run(k / 10) for k in range(340, 352))
    results = Results(tuple(range(12)), ((Run(34.5),),) * 12, (LevelResults(0.5, {"ticket": tickets}),))
    notes = " ".join(judge(results, margin=0.06, score=BLEU).notes)
    assert "percentage" not in notes
    assert "Resolution" not in notes
    equal = Results((0, 1, 2), ((Run(-3.5),),) * 3, (LevelResults(0.5, {"ticket": (Run(-3.5),) * 3}),))
    judgement = judge(equal, margin=0.0, score=BLEU)
    assert judgement.verdict is Verdict.CANNOT_TELL
    assert "is the BLEU fine enough?" in " ".join(judgement.notes)
    assert "asks for better than dense" in " ".join(judgement.notes)


@pytest.mark.parametrize("size", [1e-300, 1e-15, 1e-7, 1.0, 1e15, 1e300])
def test_rounding_is_told_from_spread_at_any_size(size: float) -> None:
    """0.1 + 0.2 is not 0.3 in any unit; a spread of a thousandth is real in every unit."""
    dense = tuple((Run((0.1 + step) * size), Run((0.2 + step) * size)) for step in (0.0, 0.1, 0.3))
    flat = tuple(Run((0.15 + step) * size) for step in (0.0, 0.1, 0.3))
    rough = tuple(Run((0.15 + step) * size) for step in (0.001, 0.1, 0.299))
    results = Results((0, 1, 2), dense, (LevelResults(0.5, {"ticket": flat}), LevelResults(0.2, {"ticket": rough})))
    first, second = judge(results, margin=0.0005 * size, score=BLEU).levels
    assert (first.budget.sd, first.budget.mean, first.verdict) == (0.0, 0.0, Verdict.MATCHES)
    assert second.budget.sd == pytest.approx(0.001 * size, rel=1e-9)
    assert second.verdict is Verdict.CANNOT_TELL


@pytest.mark.parametrize("awful", [-1e20, -1e200, -float(np.finfo(np.float64).max)])
def test_a_run_that_blew_up_to_a_finite_number_does_not_hide_the_spread_of_the_others(awful: float) -> None:
    """Both arms of one family are awful and equal; the others lose clearly more than the margin."""
    dense = tuple((Run(value),) for value in (awful, 1.0, 1.1, 0.9, 1.0))
    ticket = tuple(Run(value) for value in (awful, 0.5, 0.4, 0.5, 0.6))
    judgement = judge(Results(tuple(range(5)), dense, (LevelResults(0.5, {"ticket": ticket}),)), margin=0.1, score=BLEU)
    assert judgement.certified_density is None
    assert judgement.levels[0].budget.mean == pytest.approx(-0.4)
    json.dumps(as_json(judgement), allow_nan=False)
    alone = (ticket[0], *(Run(1.0) for _ in range(4)))
    level = LevelResults(0.5, {"ticket": alone, "reinit": ticket[::-1]})
    judgement = judge(Results(tuple(range(5)), ((Run(1.0),),) * 5, (level,)), margin=0.1, score=BLEU)
    assert judgement.verdict is Verdict.CANNOT_TELL
    assert "nan" not in judgement.sentence
    json.dumps(as_json(judgement), allow_nan=False)


@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_a_mean_on_the_margin_but_for_rounding_is_told_by_no_number_of_replicates(size: float) -> None:
    results = Results((0, 1, 2), ((Run(0.8 * size),),) * 3, (LevelResults(0.5, {"ticket": (Run(0.798 * size),) * 3}),))
    judgement = judge(results, margin=0.002 * size, score=BLEU)
    assert judgement.verdict is Verdict.CANNOT_TELL
    assert judgement.levels[0].required_replicates is None


def test_scores_that_are_all_zero() -> None:
    zero = (Run(0.0),) * 3
    judgement = judge(
        Results((0, 1, 2), ((Run(0.0),),) * 3, (LevelResults(0.5, {"ticket": zero}),)), margin=0, score=BLEU
    )
    assert judgement.verdict is Verdict.CANNOT_TELL
    assert "test BLEU 0 against dense (n = 3, 90 % interval 0 to 0, margin 0)" in judgement.sentence


def test_early_says_why_it_was_not_judged(study: Study) -> None:
    full = study(LADDER, iterations=(700, 1000))
    why = "The training loop reported no validation loss."
    judgement = judge(full, margin=MARGIN, early=why)
    assert judgement.not_applicable == {"early": why}
    assert judgement.certified == {"budget": 0.1, "early": None, "speed": 0.05}
    assert all(level.early is None for level in judgement.levels)
    assert f"Accuracy at the early stop was not judged: {why}" in judgement.sentence
    bare = judge(study(LADDER), margin=MARGIN, score=BLEU)
    assert bare.not_applicable["early"] == "No BLEU at the early-stop iteration was kept."
    assert "BLEU at the early stop was not judged: No BLEU" in bare.sentence


def test_a_nan_at_the_early_stop_is_no_result(study: Study) -> None:
    full = study({0.2: 0.004}, iterations=(700, 1000))
    runs = full.levels[0].arms["ticket"]
    assert runs[0] is not None
    hole = (dataclasses.replace(runs[0], test_accuracy_at_early_stop=math.nan), *runs[1:])
    judgement = judge(
        dataclasses.replace(full, levels=(LevelResults(0.2, {"ticket": hole}),)), margin=MARGIN, score=BLEU
    )
    assert judgement.levels[0].early is None
    assert judgement.replicates == full.replicates


def test_what_is_refused(study: Study) -> None:
    results = study({0.2: 0.004})
    with pytest.raises(InvalidResults, match=r"score \(BLEU\) of inf"):
        judge(changed(results, lambda _: math.inf), margin=0.1, score=BLEU)
    with pytest.raises(InvalidValue, match="finite number of at least 0"):
        judge(results, margin=math.inf, score=BLEU)
    dropped = judge(changed(results, lambda x: math.nan if x == results.dense[0][0].test_accuracy else x), margin=0.1)
    assert len(dropped.dropped) == 1


TABLE = "replicate,density,arm,test_accuracy\n0,1,dense,-18.34e2\n0,0.2,ticket,97.5\n1,1,dense,nan\n1,0.2,ticket,1e-7\n"


def test_a_table_of_another_score() -> None:
    results = read_csv(TABLE, score=BLEU)
    assert results.levels[0].arms["ticket"] == (Run(97.5), Run(1e-7))
    assert results.dense[0] == (Run(-1834.0),)
    with pytest.raises(InvalidResults, match=r"line 2: test_accuracy is -18\.34e2\. An accuracy is a fraction"):
        read_csv(TABLE)
    for cell in ("97.5 %", "inf", "-inf", "1e999", "n/a"):
        with pytest.raises(InvalidResults, match=f"line 3: test_accuracy is '{cell}', which is not a finite number"):
            read_csv(TABLE.replace("97.5", cell), score=BLEU)
    with pytest.raises(InvalidResults, match="score"):
        write_csv(changed(results, lambda _: math.inf), score=BLEU)
    with pytest.raises(InvalidResults, match="accuracy of"):
        write_csv(results)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2))
def test_any_finite_score_survives_the_round_trip(values: list[float]) -> None:
    results = Results((0,), ((Run(values[0], values[1]),),), (LevelResults(0.2, {"ticket": (Run(values[1]),)}),))
    assert read_csv(write_csv(results, score=BLEU), score=BLEU) == results


def test_the_command_judges_another_score(tmp_path, capsys: pytest.CaptureFixture[str], study: Study) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "results.csv"
    mapped = changed(study(LADDER), lambda x: 100 * x - 200)
    path.write_text(write_csv(mapped, score=BLEU))
    assert main(["judge", str(path), "--score", "BLEU", "--margin", "0.2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["score"], found["margin"], found["certified_density"]) == ("BLEU", 0.2, 0.1)
    assert main(["judge", str(path), "--score", "BLEU"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("InvalidValue: there is no margin for BLEU.")
    assert captured.err.count("\n") == 1
    assert main(["judge", str(path)]) == 2
    assert "An accuracy is a fraction" in capsys.readouterr().err
    path.write_text(write_csv(study(LADDER)))
    assert main(["judge", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["score"], found["margin"]) == ("accuracy", 0.005)
