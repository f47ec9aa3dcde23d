"""The verdict of several looks as one: which gates are settled, what is certified, and what was saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tombola.errors import InvalidResults, InvalidValue
from tombola.stats import sentences
from tombola.stats.comparison import Comparison
from tombola.stats.judgement import Judgement, LevelVerdict, Verdict
from tombola.stats.looks import Looks
from tombola.stats.paired import MIN_REPLICATES
from tombola.stats.power import power_non_inferiority, required_replicates
from tombola.stats.sequence import passed
from tombola.stats.wording import at_most_thousand, counted, level_of, listed, percent

POWER: Final = 0.8
# Three families say little of a mean. Simulated at a distance of 1 sd from the margin, giving gates up by the mean as
# it is seen takes power from 0.90 to 0.48; by its upper limit at this level to 0.88 only.
BENEFIT_OF_DOUBT: Final = 0.9

_NOTE: Final = (
    "Each certificate, and the limits of all looks together, are wrong with probability at most {alpha:g}: the looks' "
    "error rates add up to it. A mean that ended the search is a little flattering."
)


class GateState(Enum):
    """Where a gate stands in the budget certificate; only ``OPEN`` is a reason to add families."""

    CERTIFIED = "certified"
    SHORT = "falls short"
    FUTILE = "futile"
    BEYOND = "beyond the end"
    OPEN = "open"


@dataclass(frozen=True)
class Gate:
    """One gate after a look.

    Attributes:
        density: of the gate.
        state: where it stands.
        sentence: the same for a person.
        look: at which it was certified or shown to fall short, counted from 1; ``None`` in other states.
        needed: families, see :func:`needed_replicates`, of a gate that is open or futile; ``None`` for more than 1000.
    """

    density: float
    state: GateState
    sentence: str
    look: int | None = None
    needed: int | None = None


@dataclass(frozen=True)
class Settled:
    """All gates, dense to sparse, after a look, counted from 1."""

    look: int
    gates: tuple[Gate, ...]

    @property
    def all(self) -> bool:
        """Whether no gate is open, so that more families are not worth their cost."""
        return all(gate.state is not GateState.OPEN for gate in self.gates)


@dataclass(frozen=True)
class Reached:
    """A density that a certificate covers, and the look after which it did; ``families`` are those complete then."""

    density: float
    look: int
    families: int


@dataclass(frozen=True)
class Sequential:
    """What all looks taken say together.

    Attributes:
        judgement: the last look's, with what earlier looks certified. Its ``alpha`` is the last look's, as its limits
            are; each certificate's error rate is ``plan.alpha``.
        plan: the looks planned.
        certified: ``"budget"``, ``"early"`` and ``"speed"`` -> every gate certified, dense to sparse.
        settled: the gates after the last look.
        families: run, complete or not.
        saved: families of the plan that were not run.
        sentence: how often was looked, at which error rates, and what was saved.
    """

    judgement: Judgement
    plan: Looks
    certified: Mapping[str, tuple[Reached, ...]]
    settled: Settled
    families: int
    saved: int
    sentence: str

    def as_json(self) -> dict[str, object]:
        """Give plain dicts, lists, strings, numbers and ``None``, without the judgement, which has its own."""
        return {
            "sizes": list(self.plan.sizes),
            "alphas": list(self.plan.alphas),
            "alpha": self.plan.alpha,
            "looks": self.settled.look,
            "families": self.families,
            "saved": self.saved,
            "certified": {name: [asdict(one) for one in reached] for name, reached in self.certified.items()},
            "gates": [{**asdict(gate), "state": gate.state.value} for gate in self.settled.gates],
            "sentence": self.sentence,
        }


def needed_replicates(budget: Comparison, *, margin: float, plan: Looks, look: int) -> int | None:
    """Say how many families would show non-inferiority with power 0.8 if the mean and spread seen are the truth.

    Args:
        budget: ticket against dense at a gate that has not passed.
        margin: what may be lost, in the units of the score.
        plan: the looks.
        look: the one taken last, counted from 1.

    Returns:
        The families of the first later look that is enough at its error rate; where none is, how many would be at the
        last look's, which is more than the plan has; ``None`` for more than 1000. Families that were left out so far
        count on top.
    """
    lost = plan.sizes[look - 1] - budget.n
    if budget.sd is None or budget.n < MIN_REPLICATES:
        return next((size for size in plan.sizes[look:] if size - lost >= MIN_REPLICATES), MIN_REPLICATES + lost)
    for size in _enough(budget.mean, budget, margin, plan, look):
        return size
    # Equal differences that do not pass lie at the margin or below, by less than rounding.
    needed = None if budget.sd == 0 else required_replicates(budget.mean, budget.sd, margin, alpha=plan.alphas[-1])
    return None if needed is None else needed + lost


def _enough(mean: float, budget: Comparison, margin: float, plan: Looks, look: int) -> list[int]:
    """List the later looks' families that would show non-inferiority with the wanted power."""
    if not budget.sd:
        return []
    lost = plan.sizes[look - 1] - budget.n
    later = list(zip(plan.sizes, plan.alphas, strict=True))[look:]
    return [n for n, alpha in later if power_non_inferiority(n - lost, mean, budget.sd, margin, alpha) >= POWER]


