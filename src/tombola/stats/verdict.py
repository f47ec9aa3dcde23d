"""The judge: from results to verdicts, certificates and an estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tombola.errors import InvalidResults, InvalidValue
from tombola.stats import sentences
from tombola.stats.comparison import (
    Comparison,
    ControlComparison,
    SpeedComparison,
    compare_speed,
    compare_with_controls,
    compare_with_dense,
)
from tombola.stats.estimate import Estimate, estimate_crossing
from tombola.stats.judgement import Judgement, LevelVerdict, Verdict
from tombola.stats.notes import notes_on
from tombola.stats.paired import MIN_REPLICATES, Floats, differences
from tombola.stats.power import required_replicates
from tombola.stats.results import LevelResults, Results, Run, drop_incomplete
from tombola.stats.sequence import default_gates, passed, pick_gates


@dataclass(frozen=True)
class _Question:
    """What is asked of every level."""

    margin: float
    alpha: float
    eta: float
    lottery: bool
    speed: str | None
    seed: int


@dataclass(frozen=True)
class _Level:
    """One level's tests, before the sequence over levels is known."""

    density: float
    budget: Comparison
    early: Comparison | None
    speed: SpeedComparison | None
    controls: Mapping[str, ControlComparison]


def judge(
    results: Results,
    *,
    margin: float,
    gates: Sequence[float] | None = None,
    alpha: float = 0.05,
    eta: float = 0.1,
    lottery: bool = True,
    speed: str | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
) -> Judgement:
    """Decide at which densities the ticket trains as well as the dense network, and how sparse that is certain.

    The three clauses of Frankle & Carbin (2019), section 1, each with its own certificate: test accuracy after the same
    number of iterations ("budget", the hypothesis as stated), test accuracy at the early-stop iteration ("early"), and
    the early-stop iteration itself ("speed"). Each is a one-sided paired t test of non-inferiority at each gate, with
    the level's own standard deviation, and each certificate is the fixed sequence of its tests from dense to sparse.

    "Wins" asks besides that the ticket beat every control of its level, Holm-adjusted over the controls. That test is
    made at each level by itself; at the certified density, which the data chose, a ticket equal to its control is said
    to win with a probability of alpha or less all the same (simulated: at most 0.051 for alpha 0.05).

    Args:
        results: the study; incomplete replicates are left out, see :func:`drop_incomplete`.
        margin: accuracy that may be lost, a fraction in [0, 0.5], fixed before looking: 0.002 is 0.2 points.
        gates: densities tested in sequence, fixed before looking; ``None`` for :func:`default_gates`.
        alpha: one-sided level, in (0, 0.5).
        eta: share by which the early-stop iteration may be later, in [0, 1].
        lottery: ``False`` where survivors keep trained values (fine-tuning, learning-rate rewinding); the best verdict
            is then "matches".
        speed: why the speed certificate does not apply (a step or cosine schedule), or ``None`` where it does.
        bootstrap: resamples for the interval of the estimate; 0 for none.
        seed: of the bootstrap and of random sign flips.

    Raises:
        InvalidValue: a setting out of its range, or a gate that is not a level.
        InvalidResults: the results do not fit together, or no complete replicate is left.
    """
    _check_settings(margin, alpha, eta, bootstrap)
    kept, dropped = drop_incomplete(results)
    if not kept.replicates:
        reasons = " ".join(dropped[:3]) or "There is no replicate."
        raise InvalidResults(f"no replicate has a result in every cell. {reasons} Complete at least one, better five.")
    sequence = default_gates(kept.densities) if gates is None else pick_gates(gates, kept.densities)
    question = _Question(margin, alpha, eta, lottery, speed, seed)
    measured = [_measure(kept, level, question) for level in kept.levels]
    certified = _certify(measured, sequence)
    levels = tuple(_decide(level, sequence, certified["budget"], question) for level in measured)
    decisive = certified["budget"] or sequence[0]
    main = next(level for level in levels if level.density == decisive)
    missing = _not_applicable(measured, speed)
    estimate = _estimate(kept, question, bootstrap)
    return Judgement(
        verdict=main.verdict,
        sentence=sentences.overall(main, certified, missing, sequence, estimate, dropped, lottery=lottery),
        certified=certified,
        not_applicable=missing,
        estimate=estimate,
        levels=levels,
        gates=sequence,
        replicates=kept.replicates,
        dense_runs=tuple(len(runs) for runs in kept.dense),
        dropped=dropped,
        margin=margin,
        alpha=alpha,
        eta=eta,
        lottery=lottery,
        notes=notes_on(kept, [level for level in levels if level.gate], margin, alpha, len(dropped)),
    )


