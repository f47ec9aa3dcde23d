"""Verdicts in looks: the error rate of the whole procedure simulated, and what it says after each look."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import stdtrit

from tombola.errors import InvalidResults, InvalidValue
from tombola.stats import LevelResults, Results, Run, Verdict, judge, non_inferiority, passed, power_non_inferiority
from tombola.stats.judgement import Judgement
from tombola.stats.looks import Looks, spend
from tombola.stats.sequential import BENEFIT_OF_DOUBT, POWER, GateState, combine, needed_replicates, settled

Study = Callable[..., Results]
SIMULATIONS = 20_000
MARGIN, SD = 0.002, 0.0015
PLAN = Looks.default()
SLACK = 3 * (0.05 * 0.95 / SIMULATIONS) ** 0.5


def noise(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def looked(difference: np.ndarray, plan: Looks, *, stop: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Run the procedure on ``[S, G, R]`` differences, as :func:`settled` and :func:`combine` do; see the test below.

    Returns the gates certified and the families used, ``[S]`` each; without stopping every look is taken.
    """
    count, gates = difference.shape[:2]
    rejected, short = (np.zeros((count, gates), dtype=bool) for _ in range(2))
    reached, families = (np.zeros(count, dtype=np.int64) for _ in range(2))
    running = np.ones(count, dtype=bool)
    for look, (size, alpha) in enumerate(zip(plan.sizes, plan.alphas, strict=True), 1):
        seen = difference[:, :, :size]
        # The other side of the same continuous test.
        p = non_inferiority(seen, MARGIN)
        rejected |= running[:, None] & (p < alpha)
        short |= running[:, None] & (1 - p < alpha)
        families[running] = size
        reached = passed(rejected)
        first = np.minimum(reached, gates - 1)[:, None]
        over = short | (~rejected & futile(seen, plan, look))
        # An end before the sparsest gate leaves the rest without a way to be certified.
        done = (reached == gates) | np.take_along_axis(over, first, axis=1)[:, 0]
        if stop:
            running &= ~done
    return reached, families


def futile(seen: np.ndarray, plan: Looks, look: int) -> np.ndarray:
    """No later look has the wanted power at the upper limit of the mean; power depends on their ratio alone."""
    size = seen.shape[-1]
    highest = (seen.mean(-1) + MARGIN) / seen.std(-1, ddof=1) + stdtrit(size - 1, BENEFIT_OF_DOUBT) / size**0.5
    later = list(zip(plan.sizes, plan.alphas, strict=True))[look:]
    return highest < min((least_ratio(*one) for one in later), default=np.inf)


def least_ratio(size: int, alpha: float) -> float:
    low, high = 0.0, 30.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (low, middle) if power_non_inferiority(size, middle, 1.0, 0.0, alpha) >= POWER else (middle, high)
    return high


def gates_at_the_margin(count: int, families: int, seed: int) -> np.ndarray:
    """Differences at the margin at four gates, spread rising towards sparse ones, correlated .7 by the dense runs."""
    spread = np.linspace(0.0008, 0.0020, 4)[:, None]
    shared, own = noise(count, 1, families, seed=seed), noise(count, 4, families, seed=seed + 1)
    return -MARGIN + spread * (np.sqrt(0.7) * shared + np.sqrt(0.3) * own)


def results_of(difference: np.ndarray, densities: Sequence[float] = (0.5, 0.2, 0.1, 0.05)) -> Results:
    """Make a study of exactly these ``[G, R]`` differences."""
    count = difference.shape[1]
    levels = tuple(
        LevelResults(density, {"ticket": tuple(Run(0.9 + float(d)) for d in gaps)})
        for density, gaps in zip(densities, difference, strict=False)
    )
    return Results(tuple(range(count)), ((Run(0.9),),) * count, levels)


def first(results: Results, size: int) -> Results:
    levels = tuple(
        LevelResults(level.density, {name: runs[:size] for name, runs in level.arms.items()})
        for level in results.levels
    )
    return Results(results.replicates[:size], results.dense[:size], levels)


