"""A ranking is an order of means with paired differences and a cost; every number here is worked out by hand."""

import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tombola.cli import main
from tombola.errors import InvalidResults, InvalidValue, UnknownName
from tombola.study.finished import finished
from tombola.study.ranking import Ranking, Standing, cost, densities, rankings

T3 = 4.302652729911275
"""The 97.5 % quantile of Student's t with two degrees of freedom."""

Arms = Mapping[str, Sequence[float | None]]


def result(
    levels: Mapping[float, Arms], families: Sequence[int] = (0, 1, 2), strategy: str = "imp", **about: Any
) -> dict[str, Any]:
    """Give what a search writes: a dense training costs 100, and one at a level 100 times its density."""
    dense = {"level": 0, "density": 1.0, "gate": False, "arms": {"ticket": {"test_accuracy": [0.9] * len(families)}}}
    found = [
        {
            "level": number,
            "density": density,
            "gate": True,
            "arms": {name: {"test_accuracy": list(values)} for name, values in arms.items()},
        }
        for number, (density, arms) in enumerate(levels.items(), 1)
    ]
    runs = [
        {"level": 0, "arm": "dense", "replicate": r, "order": order, "flops_effective": 100.0}
        for r in families
        for order in (0, 1)
    ]
    for level in found:
        runs += [
            {
                "level": level["level"],
                "arm": name,
                "replicate": r,
                "order": 0,
                "flops_effective": 100.0 * level["density"],
            }
            for name in level["arms"]
            for r in families
        ]
    return {
        "strategy": strategy,
        "data_fingerprint": "digits",
        "seed": 0,
        "replicates_used": list(families),
        "levels": [dense, *found],
        "cost": {"runs": runs},
        **about,
    }


def only(results: Mapping[str, Any], reference: str = "a/ticket") -> Ranking:
    (found,) = rankings(results, reference)
    return found


def by_arm(ranking: Ranking) -> dict[str, Standing]:
    return {one.arm: one for one in ranking.standings}


def test_means_intervals_and_paired_differences() -> None:
    found = only({"a": result({0.2: {"ticket": (0.91, 0.92, 0.93), "reinit": (0.80, 0.82, 0.81)}})})
    ticket, reinit = found.standings
    half = T3 * 0.01 / math.sqrt(3)
    assert [(one.rank, one.arm, one.n) for one in found.standings] == [(1, "a/ticket", 3), (2, "a/reinit", 3)]
    assert ticket.mean == pytest.approx(0.92)
    assert ticket.interval == pytest.approx((0.92 - half, 0.92 + half))
    assert ticket.difference is None
    # The differences are -0.11, -0.10 and -0.12: paired, for unpaired their spread would be that of both arms.
    assert reinit.difference == pytest.approx(-0.11)
    assert reinit.difference_interval == pytest.approx((-0.11 - half, -0.11 + half))
    assert (ticket.with_best, reinit.with_best) == (True, False)
    # Two-sided p of t = 11 sqrt(3) with two degrees of freedom is 1 - t / sqrt(2 + t^2).
    t = 11 * math.sqrt(3)
    assert reinit.p_best == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_equal_means_share_a_rank() -> None:
    arms = {"ticket": (0.1, 0.2, 0.6), "b": (0.3, 0.3, 0.3), "c": (0.2, 0.2, 0.2), "d": (0.6, 0.2, 0.1)}
    found = only({"a": result({0.2: arms})})
    assert [(one.rank, one.arm) for one in found.standings] == [
        (1, "a/b"), (1, "a/d"), (1, "a/ticket"), (4, "a/c"),
    ]  # fmt: skip
    assert by_arm(found)["a/d"].p_best == 1.0


def test_rivals_of_the_best_are_adjusted_for_their_number() -> None:
    # Gaps m - s, m and m + s have t = sqrt(3) m / s; at 5.643 that is p = 0.03: told apart alone, and not one of two.
    s = 0.001
    m = 5.643 / math.sqrt(3) * s
    best, rival = (0.9, 0.9, 0.9), (0.9 - m + s, 0.9 - m, 0.9 - m - s)
    alone = by_arm(only({"a": result({0.2: {"ticket": best, "x": rival}})}))
    assert alone["a/x"].p_best == pytest.approx(0.03, abs=1e-4)
    assert alone["a/x"].with_best is False
    two = by_arm(only({"a": result({0.2: {"ticket": best, "x": rival, "y": rival}})}))
    assert two["a/x"].p_best == pytest.approx(0.06, abs=2e-4)
    assert two["a/x"].with_best is two["a/y"].with_best is True


