"""Two arms side by side: what the tests say of ticket against dense, and of ticket against each control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from tombola.stats.paired import (
    MIN_REPLICATES,
    Floats,
    differences,
    effect_size,
    equivalence,
    sign_flip,
    t_test,
)
from tombola.stats.power import required_replicates
from tombola.stats.sequence import holm


@dataclass(frozen=True)
class MeanInterval:
    """The mean of one arm with its two-sided 1 - alpha t interval; infinite ends for one replicate."""

    mean: float
    low: float
    high: float

    def times(self, unit: float) -> MeanInterval:
        """Return the same in a smaller unit."""
        return MeanInterval(self.mean * unit, self.low * unit, self.high * unit)


@dataclass(frozen=True)
class Comparison:
    """Ticket against dense, in the units of the score: accuracies are fractions.

    Attributes:
        n: replicates.
        mean: of the paired differences, ticket minus the mean of the family's dense runs.
        sd: of the differences; ``None`` for one replicate.
        lower: one-sided 1 - alpha limit from below; ``-inf`` for one replicate.
        upper: one-sided 1 - alpha limit from above.
        p: of the null hypothesis that the ticket is worse by at least the margin, one-sided paired t.
        p_sign_flip: of the same, assuming only symmetric scatter; at least 2^-n.
        effect: Hedges' g_z; ``None`` below three replicates or without spread.
        non_inferior: p < alpha, with at least three replicates.
        inferior: the upper limit is below ``-margin``, with at least three replicates.
        ticket: the ticket's score.
        dense: the dense network's.
    """

    n: int
    mean: float
    sd: float | None
    lower: float
    upper: float
    p: float
    p_sign_flip: float
    effect: float | None
    non_inferior: bool
    inferior: bool
    ticket: MeanInterval
    dense: MeanInterval

    def times(self, unit: float) -> Comparison:
        """Return the same in a smaller unit; p values and the effect have none."""
        return replace(
            self,
            mean=self.mean * unit,
            sd=None if self.sd is None else self.sd * unit,
            lower=self.lower * unit,
            upper=self.upper * unit,
            ticket=self.ticket.times(unit),
            dense=self.dense.times(unit),
        )


@dataclass(frozen=True)
class SpeedComparison:
    """Early-stop iteration of the ticket against that of the family's first dense run, on a log scale.

    Attributes:
        n: replicates.
        ratio: geometric mean of ticket over dense as observed; below 1 the ticket is faster. With a censored ticket the
            true one is larger.
        ratio_lower: one-sided 1 - alpha limit from below; 0 for one replicate.
        ratio_upper: one-sided 1 - alpha limit from above; infinite for one replicate or with a censored ticket.
        sd: of the natural log ratios as observed; ``None`` for one replicate.
        p: of the null hypothesis that the ratio is at least 1 + eta: paired t; with a censored ticket a sign test on
            the median, in which it counts as later.
        not_slower: p < alpha, with at least three replicates.
        slower: the lower limit is above 1 + eta, with at least three replicates and no censored dense run.
        censored_tickets: tickets whose minimum was the last evaluation.
        censored_dense: dense runs of that kind; they count as they are, which cannot help the ticket.
    """

    n: int
    ratio: float
    ratio_lower: float
    ratio_upper: float
    sd: float | None
    p: float
    not_slower: bool
    slower: bool
    censored_tickets: int
    censored_dense: int


@dataclass(frozen=True)
class ControlComparison:
    """Ticket against one control at the same density, in the units of the score.

    Attributes:
        n: replicates.
        mean: of the paired differences, ticket minus control.
        lower: one-sided 1 - alpha limit from below.
        upper: one-sided 1 - alpha limit from above.
        p: of the null hypothesis that the ticket is not better, one-sided paired t.
        p_holm: the same, adjusted for the controls of this level.
        superior: p_holm < alpha, with at least three replicates.
        p_equivalence: of the null hypothesis that the two differ by at least the margin, either way.
        equivalent: p_equivalence < alpha, with at least three replicates.
        required_replicates: that would show superiority with power 0.8 if the observed mean and spread are the truth;
            ``None`` for more than 1000, or when the control is ahead.
        control: the control's score.
    """

    n: int
    mean: float
    lower: float
    upper: float
    p: float
    p_holm: float
    superior: bool
    p_equivalence: float
    equivalent: bool
    required_replicates: int | None
    control: MeanInterval

    def times(self, unit: float) -> ControlComparison:
        """Return the same in a smaller unit; p values have none."""
        return replace(
            self,
            mean=self.mean * unit,
            lower=self.lower * unit,
            upper=self.upper * unit,
            control=self.control.times(unit),
        )


def mean_interval(values: ArrayLike, alpha: float) -> MeanInterval:
    """Return the mean of ``[R]`` values with its two-sided t interval."""
    test = t_test(values, alpha=alpha / 2)
    return MeanInterval(float(test.mean), float(test.lower), float(test.upper))


def compare_with_dense(ticket: Floats, dense: Floats, *, margin: float, alpha: float, seed: int = 0) -> Comparison:
    """Compare ``[R]`` scores of tickets with those of their families' dense networks."""
    difference = differences(ticket, dense)
    test = t_test(difference, null=-margin, alpha=alpha)
    # The same test from the other side: its p is below alpha when the upper limit is below -margin.
    enough = difference.size >= MIN_REPLICATES
    return Comparison(
        n=difference.size,
        mean=float(test.mean),
        sd=finite(test.sd),
        lower=float(test.lower),
        upper=float(test.upper),
        p=float(test.p_greater),
        p_sign_flip=sign_flip(difference, margin, seed=seed),
        effect=effect_size(difference),
        non_inferior=enough and bool(test.p_greater < alpha),
        inferior=enough and bool(test.p_less < alpha),
        ticket=mean_interval(ticket, alpha),
        dense=mean_interval(dense, alpha),
    )