def _futile(budget: Comparison, margin: float, plan: Looks, look: int) -> bool:
    """Whether no later look is enough, with the benefit of the doubt for the mean."""
    from scipy.special import stdtrit

    if look == len(plan.sizes):
        return True
    if budget.sd is None or budget.n < MIN_REPLICATES:
        return plan.largest - (plan.sizes[look - 1] - budget.n) < MIN_REPLICATES
    highest = budget.mean + float(stdtrit(budget.n - 1, BENEFIT_OF_DOUBT)) * budget.sd / math.sqrt(budget.n)
    return not _enough(highest, budget, margin, plan, look)


def settled(judgements: Sequence[Judgement], plan: Looks) -> Settled:
    """Say of each gate whether more families are worth their cost, by the budget certificate.

    A gate is settled when it is certified, when a look's upper limit showed it to fall short, when the plan is too
    small for it, or when a denser gate is settled without a certificate, which ends the fixed sequence. Too small: even
    at the upper 90 % limit of the mean no later look would show non-inferiority with power 0.8. Stopping for that
    reason is not binding: whoever goes on all the same keeps the error rate, and stopping certifies nothing.

    Args:
        judgements: of the looks taken, first to last, each on all families until then and at its own error rate.
        plan: the looks.

    Raises:
        InvalidValue: no judgement, more than looks, or one at another error rate than its look's.
        InvalidResults: the judgements are not of one growing study.
    """
    _check(judgements, plan)
    tests = _passes(judgements, "budget")
    certified = {one.density: one for one in _reached(judgements, "budget")}
    gates: list[Gate] = []
    end: float | None = None
    for index, density in enumerate(judgements[-1].gates):
        if density in certified:
            one = certified[density]
            told = f"{percent(density)} is certified at look {one.look} with {_families(one.families)}."
            gates.append(Gate(density, GateState.CERTIFIED, told, look=one.look))
            continue
        gate = _short(judgements, density)
        if gate is None and end is not None:
            told = f"{percent(density)} cannot be certified: the sequence ends before {percent(end)}."
            gate = Gate(density, GateState.BEYOND, told)
        if gate is None and tests[:, index].any():
            told = f"{percent(density)} passes by itself and waits for the denser gates."
            gate = Gate(density, GateState.OPEN, told, needed=plan.sizes[len(judgements) - 1])
        gate = gate or _unsettled(
            density, _level(judgements[-1], density).budget, judgements[-1], plan, len(judgements)
        )
        if end is None and gate.state is not GateState.OPEN:
            end = density
        gates.append(gate)
    return Settled(len(judgements), tuple(gates))


def _short(judgements: Sequence[Judgement], density: float) -> Gate | None:
    """Find the first look whose upper limit lies below the margin."""
    for look, judgement in enumerate(judgements, 1):
        budget, scale = _level(judgement, density).budget, judgement.scale
        if budget.inferior:
            digits = scale.digits_apart(budget.upper, -judgement.margin)
            told = (
                f"{percent(density)} falls short, shown at look {look} with {_families(budget.n)}: "
                f"{level_of(1 - judgement.alpha)} upper limit {scale.difference(budget.upper, digits=digits)}, "
                f"margin {scale.difference(judgement.margin, signed=False, digits=digits)}."
            )
            return Gate(density, GateState.SHORT, told, look=look)
    return None