def take(results: Results, looks: int, plan: Looks = PLAN, **settings: object) -> list[Judgement]:
    """Judge the first looks, all of them whatever they say."""
    return [
        judge(first(results, size), margin=MARGIN, alpha=alpha, bootstrap=0, **settings)  # type: ignore[arg-type]
        for size, alpha in list(zip(plan.sizes, plan.alphas, strict=True))[:looks]
    ]


def gaps(*means: float, seed: int = 0, sd: float = SD, families: int = 12) -> np.ndarray:
    return np.array(means)[:, None] + sd * noise(len(means), families, seed=seed)


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("plan", [PLAN, Looks.default(5), Looks.default(27)], ids=lambda plan: str(plan.largest))
def test_a_ticket_worse_by_the_margin_is_certified_at_most_at_the_nominal_rate(plan: Looks, stop: bool) -> None:
    difference = -MARGIN + SD * noise(SIMULATIONS, 1, plan.largest, seed=1)
    rate = np.mean(looked(difference, plan, stop=stop)[0] > 0)
    assert rate <= 0.05 + SLACK
    assert stop or rate >= 0.03  # The union bound is not so wide as to be useless.


def test_alpha_at_every_look_would_exceed_the_nominal_rate() -> None:
    """What the division of alpha is for; it also shows that the simulation above can fail."""
    greedy = Looks(PLAN.sizes, (0.05,) * 4)
    difference = -MARGIN + SD * noise(SIMULATIONS, 1, 12, seed=1)
    assert np.mean(looked(difference, greedy, stop=False)[0] > 0) > 0.09


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("true_gates", [0, 1, 3])
def test_the_certificate_reaches_too_far_at_most_at_the_nominal_rate(true_gates: int, stop: bool) -> None:
    difference = gates_at_the_margin(SIMULATIONS, 12, seed=10 * true_gates)
    difference[:, :true_gates] += 0.02  # Far above the margin; the gates after it lie exactly on it.
    assert np.mean(looked(difference, PLAN, stop=stop)[0] > true_gates) <= 0.05 + SLACK


def test_gates_above_the_margin_of_which_some_pass_early_open_no_way_past_one_that_does_not_hold() -> None:
    """The least favourable case for carrying certificates on: moderate gates before the one at the margin."""
    difference = gates_at_the_margin(SIMULATIONS, 12, seed=70)
    difference[:, :2] += 0.0015
    difference[:, 3] += 0.02
    assert np.mean(looked(difference, PLAN, stop=False)[0] > 2) <= 0.05 + SLACK


def test_every_look_s_limits_hold_together() -> None:
    difference = SD * noise(SIMULATIONS, 12, seed=2)
    wrong = np.zeros(SIMULATIONS, dtype=bool)
    for size, alpha in zip(PLAN.sizes, PLAN.alphas, strict=True):
        seen = difference[:, :size]
        wrong |= seen.mean(1) - stdtrit(size - 1, 1 - alpha) * seen.std(1, ddof=1) / size**0.5 > 0
    assert np.mean(wrong) <= 0.05 + SLACK


def test_winning_at_the_certified_gate_keeps_its_error_rate_over_looks() -> None:
    """The ticket equals its control; the certified gate is the one where tickets were lucky, at any look."""
    for gap in (0.001, 0.003, 0.005):
        dense = 0.0009 * noise(SIMULATIONS, 1, 12, seed=40)
        ticket, control = (0.0015 * noise(SIMULATIONS, 4, 12, seed=seed) for seed in (41, 42))
        rejected = np.zeros((SIMULATIONS, 4), dtype=bool)
        better, won = np.zeros((SIMULATIONS, 4), dtype=bool), np.zeros(SIMULATIONS, dtype=bool)
        for size, alpha in zip(PLAN.sizes, PLAN.alphas, strict=True):
            now = non_inferiority((ticket - dense)[:, :, :size] + gap - MARGIN, MARGIN) < alpha
            above = non_inferiority((ticket - control)[:, :, :size], 0.0) < alpha
            # A gate that passes now speaks with this look's controls, another with those of the look it passed at.
            better = np.where(now, above, better)
            rejected |= now
            count = passed(rejected)
            won |= (count > 0) & np.take_along_axis(better, np.maximum(count - 1, 0)[:, None], axis=1)[:, 0]
        assert np.mean(won) <= 0.05 + SLACK


