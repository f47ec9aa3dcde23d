"""The judge: from results to verdicts, certificates and an estimate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
from tombola.stats.magnitude import divided, magnitude
from tombola.stats.notes import notes_on
from tombola.stats.paired import MIN_REPLICATES, TOLERANCE, Floats, differences
from tombola.stats.power import required_replicates
from tombola.stats.results import LevelResults, Results, Run, drop_incomplete
from tombola.stats.scale import ACCURACY, Scale
from tombola.stats.sequence import default_gates, passed, pick_gates


@dataclass(frozen=True)
class _Question:
    """What is asked of every level; ``unit`` is the power of two by which tests divide scores and margin."""

    margin: float
    alpha: float
    eta: float
    lottery: bool
    longer: bool
    early: str | None
    speed: str | None
    seed: int
    scale: Scale
    unit: float


@dataclass(frozen=True)
class _Dense:
    """The dense networks' side of every comparison, per family; scores are divided by the unit."""

    budget: Floats
    early: Floats | None
    first: tuple[Run, ...]


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
    longer: bool = True,
    early: str | None = None,
    speed: str | None = None,
    score: Scale = ACCURACY,
    bootstrap: int = 2000,
    seed: int = 0,
) -> Judgement:
    """Decide at which densities the ticket trains as well as the dense network, and how sparse that is certain.

    The three clauses of Frankle & Carbin (2019), section 1, each with its own certificate: test accuracy, or another
    score, after the same number of iterations ("budget", the hypothesis as stated), the same at the early-stop
    iteration ("early"), and the early-stop iteration itself ("speed"). Each is a one-sided paired t test of
    non-inferiority at each gate, with the level's own standard deviation, and each certificate is the fixed sequence of
    its tests from dense to sparse.

    "Wins" asks besides that the ticket beat every control of its level, Holm-adjusted over the controls. That test is
    made at each level by itself; at the certified density, which the data chose, a ticket equal to its control is said
    to win with a probability of alpha or less all the same (simulated: at most 0.051 for alpha 0.05).

    Args:
        results: the study; incomplete replicates are left out, see :func:`drop_incomplete`.
        margin: what may be lost, in the units of the score, fixed before looking; of accuracy a fraction in [0, 0.5]:
            0.002 is 0.2 points; of another score any finite number of at least 0.
        gates: densities tested in sequence, fixed before looking; ``None`` for :func:`default_gates`.
        alpha: one-sided level, in (0, 0.5).
        eta: share by which the early-stop iteration may be later, in [0, 1].
        lottery: ``False`` where survivors keep trained values (fine-tuning, learning-rate rewinding) or masks change in
            training; the best verdict is then "matches".
        longer: where ``lottery`` is ``False``, whether what is judged was trained for longer in all than the dense
            network; ``False`` where masks change in training.
        early: why the early certificate does not apply (no validation loss), or ``None`` where it does.
        speed: why the speed certificate does not apply (a step or cosine schedule), or ``None`` where it does.
        score: what networks are scored by, larger being better. Which one makes no difference to any test: scores and
            margin multiplied by one positive number, and the scores moved by another, give the same verdicts.
        bootstrap: resamples for the interval of the estimate; 0 for none.
        seed: of the bootstrap and of random sign flips.

    Raises:
        InvalidValue: a setting out of its range, or a gate that is not a level.
        InvalidResults: the results do not fit together, or no complete replicate is left.
    """
    score.check_margin(margin)
    _check_settings(alpha, eta, bootstrap)
    kept, dropped = drop_incomplete(results, score=score)
    if not kept.replicates:
        reasons = " ".join(dropped[:3]) or "There is no replicate."
        raise InvalidResults(f"no replicate has a result in every cell. {reasons} Complete at least one, better five.")
    sequence = default_gates(kept.densities) if gates is None else pick_gates(gates, kept.densities)
    scale = score.fitted(margin)
    question = _Question(margin, alpha, eta, lottery, longer, early, speed, seed, scale, magnitude(kept, margin, scale))
    dense = _dense(kept, question)
    measured = [_measure(level, dense, question) for level in kept.levels]
    certified = _certify(measured, sequence)
    chosen = frozenset(sequence)
    levels = tuple(_decide(level, chosen, certified["budget"], question) for level in measured)
    decisive = certified["budget"] or sequence[0]
    main = next(level for level in levels if level.density == decisive)
    missing = _not_applicable(measured, question)
    estimate = _estimate(kept, dense, question, bootstrap)
    return Judgement(
        verdict=main.verdict,
        sentence=sentences.overall(
            main, certified, missing, sequence, estimate, dropped, scale=scale, lottery=lottery, longer=longer
        ),
        certified=certified,
        not_applicable=missing,
        estimate=estimate,
        levels=levels,
        gates=sequence,
        replicates=kept.replicates,
        dense_runs=tuple(len(runs) for runs in kept.dense),
        dropped=dropped,
        score=scale.name,
        margin=margin,
        alpha=alpha,
        eta=eta,
        lottery=lottery,
        notes=notes_on(kept, [level for level in levels if level.gate], margin, alpha, len(dropped), scale),
    )