def _check_settings(margin: float, alpha: float, eta: float, bootstrap: int) -> None:
    if not 0 <= margin <= 0.5:
        raise InvalidValue(
            f"the margin is {margin:g}. It is a fraction of accuracy between 0 and 0.5: "
            f"write 0.002 for 0.2 points{_as_fraction(margin)}."
        )
    if not 0 < alpha < 0.5:
        raise InvalidValue(f"alpha is {alpha:g}. It is a one-sided error rate between 0 and 0.5, such as 0.05.")
    if not 0 <= eta <= 1:
        raise InvalidValue(f"eta is {eta:g}. It is a share of iterations between 0 and 1: 0.1 allows 10 % more.")
    if bootstrap < 0:
        raise InvalidValue(f"bootstrap is {bootstrap}. Give the number of resamples, 0 for no interval.")


def _as_fraction(margin: float) -> str:
    return f", {margin / 100:g} for {margin:g} point{'' if margin == 1 else 's'}" if 0.5 < margin <= 50 else ""


def _measure(results: Results, level: LevelResults, question: _Question) -> _Level:
    ticket = [run for run in level.arms["ticket"] if run is not None]
    values = _accuracies(ticket)
    controls = {name: _accuracies([run for run in level.arms[name] if run is not None]) for name in level.controls}
    margin, alpha = question.margin, question.alpha
    dense = np.array([np.mean([run.test_accuracy for run in runs]) for runs in results.dense])
    return _Level(
        density=level.density,
        budget=compare_with_dense(values, dense, margin=margin, alpha=alpha, seed=question.seed),
        early=_early(ticket, results.dense, question),
        speed=_speed(ticket, [runs[0] for runs in results.dense], question),
        controls=compare_with_controls(values, controls, margin=margin, alpha=alpha),
    )


def _accuracies(runs: Sequence[Run]) -> Floats:
    return np.array([run.test_accuracy for run in runs], dtype=np.float64)


def _early(tickets: Sequence[Run], dense: Sequence[Sequence[Run]], question: _Question) -> Comparison | None:
    """Compare accuracies at the early stop where every run kept its own."""
    values = [run.test_accuracy_at_early_stop for run in tickets]
    families = [[run.test_accuracy_at_early_stop for run in runs] for runs in dense]
    known = [value for value in values if value is not None]
    means = [np.mean([a for a in family if a is not None]) for family in families if None not in family]
    if len(known) < len(values) or len(means) < len(families):
        return None
    first, second = np.array(known, dtype=np.float64), np.array(means, dtype=np.float64)
    return compare_with_dense(first, second, margin=question.margin, alpha=question.alpha, seed=question.seed)


def _speed(tickets: Sequence[Run], dense: Sequence[Run], question: _Question) -> SpeedComparison | None:
    """Compare early-stop iterations where every run has one; an iteration of 0 has no logarithm."""
    fast = [run.early_stop_iteration for run in tickets if run.early_stop_iteration]
    slow = [run.early_stop_iteration for run in dense if run.early_stop_iteration]
    if question.speed is not None or len(fast) < len(tickets) or len(slow) < len(dense):
        return None
    return compare_speed(
        np.array(fast, dtype=np.float64),
        np.array(slow, dtype=np.float64),
        eta=question.eta,
        alpha=question.alpha,
        censored_tickets=[run.censored for run in tickets],
        censored_dense=sum(run.censored for run in dense),
    )


