"""Which single exchange brings a losing ticket back: the decision alone, on accuracies that somebody measured.

Every exchange puts one component of a healthy ticket in the place of the patient's, and is compared with the patient
data order by data order, so what counts as recovered is beyond the noise of this ticket. Three rules go with that:

- *The gap* is to the reference ticket, which has the patient's counts: at low density the dense network is out of reach
  of any exchange. Only where the reference ticket is no better, as under a learning rate that both suffer from, is the
  gap to the dense network, at the best rate that was tried.
- *Signs* are part of the values, and bring back nearly all that a new draw loses (Zhou et al. 2019, section 4; 90 to
  95 % at 7 % of LeNet-300-100). So what they recover cannot tell flipped signs from another draw. They are named only
  where they are all that differs: the magnitudes are the healthy ones.
- *A rewinding step* brings other values too, ones that healthy tickets do without. So the values are named unless it
  recovers clearly more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from itertools import chain
from typing import Any, Final, final

import numpy as np

from tombola.errors import InvalidValue
from tombola.stats.comparison import finite
from tombola.stats.paired import MIN_REPLICATES, TOLERANCE, Floats, differences, t_test
from tombola.stats.wording import points

ALPHA: Final = 0.05
"""Level of every one-sided limit."""

HALF: Final = 0.5
"""Share of the gap that a cause recovers at least."""

MOST: Final = 0.8
"""Share of what a larger exchange recovers from which on the smaller one inside it is named."""


class Cause(Enum):
    """What is wrong with a ticket; of two that recover as much the earlier one is named."""

    SIGNS = "signs"
    VALUES = "values"
    MASK = "mask"
    ORDER = "data order"
    STEP = "rewinding step"
    RATE = "learning rate"
    NONE = "none"
    NOT_BROKEN = "not broken"
    CANNOT_TELL = "cannot tell"

    @property
    def named(self) -> bool:
        """Whether it is a component of the ticket."""
        return self not in (Cause.NONE, Cause.NOT_BROKEN, Cause.CANNOT_TELL)


_REPAIRS: Final[Mapping[Cause, str]] = {
    Cause.SIGNS: "with the signs of the initial values",
    Cause.VALUES: "from the run's start values",
    Cause.MASK: "under the reference mask",
    Cause.ORDER: "in other data orders",
    Cause.STEP: "rewound to a later step",
    Cause.RATE: "at a lower learning rate",
}


_NESTED: Final = {Cause.STEP: (Cause.SIGNS, Cause.VALUES), Cause.VALUES: (Cause.SIGNS,)}
"""Exchange -> those inside it, the smallest first."""


@final
@dataclass(frozen=True)
class Arm:
    """What was trained.

    Attributes:
        name: unique.
        accuracies: in each data order, fractions; the same orders in every arm. NaN where there is none.
        cause: the component exchanged; ``None`` for a network that is none of the patient's.
    """

    name: str
    accuracies: Sequence[float]
    cause: Cause | None = None


@final
@dataclass(frozen=True)
class Effect:
    """What one exchange does.

    Attributes:
        name: the arm's.
        cause: the component exchanged.
        accuracy: the mean over data orders; ``None`` where it is not known.
        recovered: the mean paired difference to the patient.
        lower: one-sided 1 - alpha limit of it from below; ``None`` where nothing limits it.
        upper: from above.
        share: of the gap; ``None`` where there is no gap.
    """

    name: str
    cause: Cause
    accuracy: float | None
    recovered: float | None
    lower: float | None
    upper: float | None
    share: float | None

    @property
    def brings_back(self) -> bool:
        """Whether it recovers something beyond noise, and half of the gap."""
        return self.lower is not None and self.lower > 0 and self.share is not None and self.share >= HALF


@final
@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a ticket.

    Attributes:
        cause: what was named.
        exchange: the effect that it is named for; empty where none is.
        sentence: the same for a person, with its numbers.
        accuracy: the patient's, mean over data orders.
        target: the arm that the gap is to.
        gap: the target's mean accuracy minus the patient's; ``None`` where nothing healthy is known.
        lower: one-sided 1 - alpha limit of it from below; ``None`` where nothing limits it.
        upper: from above.
        dense_gain: what the dense network gains by a lower learning rate; ``None`` where nothing beyond the margin is
            shown.
        effects: of every exchange.
    """

    cause: Cause
    exchange: str
    sentence: str
    accuracy: float
    target: str
    gap: float | None
    lower: float | None
    upper: float | None
    dense_gain: float | None
    effects: tuple[Effect, ...]

    def as_json(self) -> dict[str, Any]:
        """Give plain values."""
        effects = [{**asdict(one), "cause": one.cause.value} for one in self.effects]
        return {**asdict(self), "cause": self.cause.value, "effects": effects}