# Distance from the margin in sd -> families on average and power; the last column is the power of 12 families at once.
@pytest.mark.parametrize(
    ("distance", "families", "power", "fixed"),
    [(0.0, 5.7, 0.04, 0.05), (1.0, 8.8, 0.88, 0.94), (1.5, 7.3, 0.99, 1.0), (2.0, 6.1, 1.0, 1.0), (3.0, 5.0, 1.0, 1.0)],
)
def test_families_and_power(distance: float, families: float, power: float, fixed: float) -> None:
    difference = -MARGIN + SD * (distance + noise(SIMULATIONS, 1, 12, seed=3))
    reached, used = looked(difference, PLAN)
    assert used.mean() == pytest.approx(families, abs=0.15)
    assert np.mean(reached) == pytest.approx(power, abs=0.012)
    assert power_non_inferiority(12, -MARGIN + SD * distance, SD, MARGIN) == pytest.approx(fixed, abs=0.006)


def test_the_simulation_is_the_procedure() -> None:
    for seed in range(40):
        means = -MARGIN + SD * np.array([3.0, 2.0, 1.0, 0.0])[:, None]
        difference = means + SD * noise(4, 12, seed=1000 + seed)
        reached, used = looked(difference[None], PLAN)
        judgements = []
        for size, alpha in zip(PLAN.sizes, PLAN.alphas, strict=True):
            judgements.append(judge(results_of(difference[:, :size]), margin=MARGIN, alpha=alpha, bootstrap=0))
            if settled(judgements, PLAN).all:
                break
        joined = combine(judgements, PLAN)
        assert (len(joined.certified["budget"]), joined.families) == (reached[0], used[0])
        assert settled(judgements, PLAN).all


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.2])
@pytest.mark.parametrize("sizes", [(3,), (3, 5, 8, 12), (3, 4, 5, 6), (999, 1000), (3, 400, 1000)])
def test_error_rates_add_up_to_alpha(alpha: float, sizes: tuple[int, ...]) -> None:
    alphas = spend(alpha, sizes)
    assert all(one > 0 for one in alphas)
    assert sum(alphas) == pytest.approx(alpha, rel=1e-9)
    assert Looks(sizes, alphas).alpha == alpha


def test_default_plans() -> None:
    assert [Looks.default(n).sizes for n in (3, 4, 5, 6, 8, 9, 12, 20)] == [
        (3,), (3, 4), (3, 5), (3, 6), (3, 5, 8), (3, 5, 9), (3, 5, 8, 12), (3, 5, 8, 12, 20),
    ]  # fmt: skip
    assert PLAN.alphas == (0.0031, 0.0055, 0.0135, 0.0279)
    assert (PLAN.largest, PLAN.alpha, Looks.default(alpha=0.01).alpha) == (12, 0.05, 0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Looks((), ()), r"at \[\] families\. Give at least one look, the first at 3"),
        (lambda: Looks((2, 5), (0.01, 0.04)), r"at \[2, 5\] families"),
        (lambda: Looks((5, 5), (0.01, 0.04)), "more than the one before"),
        (lambda: Looks.default(2), r"at \[2\] families"),
        (lambda: Looks((3, 5), (0.05,)), r"2 looks and 1 error rate\. .* spend\(alpha, sizes\)"),
        (lambda: Looks((3, 5), (0.0, 0.05)), "Each is positive"),
        (lambda: Looks((3, 5), (0.3, 0.3)), "sum is below 0.5"),
        (lambda: Looks((3, 5), (float("nan"), 0.05)), "Each is positive"),
        (lambda: spend(0.5, (3, 5)), "alpha is 0.5"),
        (lambda: spend(0.05, (5, 3)), r"at \[5, 3\] families"),
    ],
)
def test_plans_that_are_none_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        call()