def _certify(levels: Sequence[_Level], gates: Sequence[float]) -> dict[str, float | None]:
    """Run the three fixed sequences, dense to sparse; a gate without a comparison is not passed."""
    at = [level for level in levels if level.density in gates]
    outcomes = {
        "budget": [level.budget.non_inferior for level in at],
        "early": [level.early is not None and level.early.non_inferior for level in at],
        "speed": [level.speed is not None and level.speed.not_slower for level in at],
    }
    counts = {name: int(passed(outcome)) for name, outcome in outcomes.items()}
    return {name: gates[count - 1] if count else None for name, count in counts.items()}


def _not_applicable(levels: Sequence[_Level], speed: str | None) -> dict[str, str]:
    reasons = {}
    if all(level.early is None for level in levels):
        reasons["early"] = "No accuracy at the early-stop iteration was kept."
    if speed is not None:
        reasons["speed"] = speed
    elif all(level.speed is None for level in levels):
        reasons["speed"] = "No early-stop iteration was kept."
    return reasons


def _decide(level: _Level, gates: Sequence[float], certified: float | None, question: _Question) -> LevelVerdict:
    verdict = _verdict(level.budget, level.controls, lottery=question.lottery)
    needed = _needed(level.budget, question) if verdict is Verdict.CANNOT_TELL else None
    gate = level.density in gates
    reached = gate and certified is not None and level.density >= certified
    speed, early = level.speed, level.early
    sentence = sentences.level(
        level.density,
        verdict,
        level.budget,
        level.controls,
        needed,
        margin=question.margin,
        alpha=question.alpha,
        lottery=question.lottery,
    )
    return LevelVerdict(
        density=level.density,
        gate=gate,
        certified=reached,
        verdict=verdict,
        clauses={
            "budget": _clause(level.budget.non_inferior, level.budget.inferior),
            "early": _clause(early.non_inferior, early.inferior) if early else Verdict.NOT_APPLICABLE,
            "speed": _clause(speed.not_slower, speed.slower) if speed else Verdict.NOT_APPLICABLE,
        },
        sentence=f"{sentence} {sentences.standing(gate, reached, certified)}",
        budget=level.budget,
        early=early,
        speed=speed,
        controls=level.controls,
        required_replicates=needed,
    )


def _clause(matches: bool, loses: bool) -> Verdict:
    return Verdict.MATCHES if matches else Verdict.LOSES if loses else Verdict.CANNOT_TELL


def _verdict(budget: Comparison, controls: Mapping[str, ControlComparison], *, lottery: bool) -> Verdict:
    if not budget.non_inferior:
        return Verdict.LOSES if budget.inferior else Verdict.CANNOT_TELL
    if lottery and controls and all(control.superior for control in controls.values()):
        return Verdict.WINS
    if lottery and any(control.equivalent for control in controls.values()):
        return Verdict.MATCHES_NO_EFFECT
    return Verdict.MATCHES


def _needed(budget: Comparison, question: _Question) -> int | None:
    """How many replicates would tell, whichever side of the margin the observed mean lies on."""
    if budget.sd is None or (budget.sd == 0 and budget.n < MIN_REPLICATES):
        return MIN_REPLICATES
    distance = abs(budget.mean + question.margin)
    return required_replicates(distance, budget.sd, 0.0, alpha=question.alpha)


def _estimate(results: Results, question: _Question, resamples: int) -> Estimate:
    dense = np.array([np.mean([run.test_accuracy for run in runs]) for runs in results.dense])
    tickets = [_accuracies([run for run in level.arms["ticket"] if run is not None]) for level in results.levels]
    gaps = np.array([differences(ticket, dense) for ticket in tickets])
    return estimate_crossing(
        results.densities, gaps, question.margin, alpha=question.alpha, resamples=resamples, seed=question.seed
    )