def test_pairs_are_families_that_both_have() -> None:
    results = {
        "a": result({0.2: {"ticket": (0.90, 0.92, 0.94, 0.96)}}, families=(0, 1, 2, 3)),
        "b": result({0.2: {"ticket": (0.93, 0.91, 0.80)}}, families=(3, 1, 7)),
    }
    other = by_arm(only(results))["b/ticket"]
    assert (other.n, other.pairs) == (3, 2)
    assert other.difference == pytest.approx((0.93 - 0.96 + 0.91 - 0.92) / 2)
    assert other.difference_interval is None
    assert other.with_best is None
    assert only(results).notes == ("b/ticket: fewer than 4 families, so the means are not of the same ones.",)


@pytest.mark.parametrize("families", [1, 2])
def test_below_three_families_there_is_no_interval(families: int) -> None:
    arms = {"ticket": (0.9, 0.91)[:families], "reinit": (0.1, 0.2)[:families]}
    found = only({"a": result({0.2: arms}, families=range(families))})
    assert [one.interval for one in found.standings] == [None, None]
    assert [one.with_best for one in found.standings] == [True, None]
    assert found.standings[1].difference_interval is None
    assert found.standings[1].pairs == families


def test_one_lucky_family_is_not_what_others_are_measured_by() -> None:
    results = {
        "a": result({0.2: {"ticket": (0.90, 0.91, 0.92), "reinit": (0.70, 0.71, 0.73)}}),
        "b": result({0.2: {"ticket": (0.99,)}}, families=(0,)),
    }
    found = by_arm(only(results))
    assert (found["b/ticket"].rank, found["b/ticket"].with_best) == (1, None)
    assert (found["a/ticket"].with_best, found["a/reinit"].with_best) == (True, False)


def test_a_run_without_a_result_counts_in_nothing() -> None:
    arms = {"ticket": (0.9, 0.9, 0.9), "x": (0.8, None, math.nan), "y": (None, None, None)}
    found = only({"a": result({0.2: arms})})
    x = by_arm(found)["a/x"]
    assert (x.n, x.mean, x.pairs) == (1, 0.8, 1)
    assert x.difference == pytest.approx(-0.1)
    assert "a/y" not in by_arm(found)
    assert "a/y: no family has a result, so it has no place." in found.notes
    json.dumps(found.as_json(), allow_nan=False)


LEVELS: Mapping[float, Arms] = {
    0.5: {"ticket": (0.9,)},
    0.2: {"ticket": (0.9,), "reinit": (0.9,), "random-erk": (0.9,), "one-shot": (0.9,)},
}


@pytest.mark.parametrize(
    ("strategy", "arm", "trainings"),
    [
        # The dense run, 0.5 and 0.2 of one for the two levels; a scoring of 0.03 at each.
        ("imp", "ticket", 1.76),
        ("lr-rewind", "ticket", 1.76),
        ("obd", "ticket", 1.76),
        ("one-shot", "ticket", 1.23),
        ("one-shot-finetune", "ticket", 1.23),
        ("at-init", "ticket", 0.23),
        ("gradual", "ticket", 0.23),
        ("rigl", "ticket", 0.23),
        ("imp", "reinit", 1.76),
        ("one-shot", "reinit", 1.23),
        ("at-init", "reinit", 0.23),
        ("rigl", "reinit", 0.43),
        ("imp", "random-erk", 0.2),
        ("imp", "one-shot", 1.2),
    ],
)
def test_a_cost_is_what_one_network_takes(strategy: str, arm: str, trainings: float) -> None:
    one = result(LEVELS, families=(0, 1), strategy=strategy)
    one["cost"]["runs"] += [
        {"level": level, "arm": "scoring", "replicate": r, "order": 0, "flops_effective": 3.0 * (1 + 8 * r)}
        for level in (1, 2)
        for r in (0, 1)
    ]
    assert cost(one, 2, arm, 0) == pytest.approx(trainings)