def diagnose(
    patient: Sequence[float],
    own: float,
    exchanges: Sequence[Arm],
    *,
    reference: Arm,
    dense: Sequence[Arm],
    margin: float,
    signs_alone: bool = True,
    alpha: float = ALPHA,
) -> Diagnosis:
    """Name what is wrong with a ticket.

    Args:
        patient: its accuracy in each of some data orders, fractions.
        own: its accuracy in its own data order; NaN where that is not known. The patient in the other orders is the
            exchange of the order.
        exchanges: the patient with one component exchanged, in the same orders.
        reference: a healthy ticket, or as healthy as is known, in the same orders.
        dense: the whole network in the same orders, at the recipe's learning rate first and then at others.
        margin: what a ticket may lose and still not be broken.
        signs_alone: whether the start values differ in nothing but signs; else the exchange of signs names nothing.
        alpha: level of the limits.

    Returns:
        The exchange that recovers the most and at least half of the gap, its lower limit above 0.

    Raises:
        InvalidValue: the patient has an accuracy that is no number, or an arm has another number of them.

    Example:
        >>> healthy = Arm("reference", (0.98, 0.981, 0.979))
        >>> values = Arm("values", (0.979, 0.98, 0.978), Cause.VALUES)
        >>> diagnose((0.96, 0.961, 0.96), 0.96, [values], reference=healthy, dense=[], margin=0.002).cause
        <Cause.VALUES: 'values'>
    """
    sick = np.asarray(patient, dtype=np.float64)
    for one in (*exchanges, reference, *dense):
        if len(one.accuracies) != sick.size:
            raise InvalidValue(
                f"{one.name} was trained in {len(one.accuracies)} data orders and the patient in {sick.size}; they are "
                "compared order by order. Give both the same ones."
            )
    if not sick.size or not np.isfinite(sick).all():
        raise InvalidValue("the patient's accuracies are not all numbers, and everything is compared with them.")
    whole = sorted(filter(_known, dense), key=lambda one: sum(one.accuracies))[-1:]
    healthy = [one for one in (reference, *whole) if _known(one)]
    gaps = [(one, _Gap.of(differences(one.accuracies, sick), alpha)) for one in healthy]
    target, gap = next(((one, gap) for one, gap in gaps if gap.shown(margin)), gaps[-1] if gaps else (None, _Gap()))
    broken = gap.shown(margin)
    effects = [_effect(one, sick, gap.mean if broken else None, alpha) for one in exchanges]
    if math.isfinite(own) and target is not None:
        effects.append(_order(sick, own, float(np.mean(target.accuracies)), margin, alpha))
    found = _named(effects, signs_alone)
    cause = found.cause if found else _nothing(broken, [one for _, one in gaps], margin)
    name, gain = target.name if target else "", _rate_gain(dense, margin, alpha)
    below = "" if gap.mean is None else f"{points(gap.mean, signed=False)} points below the {name}"
    told = _sentence(found, below, own - float(sick.mean())) if found else _unnamed(cause, effects, below)
    return Diagnosis(
        cause,
        found.name if found else "",
        f"{told}{_besides(cause, effects, gain)}.",
        float(sick.mean()),
        name,
        gap.mean,
        finite(gap.lower),
        finite(gap.upper),
        gain,
        tuple(effects),
    )


@final
@dataclass(frozen=True)
class _Gap:
    mean: float | None = None
    lower: float = -math.inf
    upper: float = math.inf

    @staticmethod
    def of(difference: Floats, alpha: float, wider: float = 1.0) -> "_Gap":
        """Give the mean of differences with its limits, so many times as far from it as of a mean."""
        test = t_test(difference, alpha=alpha)
        mean = float(test.mean)
        if difference.size < MIN_REPLICATES:
            return _Gap(mean)
        half = (mean - float(test.lower)) * wider
        return _Gap(mean, mean - half, mean + half)

    def shown(self, margin: float) -> bool:
        return self.mean is not None and self.lower > 0 and self.mean > margin + TOLERANCE


def _known(one: Arm) -> bool:
    return all(map(math.isfinite, one.accuracies))