def _unsettled(density: float, budget: Comparison, judgement: Judgement, plan: Looks, look: int) -> Gate:
    needed = needed_replicates(budget, margin=judgement.margin, plan=plan, look=look)
    ends = f"the plan ends at {plan.largest}"
    if budget.n < MIN_REPLICATES:
        told = f"needs at least {MIN_REPLICATES} complete families, and there are {budget.n}"
    elif needed is None and budget.mean <= -judgement.margin:
        told = "would need a higher mean than the one seen, whatever the number of families"
    else:
        about = "" if needed is None else "about "
        told = f"needs {about}{at_most_thousand(needed)} families if the mean and spread seen are the truth"
    if _futile(budget, judgement.margin, plan, look):
        doubt = ", and too many even at the upper 90 % limit of the mean" if look < len(plan.sizes) else ""
        return Gate(density, GateState.FUTILE, f"{percent(density)} {told}{doubt}; {ends}.", needed=needed)
    if needed is None or needed > plan.largest:
        told = f"{told}; {ends}, which is enough at the upper 90 % limit of the mean"
    return Gate(density, GateState.OPEN, f"{percent(density)} is open: it {told}.", needed=needed)


def combine(judgements: Sequence[Judgement], plan: Looks, *, longer: bool = True) -> Sequential:
    """Join the looks taken into one judgement.

    A certificate covers a gate when this gate and every denser one passed its test at some look. Wrong coverage needs
    the densest gate whose null hypothesis is true to pass at some look, which has probability at most ``plan.alpha``.
    So what a look certified stays certified when a later one does not repeat it. Such a level keeps the verdict and the
    numbers of the look at which it passed, and its sentence gives the last look's as well.

    Every look's limits hold together at ``plan.alpha``. Means are a little flattering where they ended the search.

    Args:
        judgements: as for :func:`settled`.
        plan: the looks.
        longer: as it was given to :func:`~tombola.stats.verdict.judge`.

    Raises:
        InvalidValue: as for :func:`settled`.
        InvalidResults: likewise.
    """
    _check(judgements, plan)
    last, families = judgements[-1], plan.sizes[len(judgements) - 1]
    reached = {name: _reached(judgements, name) for name in last.certified}
    certified = {name: gates[-1].density if gates else None for name, gates in reached.items()}
    missing = {name: why for name, why in last.not_applicable.items() if certified[name] is None}
    levels = tuple(_kept(judgements, level, certified["budget"]) for level in last.levels)
    main = next(level for level in levels if level.density == (certified["budget"] or last.gates[0]))
    sentence = _looked(len(judgements), plan)
    study = (last.gates, last.estimate, last.dropped)
    text = sentences.overall(main, certified, missing, *study, scale=last.scale, lottery=last.lottery, longer=longer)
    judgement = replace(
        last,
        verdict=main.verdict,
        sentence=f"{text} {sentence}",
        certified=certified,
        not_applicable=missing,
        levels=levels,
        notes=(*last.notes, _NOTE.format(alpha=plan.alpha)),
    )
    return Sequential(
        judgement=judgement,
        plan=plan,
        certified=reached,
        settled=settled(judgements, plan),
        families=families,
        saved=plan.largest - families,
        sentence=sentence,
    )