def test_a_clear_win_is_settled_at_the_first_look() -> None:
    joined = combine(take(results_of(gaps(0.02, 0.02)), 1), PLAN)
    assert joined.settled.all
    assert [gate.sentence for gate in joined.settled.gates] == [
        "50.0 % is certified at look 1 with 3 families.",
        "20.0 % is certified at look 1 with 3 families.",
    ]
    assert (joined.families, joined.saved) == (3, 9)
    assert joined.judgement.certified_density == 0.2
    assert joined.sentence == (
        "Looked after 3 of at most 12 families, at error rate 0.0031 of 0.05 in all; 9 families not run."
    )
    assert joined.judgement.sentence.endswith(joined.sentence)
    assert "99.69 % lower limit" in joined.judgement.sentence


def test_a_clear_loss_ends_the_sequence() -> None:
    state = settled(take(results_of(gaps(-0.06, 0.02, -0.06)), 1), PLAN)
    assert [gate.state for gate in state.gates] == [GateState.SHORT, GateState.BEYOND, GateState.SHORT]
    assert state.all
    assert state.gates[0].look == 1
    assert state.gates[0].sentence.startswith(
        "50.0 % falls short, shown at look 1 with 3 families: 99.69 % upper limit -"
    )
    assert state.gates[0].sentence.endswith(", margin 0.20.")
    assert state.gates[1].sentence == "20.0 % cannot be certified: the sequence ends before 50.0 %."


def steps(mean: float, sd: float, count: int) -> np.ndarray:
    """Differences with exactly this mean and sd."""
    x = np.linspace(-1, 1, count)
    return mean + sd * x / x.std(ddof=1)


def test_open_and_futile_by_the_families_needed() -> None:
    def at(distance: float, size: int) -> object:
        difference = steps(-MARGIN + SD * distance, SD, size)[None]
        looks = PLAN.sizes.index(size) + 1
        filled = np.concatenate([difference, np.zeros((1, 12 - size))], axis=1)
        return settled(take(results_of(filled), looks), PLAN).gates[0]

    near, far, below = at(1.3, 5), at(0.65, 5), at(-0.1, 5)
    assert (near.state, near.needed) == (GateState.OPEN, 12)
    assert near.sentence == "50.0 % is open: it needs about 12 families if the mean and spread seen are the truth."
    assert (far.state, far.needed) == (GateState.OPEN, 20)
    assert far.sentence == (
        "50.0 % is open: it needs about 20 families if the mean and spread seen are the truth; the plan ends at 12, "
        "which is enough at the upper 90 % limit of the mean."
    )
    hopeless = at(0.2, 8)
    assert hopeless.state is GateState.FUTILE
    assert hopeless.sentence == (
        f"50.0 % needs about {hopeless.needed} families if the mean and spread seen are the truth, and too many even "
        "at the upper 90 % limit of the mean; the plan ends at 12."
    )
    last = at(0.3, 12)
    assert last.state is GateState.FUTILE
    assert last.sentence.endswith("if the mean and spread seen are the truth; the plan ends at 12.")
    assert below.state is GateState.FUTILE
    assert below.needed is None
    assert "would need a higher mean than the one seen" in below.sentence


def test_needed_replicates_are_a_look_s_or_more_than_the_plan_has() -> None:
    for distance in np.linspace(-0.2, 2.5, 28):
        budget = take(results_of(steps(-MARGIN + SD * distance, SD, 3)[None]), 1)[0].levels[0].budget
        needed = needed_replicates(budget, margin=MARGIN, plan=PLAN, look=1)
        assert needed is None or needed in PLAN.sizes[1:] or needed > PLAN.largest
        if needed in PLAN.sizes:
            alpha = PLAN.alphas[PLAN.sizes.index(needed)]
            assert power_non_inferiority(needed, budget.mean, SD, MARGIN, alpha) >= 0.8
        elif needed is not None:
            assert power_non_inferiority(needed, budget.mean, SD, MARGIN, PLAN.alphas[-1]) >= 0.8


