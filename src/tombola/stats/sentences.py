"""What the judge says to a person; no sentence claims more than its test rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tombola.stats.comparison import Comparison, ControlComparison
from tombola.stats.estimate import Estimate
from tombola.stats.judgement import LevelVerdict, Verdict
from tombola.stats.paired import MIN_REPLICATES
from tombola.stats.scale import Scale
from tombola.stats.wording import (
    at_most_thousand,
    counted,
    level_of,
    listed,
    p_text,
    percent,
)


def _certificate(name: str, scale: Scale, *, lottery: bool = True) -> str:
    """Name a certificate; survivors that keep trained values have had more iterations than the dense network."""
    budget = "after the same number of iterations" if lottery else "after the last iteration"
    named = {"budget": f"{scale.name} {budget}", "early": f"{scale.name} at the early stop", "speed": "speed"}
    return named[name]


def level(
    density: float,
    verdict: Verdict,
    budget: Comparison,
    controls: Mapping[str, ControlComparison],
    needed: int | None,
    *,
    scale: Scale,
    margin: float,
    alpha: float,
    lottery: bool,
    longer: bool = True,
) -> str:
    """Say the verdict at one density, with the numbers it rests on."""
    claim = (
        f"{verdict.sentence.format(density=percent(density))}: {against_dense(verdict, budget, scale, margin, alpha)}"
    )
    if verdict is Verdict.CANNOT_TELL:
        return f"{claim}; {_would_tell(budget, needed)}."
    if verdict is Verdict.LOSES:
        return f"{claim}."
    if verdict is Verdict.WINS:
        return f"{claim}, above {_superior(controls, scale)}."
    if not lottery and not longer:
        return (
            f"{claim}. Its mask changed while it trained, so there are no initial values whose part could be judged, "
            "and nothing is claimed about them or about speed."
        )
    if not lottery:
        return (
            f"{claim}. The survivors keep trained values and were trained for longer in all than the dense network, so "
            "nothing is claimed about initial values or about speed."
        )
    if not controls:
        return f"{claim}. No control was run at this level, so nothing is claimed about a lottery effect."
    if verdict is Verdict.MATCHES_NO_EFFECT:
        return f"{claim}. {_equivalent(controls, scale, margin)}"
    return f"{claim}. Whether there is a lottery effect cannot be told: {_undecided(controls, scale)}."


def against_dense(verdict: Verdict, budget: Comparison, scale: Scale, margin: float, alpha: float) -> str:
    """Say the difference with the limit its verdict rests on."""
    decisive = budget.upper if verdict is Verdict.LOSES else budget.lower
    digits = scale.digits_apart(decisive, -margin)
    lower, upper = scale.difference(budget.lower, digits=digits), scale.difference(budget.upper, digits=digits)
    if budget.sd is None:
        limit = "no interval"
    elif verdict is Verdict.CANNOT_TELL:
        limit = f"{level_of(1 - 2 * alpha)} interval {lower} to {upper}"
    elif verdict is Verdict.LOSES:
        limit = f"{level_of(1 - alpha)} upper limit {upper}"
    else:
        limit = f"{level_of(1 - alpha)} lower limit {lower}"
    return (
        f"test {scale.name} {scale.amount(budget.mean, digits=digits)} against dense "
        f"(n = {budget.n}, {limit}, margin {scale.difference(margin, signed=False, digits=digits)})"
    )


def _would_tell(budget: Comparison, needed: int | None) -> str:
    if budget.n < MIN_REPLICATES:
        be = "is" if budget.n == 1 else "are"
        return f"a verdict needs at least {MIN_REPLICATES} replicates, and there {be} {budget.n}"
    return f"{at_most_thousand(needed)} replicates would tell with power 0.8 if this mean and spread are the truth"


def _superior(controls: Mapping[str, ControlComparison], scale: Scale) -> str:
    """Name every control with its gap; Holm is named once, where there is something to adjust for."""
    kind = "Holm p" if len(controls) > 1 else "p"
    parts = []
    for name, control in controls.items():
        parts.append(f"{name} by {scale.difference(control.mean, signed=False)} ({kind} {p_text(control.p_holm)})")
        kind = "p"
    return listed(parts)


def _equivalent(controls: Mapping[str, ControlComparison], scale: Scale, margin: float) -> str:
    parts = [
        f"{name} ({scale.amount(control.mean)}, equivalence p {p_text(control.p_equivalence)})"
        for name, control in controls.items()
        if control.equivalent
    ]
    return f"It is within {scale.amount(margin, signed=False)}, either way, of {listed(parts)}."


def _undecided(controls: Mapping[str, ControlComparison], scale: Scale) -> str:
    parts = []
    for name, control in controls.items():
        if control.superior:
            continue
        more = ""
        if control.mean > 0:
            more = f", {at_most_thousand(control.required_replicates)} replicates would show it if real"
        kind = "Holm p" if len(controls) > 1 else "p"
        parts.append(f"{name} ({scale.amount(control.mean)}, {kind} {p_text(control.p_holm)}{more})")
    return f"the ticket is shown neither better than {' or '.join(parts)} nor equal to it"


def standing(gate: bool, reached: bool, certified: float | None, scale: Scale) -> str:
    """Say where a level stands in the budget certificate, which is about the score, not about controls."""
    if reached and certified is not None:
        return f"Certified to {percent(certified)} by {scale.name}."
    if not gate:
        return "Not a gate, so not certified."
    return "Not certified." if certified is None else f"Not certified; the certificate ends at {percent(certified)}."


def overall(
    main: LevelVerdict,
    certified: Mapping[str, float | None],
    not_applicable: Mapping[str, str],
    gates: Sequence[float],
    estimate: Estimate,
    dropped: Sequence[str],
    *,
    scale: Scale,
    lottery: bool,
    longer: bool = True,
) -> str:
    """Say the whole judgement in one paragraph."""
    known = main.sentence.removesuffix(" " + standing(main.gate, main.certified, certified["budget"], scale))
    parts = [known, _certificates(certified, not_applicable, gates, scale=scale, lottery=lottery or not longer)]
    parts += [
        f"{_capitalised(_certificate(name, scale))} was not judged: {why.rstrip('.')}."
        for name, why in not_applicable.items()
    ]
    parts.append(_crossing(estimate))
    if dropped:
        parts.append(f"{counted(len(dropped), 'replicate')} left out for want of a result.")
    return " ".join(parts)


def _certificates(
    certified: Mapping[str, float | None],
    not_applicable: Mapping[str, str],
    gates: Sequence[float],
    *,
    scale: Scale,
    lottery: bool,
) -> str:
    reached = [
        f"to {percent(density)} by {_certificate(name, scale, lottery=lottery)}"
        for name, density in certified.items()
        if density is not None
    ]
    failed = [
        f"by {_certificate(name, scale, lottery=lottery)}"
        for name, density in certified.items()
        if density is None and name not in not_applicable
    ]
    tested = f"(gates {', '.join(percent(gate) for gate in gates)}, each claim tested by itself)"
    if not reached:
        return f"No density is certified {' or '.join(failed)} {tested}."
    return f"Certified {listed(reached)} {tested}." + (f" Not certified {' or '.join(failed)}." if failed else "")


def _capitalised(text: str) -> str:
    """Begin a sentence; a first word with capitals of its own, such as mIoU, stays as it is."""
    return text[0].upper() + text[1:] if text.split()[0].islower() else text


def _crossing(estimate: Estimate) -> str:
    """Say the estimate so that nobody takes it for the certificate."""
    beyond = "sparser than the sparsest level"
    where = beyond if estimate.density is None else f"near {percent(estimate.density)}"
    text = f"Estimate, not a guarantee: the margin is crossed {where}"
    if not estimate.resamples:
        return text + "."
    low = beyond if estimate.low is None else percent(estimate.low)
    high = beyond if estimate.high is None else percent(estimate.high)
    if low == high:
        return f"{text} ({level_of(estimate.confidence)} interval: {low})."
    return f"{text} ({level_of(estimate.confidence)} interval: {high} to {low})."