def _check_settings(alpha: float, eta: float, bootstrap: int) -> None:
    if not 0 < alpha < 0.5:
        raise InvalidValue(f"alpha is {alpha:g}. It is a one-sided error rate between 0 and 0.5, such as 0.05.")
    if not 0 <= eta <= 1:
        raise InvalidValue(f"eta is {eta:g}. It is a share of iterations between 0 and 1: 0.1 allows 10 % more.")
    if bootstrap < 0:
        raise InvalidValue(f"bootstrap is {bootstrap}. Give the number of resamples, 0 for no interval.")


def _dense(results: Results, question: _Question) -> _Dense:
    """Average each family's dense runs; the early stop counts where every one of them kept its score there."""
    early = [_known(run.test_accuracy_at_early_stop for run in runs) for runs in results.dense]
    complete = question.early is None and all(early)
    return _Dense(
        budget=_means([[run.test_accuracy for run in runs] for runs in results.dense], question),
        early=_means([values for values in early if values], question) if complete else None,
        first=tuple(runs[0] for runs in results.dense),
    )


def _means(families: Sequence[Sequence[float]], question: _Question) -> Floats:
    return np.array([np.mean(divided(values, question.unit)) for values in families])


def _known(values: Iterable[float | None]) -> list[float] | None:
    """Give the values, or ``None`` where one is missing."""
    known = []
    for value in values:
        if value is None or math.isnan(value):
            return None
        known.append(value)
    return known


def _measure(level: LevelResults, dense: _Dense, question: _Question) -> _Level:
    ticket = [run for run in level.arms["ticket"] if run is not None]
    values = _final(ticket, question)
    controls = {name: _final([run for run in level.arms[name] if run is not None], question) for name in level.controls}
    compared = compare_with_controls(values, controls, margin=question.margin / question.unit, alpha=question.alpha)
    return _Level(
        density=level.density,
        budget=_against(values, dense.budget, question),
        early=_early(ticket, dense.early, question),
        speed=_speed(ticket, dense.first, question),
        controls={name: control.times(question.unit) for name, control in compared.items()},
    )


def _final(runs: Sequence[Run], question: _Question) -> Floats:
    return divided([run.test_accuracy for run in runs], question.unit)


def _against(ticket: Floats, dense: Floats, question: _Question) -> Comparison:
    """Compare divided scores, and say the result in the units of the score."""
    compared = compare_with_dense(
        ticket, dense, margin=question.margin / question.unit, alpha=question.alpha, seed=question.seed
    )
    return compared.times(question.unit)


def _early(tickets: Sequence[Run], dense: Floats | None, question: _Question) -> Comparison | None:
    """Compare scores at the early stop where every run kept its own."""
    values = _known(run.test_accuracy_at_early_stop for run in tickets)
    if values is None or dense is None:
        return None
    return _against(divided(values, question.unit), dense, question)


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
    chosen = set(gates)
    at = [level for level in levels if level.density in chosen]
    outcomes = {
        "budget": [level.budget.non_inferior for level in at],
        "early": [level.early is not None and level.early.non_inferior for level in at],
        "speed": [level.speed is not None and level.speed.not_slower for level in at],
    }
    counts = {name: int(passed(outcome)) for name, outcome in outcomes.items()}
    return {name: gates[count - 1] if count else None for name, count in counts.items()}


def _not_applicable(levels: Sequence[_Level], question: _Question) -> dict[str, str]:
    reasons = {}
    if question.early is not None:
        reasons["early"] = question.early
    elif all(level.early is None for level in levels):
        reasons["early"] = f"No {question.scale.name} at the early-stop iteration was kept."
    if question.speed is not None:
        reasons["speed"] = question.speed
    elif all(level.speed is None for level in levels):
        reasons["speed"] = "No early-stop iteration was kept."
    return reasons


def _decide(level: _Level, gates: frozenset[float], certified: float | None, question: _Question) -> LevelVerdict:
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
        scale=question.scale,
        margin=question.margin,
        alpha=question.alpha,
        lottery=question.lottery,
        longer=question.longer,
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
        sentence=f"{sentence} {sentences.standing(gate, reached, certified, question.scale)}",
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
    if distance < TOLERANCE * question.unit:
        distance = 0.0
    return required_replicates(distance, budget.sd, 0.0, alpha=question.alpha)


def _estimate(results: Results, dense: _Dense, question: _Question, resamples: int) -> Estimate:
    tickets = [_final([run for run in level.arms["ticket"] if run is not None], question) for level in results.levels]
    gaps = np.array([differences(ticket, dense.budget) for ticket in tickets])
    return estimate_crossing(
        results.densities,
        gaps,
        question.margin / question.unit,
        alpha=question.alpha,
        resamples=resamples,
        seed=question.seed,
    )