def _effect(one: Arm, sick: Floats, gap: float | None, alpha: float) -> Effect:
    assert one.cause is not None
    if not _known(one):
        return Effect(one.name, one.cause, None, None, None, None, None)
    found = _Gap.of(differences(one.accuracies, sick), alpha)
    assert found.mean is not None
    share = found.mean / gap if gap else None
    accuracy = float(np.mean(one.accuracies))
    return Effect(one.name, one.cause, accuracy, found.mean, finite(found.lower), finite(found.upper), share)


def _order(sick: Floats, own: float, healthy: float, margin: float, alpha: float) -> Effect:
    """Set the patient in other data orders against one run in its own.

    That run is one draw, and not a mean: under a healthy order it lies as far from the others' mean as any of them.
    """
    found = _Gap.of(differences(sick, own), alpha, wider=math.sqrt(sick.size + 1))
    assert found.mean is not None
    gap = healthy - own
    share = found.mean / gap if gap > margin + TOLERANCE and found.mean > margin + TOLERANCE else None
    accuracy = float(sick.mean())
    name = Cause.ORDER.value
    return Effect(name, Cause.ORDER, accuracy, found.mean, finite(found.lower), finite(found.upper), share)


def _named(effects: Sequence[Effect], signs_alone: bool) -> Effect | None:
    """Give the exchange that recovers the most, or a smaller one inside it that recovers nearly as much."""
    order = list(Cause)
    able = [one for one in effects if one.brings_back and (signs_alone or one.cause is not Cause.SIGNS)]
    # Of two that tie, max takes the first.
    able.sort(key=lambda one: order.index(one.cause))
    best = max(able, key=lambda one: one.recovered or 0.0, default=None)
    if best is not None and best.cause in _NESTED:
        inside = (one for one in able if one.cause in _NESTED[best.cause])
        best = next((one for one in inside if (one.recovered or 0.0) >= MOST * (best.recovered or 0.0)), best)
    return best


def _nothing(broken: bool, gaps: Sequence[_Gap], margin: float) -> Cause:
    if broken:
        return Cause.NONE
    unsure = any(gap.mean is not None and gap.mean > margin + TOLERANCE for gap in gaps)
    return Cause.CANNOT_TELL if unsure or not gaps else Cause.NOT_BROKEN


def _rate_gain(dense: Sequence[Arm], margin: float, alpha: float) -> float | None:
    """Give what the dense network gains by another rate than the recipe's, which is first; ``None`` if not shown."""
    known = [one for one in dense if _known(one)]
    gains = [_Gap.of(differences(one.accuracies, known[0].accuracies), alpha) for one in known[1:]]
    return max((gap.mean for gap in gains if gap.mean is not None and gap.shown(margin)), default=None)


def _besides(cause: Cause, effects: Sequence[Effect], gain: float | None) -> str:
    """Say what stands beside the cause: what its signs do, or whether the whole network suffers from the rate."""
    signs = next((one.share for one in effects if one.cause is Cause.SIGNS and one.share is not None), None)
    if cause is Cause.VALUES and signs is not None:
        return f"; its signs alone recover {100 * signs:.0f} %"
    if cause is Cause.RATE:
        does = "gains nothing by it" if gain is None else f"suffers too: it gains {points(gain, signed=False)} points"
        return f"; the dense network {does}"
    return ""


def _sentence(found: Effect, below: str, apart: float) -> str:
    """Say what is wrong, with the numbers."""
    assert found.recovered is not None
    assert found.lower is not None
    assert found.share is not None
    lost = f"the ticket is {below}"
    if found.cause is Cause.ORDER:
        lost = f"in its own data order the ticket is {points(-apart, signed=False)} points below itself in others"
    return (
        f"{found.cause.value}: {lost}, and {_REPAIRS[found.cause]} it recovers {points(found.recovered)} points (at "
        f"least {points(found.lower)}), {100 * found.share:.0f} % of its gap"
    )


def _unnamed(cause: Cause, effects: Sequence[Effect], below: str) -> str:
    """Say that nothing was named, and why."""
    if cause is Cause.NOT_BROKEN:
        return "not broken: the ticket is below neither the reference ticket nor the dense network by the margin"
    if cause is Cause.CANNOT_TELL:
        more = f"the ticket is {below}" if below else "no healthy network is known"
        return f"cannot tell: {more}, and so few data orders do not show a gap beyond the margin"
    most = 100 * max(chain([0.0], (one.share for one in effects if one.share is not None)))
    return f"none: the ticket is {below}, and no single exchange is shown to recover half of it (best: {most:.0f} %)"