def test_families_left_out_count_on_top() -> None:
    """At 1.3 sd 6 complete families are enough at the last look's 0.04; two of the first 6 were left out."""
    budget = take(results_of(steps(-MARGIN + 1.3 * SD, SD, 4)[None]), 1, Looks((4,), (0.01,)))[0].levels[0].budget
    alphas = (0.01, 0.04)
    for sizes, needed in (((4, 6), 6), ((6, 7), 8), ((6, 8), 8)):
        assert needed_replicates(budget, margin=MARGIN, plan=Looks(sizes, alphas), look=1) == needed


def test_too_few_complete_families_stay_open_while_the_plan_can_mend_it() -> None:
    results = results_of(gaps(0.02))
    runs = list(results.levels[0].arms["ticket"])
    runs[1] = None
    results = replace(results, levels=(LevelResults(0.5, {"ticket": tuple(runs)}),))
    judgements = take(results, 2)
    gate = settled(judgements[:1], PLAN).gates[0]
    assert (gate.state, gate.needed) == (GateState.OPEN, 5)
    assert gate.sentence == "50.0 % is open: it needs at least 3 complete families, and there are 2."
    assert settled(judgements, PLAN).gates[0].sentence == "50.0 % is certified at look 2 with 4 families."
    plan = Looks((3,), (0.05,))
    gate = settled(take(results, 1, plan), plan).gates[0]
    assert gate.state is GateState.FUTILE


def test_equal_differences_at_the_margin_are_futile() -> None:
    gate = settled(take(results_of(np.full((1, 12), -MARGIN)), 1), PLAN).gates[0]
    assert (gate.state, gate.needed) == (GateState.FUTILE, None)


def lost_at_the_second_look() -> Results:
    """Three good families, then two bad ones, at the first gate; the second gate passes at the second look only."""
    dense = [0.0100, 0.0101, 0.0099, -0.03, -0.03]
    sparse = [0.0100, 0.0030, 0.0170, 0.0100, 0.0100]
    return results_of(np.array([dense, sparse, [-0.06, -0.061, -0.059, -0.06, -0.06]]))


def test_what_a_look_certified_stays_certified_and_the_sequence_goes_on_from_it() -> None:
    judgements = take(lost_at_the_second_look(), 2)
    assert [judgement.certified_density for judgement in judgements] == [0.5, None]
    assert judgements[1].levels[1].clauses["budget"] is Verdict.MATCHES
    joined = combine(judgements, PLAN)
    assert [(one.density, one.look, one.families) for one in joined.certified["budget"]] == [(0.5, 1, 3), (0.2, 2, 5)]
    judgement = joined.judgement
    assert judgement.certified == {"budget": 0.2, "early": None, "speed": None}
    assert judgement.verdict is Verdict.MATCHES
    first_gate, second, third = judgement.levels
    assert [level.certified for level in judgement.levels] == [True, True, False]
    assert first_gate.budget == judgements[0].levels[0].budget
    assert (
        "It passed at look 1, with 3 families. The last look does not repeat it: test accuracy" in first_gate.sentence
    )
    assert "(n = 5," in first_gate.sentence
    assert first_gate.sentence.endswith("it stays, as every look's error rate counts. Certified to 20.0 % by accuracy.")
    assert second.budget == judgements[1].levels[1].budget
    assert second.sentence.endswith("It passed at look 2, with 5 families. Certified to 20.0 % by accuracy.")
    assert third.sentence.endswith("Not certified; the certificate ends at 20.0 %.")
    assert third.sentence.count("ertified") == 1
    assert "Certified to 20.0 % by accuracy after the same number of iterations" in judgement.sentence
    assert "Certified to 20.0 % by accuracy. " not in judgement.sentence
    assert judgement.sentence.endswith("at error rates 0.0031 and 0.0055 of 0.05 in all; 7 families not run.")
    assert "wrong with probability at most 0.05" in judgement.notes[-1]
    assert joined.settled.all