def compare_speed(
    ticket: Floats, dense: Floats, *, eta: float, alpha: float, censored_tickets: Sequence[bool], censored_dense: int
) -> SpeedComparison:
    """Compare ``[R]`` early-stop iterations, all positive, of tickets with those of the first dense runs.

    A censored ticket's iteration is only a lower bound, and a number put in its place would narrow the spread that the
    t test goes by. So with a censored ticket the p value is that of a sign test on the median, in which every censored
    ticket counts as later. A censored dense run stays as it is: its true iteration could only help the ticket.
    """
    limit = math.log1p(eta)
    ratio = differences(np.log(ticket), np.log(dense))
    censored = np.asarray(censored_tickets, dtype=bool)
    test = t_test(ratio, null=limit, alpha=alpha)
    p = float(test.p_less)
    if censored.any():
        from scipy.special import bdtr

        p = float(bdtr(int(((ratio >= limit) | censored).sum()), ratio.size, 0.5))
    enough = ratio.size >= MIN_REPLICATES
    return SpeedComparison(
        n=ratio.size,
        ratio=math.exp(test.mean),
        ratio_lower=math.exp(test.lower),
        ratio_upper=math.inf if censored.any() else _exp(float(test.upper)),
        sd=finite(test.sd),
        p=p,
        not_slower=enough and p < alpha,
        slower=enough and not censored_dense and bool(test.p_greater < alpha),
        censored_tickets=sum(censored_tickets),
        censored_dense=censored_dense,
    )


def compare_with_controls(
    ticket: Floats, controls: Mapping[str, Floats], *, margin: float, alpha: float
) -> dict[str, ControlComparison]:
    """Compare ``[R]`` scores of tickets with each control's, Holm-adjusted over the controls."""
    gaps = {name: differences(ticket, values) for name, values in controls.items()}
    tests = {name: t_test(gap, alpha=alpha) for name, gap in gaps.items()}
    adjusted = dict(zip(tests, holm([float(test.p_greater) for test in tests.values()]), strict=True))
    compared = {}
    for name, test in tests.items():
        enough = gaps[name].size >= MIN_REPLICATES
        p_equivalence = float(equivalence(gaps[name], margin))
        sd = finite(test.sd)
        compared[name] = ControlComparison(
            n=gaps[name].size,
            mean=float(test.mean),
            lower=float(test.lower),
            upper=float(test.upper),
            p=float(test.p_greater),
            p_holm=adjusted[name],
            superior=enough and adjusted[name] < alpha,
            p_equivalence=p_equivalence,
            equivalent=enough and p_equivalence < alpha,
            # alpha over their number is the strictest step of Holm's procedure, so this R is enough at any step.
            required_replicates=None
            if sd is None
            else required_replicates(float(test.mean), sd, 0.0, alpha=alpha / len(gaps)),
            control=mean_interval(controls[name], alpha),
        )
    return compared


def finite(value: ArrayLike) -> float | None:
    """Return a float, or ``None`` for NaN and infinities."""
    number = float(np.asarray(value))
    return number if math.isfinite(number) else None


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
