"""The certificates that need the validation curve: speed, and accuracy at the early stop."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from tombola.stats import LevelResults, Results, Run, Verdict, judge
from tombola.stats.comparison import compare_speed

Study = Callable[..., Results]
MARGIN = 0.002
LADDER = {0.5: 0.004, 0.2: 0.004, 0.1: 0.003, 0.05: -0.02}


def curve(ticket: list[tuple[int, bool]], dense: list[tuple[int, bool]]) -> Results:
    def run(pair: tuple[int, bool]) -> Run:
        return Run(0.97, 0.97, *pair)

    level = LevelResults(0.5, {"ticket": tuple(map(run, ticket))})
    # A second dense run, much faster: speed reads the first, which shares the ticket's data order.
    return Results(tuple(range(len(dense))), tuple((run(pair), Run(0.97, 0.97, 1)) for pair in dense), (level,))


def speed_of(results: Results, **settings: object):  # type: ignore[no-untyped-def]
    return judge(results, margin=MARGIN, bootstrap=0, **settings).levels[0].speed  # type: ignore[arg-type]


def test_speed_is_the_ratio_to_the_first_dense_run() -> None:
    speed = speed_of(curve([(500, False), (450, False), (550, False)], [(1000, False)] * 3))
    logs = np.log([0.5, 0.45, 0.55])
    assert speed.ratio == pytest.approx(math.exp(logs.mean()))
    assert speed.not_slower
    assert not speed.slower
    assert speed.p == pytest.approx(ttest_1samp(logs, math.log(1.1), alternative="less").pvalue)
    slow = speed_of(curve([(1500, False), (1450, False), (1550, False)], [(1000, False)] * 3))
    assert (slow.not_slower, slow.slower) == (False, True)


def test_a_censored_ticket_counts_as_late_in_a_sign_test_and_a_censored_dense_run_as_it_is() -> None:
    dense = [(1000, False), (1000, True), (1000, False)]
    speed = speed_of(curve([(500, False), (500, False), (500, True)], dense))
    assert speed.ratio == pytest.approx(0.5)
    assert speed.p == pytest.approx((1 + 3) / 8)
    assert (speed.not_slower, speed.ratio_upper) == (False, math.inf)
    assert (speed.censored_tickets, speed.censored_dense) == (1, 1)
    none = speed_of(curve([(500, True)] * 3, dense))
    assert (none.p, none.not_slower) == (1.0, False)
    eight = speed_of(curve([(500, False)] * 7 + [(1000, True)], [(1000, False)] * 8))
    assert eight.p == pytest.approx((1 + 8) / 256)
    assert eight.not_slower


@pytest.mark.parametrize("dense_stop", [120, 150, 180, 190])
@pytest.mark.parametrize("replicates", [5, 8, 20])
@pytest.mark.parametrize("spread", [0.1, 0.3, 0.5])
def test_speed_keeps_its_error_rate_under_censoring(dense_stop: int, replicates: int, spread: float) -> None:
    """True ratio exactly 1 + eta, training ended at T = 200: certified in at most 5.5 % of the studies."""
    draw = np.random.default_rng(0)
    studies = 4000
    true = dense_stop * 1.1 * np.exp(spread * draw.standard_normal((studies, replicates)))
    dense = np.full(replicates, float(dense_stop))
    passes = sum(
        compare_speed(
            np.minimum(row, 200.0), dense, eta=0.1, alpha=0.05, censored_tickets=list(row >= 200.0), censored_dense=0
        ).not_slower
        for row in true
    )
    assert passes / studies <= 0.055 + 0.007  # 0.007: two standard errors of the simulation


def test_certificates_that_do_not_apply_say_why(study: Study) -> None:
    judgement = judge(study(LADDER), margin=MARGIN)
    assert set(judgement.not_applicable) == {"early", "speed"}
    assert "Speed was not judged: No early-stop iteration was kept." in judgement.sentence
    full = study(LADDER, iterations=(700, 1000))
    judgement = judge(full, margin=MARGIN, speed="The learning rate falls in steps.")
    assert judgement.not_applicable == {"speed": "The learning rate falls in steps."}
    assert judgement.certified == {"budget": 0.1, "early": 0.1, "speed": None}
    assert all(level.speed is None for level in judgement.levels)


def test_a_gate_without_its_curve_stops_that_certificate_only(study: Study) -> None:
    full = study(LADDER, iterations=(700, 1000))
    bare = tuple(Run(run.test_accuracy) for run in full.levels[1].arms["ticket"] if run)
    levels = (full.levels[0], LevelResults(0.2, {"ticket": bare}), *full.levels[2:])
    judgement = judge(dataclasses.replace(full, levels=levels), margin=MARGIN)
    assert judgement.certified == {"budget": 0.1, "early": 0.5, "speed": 0.5}
    assert judgement.levels[1].clauses["early"] is Verdict.NOT_APPLICABLE


def test_censored_runs_are_noted() -> None:
    judgement = judge(curve([(500, True)] * 3, [(1000, False)] * 3), margin=MARGIN)
    assert any("0 dense runs and 3 tickets at the gates" in note for note in judgement.notes)