def test_a_gate_that_passes_alone_waits_for_a_denser_one() -> None:
    difference = np.array([steps(-MARGIN + 2 * SD, SD, 3), steps(0.02, 0.0001, 3)])
    state = settled(take(results_of(difference), 1), PLAN)
    assert [gate.state for gate in state.gates] == [GateState.OPEN, GateState.OPEN]
    assert state.gates[1].sentence == "20.0 % passes by itself and waits for the denser gates."
    assert not state.all


def test_each_certificate_has_its_own_looks(study: Study) -> None:
    results = study({0.5: 0.02, 0.2: 0.02}, replicates=12, iterations=(700, 1000), sd=0.0001)
    joined = combine(take(results, 1), PLAN)
    assert joined.judgement.certified == {"budget": 0.2, "early": 0.2, "speed": 0.2}
    assert {one.look for reached in joined.certified.values() for one in reached} == {1}


def test_a_certificate_that_no_longer_applies_is_not_called_not_applicable(study: Study) -> None:
    results = study({0.5: 0.02}, replicates=12, iterations=(700, 1000), sd=0.0001)
    judgements = take(results, 1) + take(results, 2, early="Its losses were lost")[1:]
    joined = combine(judgements, PLAN)
    assert joined.judgement.certified["early"] == 0.5
    assert joined.judgement.not_applicable == {}


def test_one_look_changes_nothing_but_words(study: Study) -> None:
    results = study({0.5: 0.004, 0.2: 0.004, 0.1: -0.02}, controls={"reinit": 0.01}, replicates=5)
    plan = Looks((5,), (0.05,))
    alone = take(results, 1, plan, gates=[0.5, 0.1])[0]
    joined = combine([alone], plan).judgement
    assert joined.verdict is Verdict.WINS
    assert [replace(level, sentence="") for level in joined.levels] == [
        replace(level, sentence="") for level in alone.levels
    ]
    assert joined.certified == alone.certified
    assert joined.levels[1].sentence == alone.levels[1].sentence
    assert joined.levels[2].sentence == alone.levels[2].sentence


def test_as_json_is_plain() -> None:
    joined = combine(take(lost_at_the_second_look(), 2), PLAN)
    plain = json.loads(json.dumps(joined.as_json(), allow_nan=False))
    assert plain == joined.as_json()
    assert plain["sizes"] == [3, 5, 8, 12]
    assert (plain["alpha"], plain["looks"], plain["families"], plain["saved"]) == (0.05, 2, 5, 7)
    assert plain["certified"]["budget"][0] == {"density": 0.5, "look": 1, "families": 3}
    assert [gate["state"] for gate in plain["gates"]] == ["certified", "certified", "falls short"]


def test_judgements_that_are_not_the_plan_s_looks_are_refused() -> None:
    results = results_of(gaps(0.0, 0.0))
    judgements = take(results, 2)
    with pytest.raises(InvalidValue, match="0 judgements for 4 looks"):
        settled([], PLAN)
    with pytest.raises(InvalidValue, match="2 judgements for 1 look"):
        settled(judgements, Looks((3,), (0.0031,)))
    with pytest.raises(InvalidValue, match=r"look 1 was judged at alpha 0.0055, .* alpha=plan.alphas\[0\]"):
        combine(judgements[1:], PLAN)
    with pytest.raises(InvalidResults, match="look 1 was judged on 5 families, and the plan has 3"):
        combine([judge(first(results, 5), margin=MARGIN, alpha=PLAN.alphas[0], bootstrap=0)], PLAN)
    with pytest.raises(InvalidResults, match="look 2 is not of the same study"):
        combine([judgements[0], take(results, 2, gates=[0.5])[1]], PLAN)
    other = replace(first(results, 5), replicates=(7, 8, 9, 10, 11))
    with pytest.raises(InvalidResults, match="families are only added"):
        combine([judgements[0], judge(other, margin=MARGIN, alpha=PLAN.alphas[1], bootstrap=0)], PLAN)