def test_a_cost_that_was_not_counted_is_none() -> None:
    one = result(LEVELS, families=(0,))
    one["cost"]["runs"][-1]["flops_effective"] = None
    assert cost(one, 2, "one-shot", 0) is None
    assert cost(one, 2, "ticket", 0) == pytest.approx(1.7)
    one["cost"]["runs"][0]["flops_effective"] = None
    assert cost(one, 2, "ticket", 0) is None


def test_the_cost_of_an_arm_is_the_mean_over_its_families() -> None:
    one = result({0.2: {"ticket": (0.9, None, 0.9)}}, strategy="at-init")
    tickets = [run for run in one["cost"]["runs"] if run["arm"] == "ticket"]
    for run, spent in zip(tickets, (10.0, 1000.0, 30.0), strict=True):
        run["flops_effective"] = spent
    assert only({"a": one}).standings[0].cost == pytest.approx(0.2)
    # A mean over those that happen to be counted would be of other families than the accuracy.
    tickets[2]["flops_effective"] = None
    assert only({"a": one}).standings[0].cost is None


def test_levels_stand_side_by_side_where_they_are_near() -> None:
    three = (0.9, 0.9, 0.9)
    results = {
        "b": result({0.21: {"ticket": three}, 0.1: {"ticket": three}}),
        "a": result({0.2: {"ticket": three}, 0.02: {"ticket": three}}),
    }
    found = rankings(results, "a/ticket")
    assert [one.density for one in found] == [0.2, 0.1, 0.02]
    assert [[arm.arm for arm in one.standings] for one in found] == [
        ["a/ticket", "b/ticket"], ["b/ticket"], ["a/ticket"],
    ]  # fmt: skip
    assert by_arm(found[0])["b/ticket"].density == 0.21
    assert found[1].notes == ("a/ticket has no result at this density, so there are no differences to it.",)
    assert found[1].standings[0].difference is None
    assert [one.density for one in rankings(results, "a/ticket", 0.204)] == [0.2]


def test_a_level_that_is_no_gate_opens_no_table_and_stands_in_another() -> None:
    three = (0.9, 0.9, 0.9)
    between = result({0.4: {"ticket": three}, 0.2: {"ticket": three}})
    for level in between["levels"]:
        level["gate"] = False
    results = {"a": result({0.2: {"ticket": three}}), "b": between}
    assert densities(list(results.values())) == [0.2]
    assert by_arm(only(results)).keys() == {"a/ticket", "b/ticket"}


@pytest.mark.parametrize("other", [{"data_fingerprint": "mnist"}, {"seed": 1}])
def test_other_families_are_left_out_with_a_sentence(other: dict[str, Any]) -> None:
    levels: Mapping[float, Arms] = {0.2: {"ticket": (0.9, 0.9, 0.9)}}
    found = only({"a": result(levels), "b": result(levels, **other)})
    assert by_arm(found).keys() == {"a/ticket"}
    assert found.notes == ("b: left out, for the families are not those of a/ticket (other data, or another seed).",)


def test_wrong_calls_say_what_there_is() -> None:
    results = {"a": result({0.2: {"ticket": (0.9, 0.9, 0.9)}, 0.05: {"ticket": (0.9, 0.9, 0.9)}})}
    with pytest.raises(UnknownName, match=r"no arm is called 'a/tickt'. Did you mean 'a/ticket'"):
        rankings(results, "a/tickt")
    with pytest.raises(InvalidValue, match=r"no search has a gate near a density of 10.0 %. There are 20.0 %, 5.0 %;"):
        rankings(results, "a/ticket", 0.1)
    with pytest.raises(InvalidValue, match="the density is 20; it is the fraction"):
        rankings(results, "a/ticket", 20)


@pytest.mark.parametrize("key", ["levels", "cost", "replicates_used", "strategy", "seed"])
def test_a_result_of_another_shape_is_refused(key: str) -> None:
    one = result({0.2: {"ticket": (0.9, 0.9, 0.9)}})
    del one[key]
    with pytest.raises(InvalidResults, match=f"lacks what is ranked .*{key}"):
        rankings({"a": one}, "a/ticket")