def _check(judgements: Sequence[Judgement], plan: Looks) -> None:
    """Refuse judgements that are not this plan's looks on one growing study."""
    if not 0 < len(judgements) <= len(plan.sizes):
        raise InvalidValue(
            f"there are {counted(len(judgements), 'judgement')} for {counted(len(plan.sizes), 'look')}. "
            "Give those of the looks taken, first to last."
        )
    for look, (judgement, alpha, size) in enumerate(zip(judgements, plan.alphas, plan.sizes, strict=False), 1):
        if not math.isclose(judgement.alpha, alpha):
            raise InvalidValue(
                f"look {look} was judged at alpha {judgement.alpha:g}, and the plan has {alpha:g} for it. "
                f"Call judge(..., alpha=plan.alphas[{look - 1}])."
            )
        if len(judgement.replicates) + len(judgement.dropped) > size:
            raise InvalidResults(
                f"look {look} was judged on {len(judgement.replicates) + len(judgement.dropped)} families, and the "
                f"plan has {size} for it. Give the first {size}."
            )
    for look, (one, two) in enumerate(pairwise(judgements), 2):
        if _study(one) != _study(two) or not set(one.replicates) <= set(two.replicates):
            raise InvalidResults(
                f"look {look} is not of the same study as the look before: gates, margin, score "
                "and the other settings stay, and families are only added. Judge both with the same settings."
            )


def _study(judgement: Judgement) -> tuple[object, ...]:
    densities = tuple(level.density for level in judgement.levels)
    return densities, judgement.gates, judgement.margin, judgement.score, judgement.eta, judgement.lottery


def _passes(judgements: Sequence[Judgement], name: str) -> NDArray[np.bool_]:
    """Arrange the outcomes of one certificate's tests, each by itself: shape ``[looks, gates]``."""
    gates = judgements[0].gates
    return np.array([[_level(one, gate).clauses[name] is Verdict.MATCHES for gate in gates] for one in judgements])


def _reached(judgements: Sequence[Judgement], name: str) -> tuple[Reached, ...]:
    """Run a certificate's fixed sequence, where a gate falls as soon as its test rejects at some look."""
    tests, reached, look = _passes(judgements, name), [], 0
    for index in range(int(passed(tests.any(axis=0)))):
        look = max(look, int(tests[:, index].argmax()))
        reached.append(Reached(judgements[0].gates[index], look + 1, len(judgements[look].replicates)))
    return tuple(reached)


def _kept(judgements: Sequence[Judgement], level: LevelVerdict, certified: float | None) -> LevelVerdict:
    """Say of one level of the last look what all looks say."""
    last, scale = judgements[-1], judgements[-1].scale
    if not (level.gate and certified is not None and level.density >= certified):
        return replace(level, certified=False, sentence=_restated(level, last, certified))
    passes = [_level(one, level.density).budget.non_inferior for one in judgements]
    look = passes.index(True)
    remark = f"It passed at look {look + 1}, with {_families(len(judgements[look].replicates))}."
    if not passes[-1]:
        kept = _level(judgements[look], level.density)
        numbers = sentences.against_dense(level.verdict, level.budget, scale, last.margin, last.alpha)
        remark = f"{remark} The last look does not repeat it: {numbers}; it stays, as every look's error rate counts."
        clauses = {**level.clauses, "budget": kept.clauses["budget"]}
        level, last = replace(kept, early=level.early, speed=level.speed, clauses=clauses), judgements[look]
    return replace(level, certified=True, sentence=_restated(level, last, certified, remark))


def _restated(level: LevelVerdict, judgement: Judgement, certified: float | None, remark: str = "") -> str:
    """Replace where the level stood after its own look by where it stands after all."""
    scale, own = judgement.scale, judgement.certified["budget"]
    body = level.sentence.removesuffix(sentences.standing(level.gate, level.certified, own, scale)).rstrip()
    reached = bool(remark)
    return " ".join(filter(None, (body, remark, sentences.standing(level.gate, reached, certified, scale))))


def _looked(looks: int, plan: Looks) -> str:
    sizes, alphas = plan.sizes[:looks], [f"{alpha:g}" for alpha in plan.alphas[:looks]]
    saved = plan.largest - sizes[-1]
    return (
        f"Looked after {listed([str(size) for size in sizes])} of at most {plan.largest} families, at "
        f"{'error rates' if looks > 1 else 'error rate'} {listed(alphas)} of {plan.alpha:g} in all"
        f"{f'; {_families(saved)} not run' if saved else ''}."
    )


def _level(judgement: Judgement, density: float) -> LevelVerdict:
    return next(level for level in judgement.levels if level.density == density)


def _families(count: int) -> str:
    return f"{count} {'family' if count == 1 else 'families'}"