def test_what_is_finished_is_told_from_what_is_not(tmp_path: Path) -> None:
    with pytest.raises(InvalidResults, match=r"nothing to rank. Go on with it: tombola study resume"):
        finished(tmp_path, ["a"])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "result.json").write_text('{"levels": []}')
    (tmp_path / "result.json").write_text('{"failed": {"c": "no family is left.", "b": "an old failure"}}')
    found = finished(tmp_path, ["a", "b", "c"])
    assert (dict(found.results), dict(found.failed), found.missing) == (
        {"b": {"levels": []}}, {"c": "no family is left."}, ("a",),
    )  # fmt: skip
    assert found.sentences == (
        "The study is not finished: 1 of 3 searches have no result yet (a).",
        "c ended without a result: no family is left.",
    )


@pytest.mark.parametrize("text", ["[]", "{", "5", '{"failed": 3}', "[" * 100_000])
def test_a_damaged_result_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text(text)
    with pytest.raises(InvalidResults, match=r"a/result.json .*Run the study again"):
        finished(tmp_path, ["a"])


TOML = """
name = "mine"
[common]
model = "study_kit:net"
densities = [0.5, 0.2]
gates = [0.2]
replicates = 3
dense_runs = 1
workers = 1
controls = []
[common.recipe]
iterations = 24
batch_size = 50
eval_every = 6
[searches.iterative]
controls = ["reinit"]
[searches.one-shot]
strategy = "one-shot"
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rank")
    (folder / "mine.toml").write_text(TOML)
    assert main(["study", "run", str(folder / "mine.toml"), "--out", str(folder / "s")]) == 0
    return folder / "s"


def test_a_study_is_ranked_by_what_it_wrote(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "rank", str(done), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["study"], told["reference"], told["unfinished"]) == ("mine", "iterative/ticket", [])
    (ranking,) = told["rankings"]
    assert {one["arm"] for one in ranking["arms"]} == {"iterative/ticket", "iterative/reinit", "one-shot/ticket"}
    for one in ranking["arms"]:
        search, _, arm = one["arm"].partition("/")
        with (done / search / "results.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if float(row["density"]) < 0.3 and row["arm"] == arm]
        assert one["mean"] == pytest.approx(statistics.fmean(float(row["test_accuracy"]) for row in rows))
        assert one["n"] == 3
    # Masks on all three layers, so a training costs its density; reinit has the search before it as the ticket has.
    costs = {one["arm"]: one["cost"] for one in ranking["arms"]}
    assert costs["one-shot/ticket"] < costs["iterative/ticket"] == pytest.approx(costs["iterative/reinit"])
    assert costs["one-shot/ticket"] == pytest.approx(1.2, abs=0.05)


def test_it_is_shown_in_tables(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "rank", str(done), "--reference", "one-shot", "--density", "0.2"]) == 0
    assert "mine at 20.0 %" in (out := capsys.readouterr().out)
    assert "minus one-shot/ticket, 95 %" in out
    assert main(["study", "rank", str(done), "--markdown"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert {line.count("|") for line in lines} == {9}
    assert "the reference" in next(line for line in lines if "iterative/ticket" in line and "rank" not in line)


def test_an_unfinished_study_is_ranked_with_what_there_is(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("study.toml", "one-shot/result.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((done / name).read_bytes())
    assert main(["study", "rank", str(tmp_path)]) == 0
    assert "1 of 2 searches have no result yet (iterative)" in (out := capsys.readouterr().out)
    assert "minus one-shot/ticket" in out
    assert main(["study", "rank", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unfinished"] == ["iterative"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reference", "iterative/shuffle"], "no arm is called 'iterative/shuffle'"),
        (["--density", "0.5"], "no search has a gate near"),
        (["--json", "--markdown"], "Give one of them"),
    ],
)
def test_wrong_words_are_named(done: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "rank", str(done), *words]) == 2
    assert said in capsys.readouterr().err
    assert main(["study", "rank", str(done.parent)]) == 2
    assert "there is no study in" in capsys.readouterr().err
