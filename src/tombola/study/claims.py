"""Published claims as data, and what a study says of each: reproduced, not reproduced, cannot tell.

A claim is settled by one number for each family and its 95 % t interval. The claim has a band: it is *reproduced*
where the whole interval lies in the band, *not reproduced* where it lies outside, and anything else cannot be told.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, final

from scipy.stats import t as student

from tombola.search.finding import Finding, LevelSummary
from tombola.stats import Run

_NEAR: Final = 1.15
"""A level stands for a published density when it is within this factor of it."""

_LEAST: Final = 3
_DATA: Final = "mnist"


class Settled(Enum):
    """What a study says of a claim."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    CANNOT_TELL = "cannot tell"


Measure = Callable[[Mapping[str, Finding]], Sequence[float]]
"""One number for each family, in the claim's unit; raises :class:`NotMeasured` where the study has none."""


class NotMeasured(Exception):
    """The study did not train what the claim is about; the message says what is missing."""


@final
@dataclass(frozen=True)
class Claim:
    """What a paper says, so that a number can bear it out or not.

    Attributes:
        name: short, with hyphens.
        text: the claim in a sentence of ours.
        source: paper and place.
        certainty: where the published value was read: ``text``, ``figure``, the authors' ``data``, or from ``memory``.
        published: the paper's number in ``unit``; ``None`` where it gives a direction only.
        band: what counts as the same finding, low and high in ``unit``.
        unit: ``%``, ``points`` (of accuracy) or ``times``.
        measure: how it is measured here.
    """

    name: str
    text: str
    source: str
    certainty: str
    published: float | None
    band: tuple[float, float]
    unit: str
    measure: Measure


@final
@dataclass(frozen=True)
class Settlement:
    """One claim, settled or not.

    Attributes:
        claim: which.
        verdict: what is said of it.
        measured: mean over the families; ``None`` where it was not measured.
        interval: 95 % t interval; ``None`` with fewer than three families.
        families: how many.
        why: what is missing, where it cannot be told for want of a measurement.
    """

    claim: Claim
    verdict: Settled
    measured: float | None
    interval: tuple[float, float] | None
    families: int
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """Give the documented object: plain values, no infinities."""
        claim = self.claim
        return {
            "name": claim.name,
            "claim": claim.text,
            "source": claim.source,
            "certainty": claim.certainty,
            "published": claim.published,
            "tolerance": [side if math.isfinite(side) else None for side in claim.band],
            "unit": claim.unit,
            "measured": self.measured,
            "interval": None if self.interval is None else list(self.interval),
            "families": self.families,
            "verdict": self.verdict.value,
            "why": self.why,
        }


def settle(claim: Claim, findings: Mapping[str, Finding]) -> Settlement:
    """Measure a claim and say whether it is borne out."""
    try:
        numbers = list(claim.measure(findings))
    except NotMeasured as missing:
        return Settlement(claim, Settled.CANNOT_TELL, None, None, 0, str(missing))
    mean = statistics.fmean(numbers) if numbers else None
    if mean is None or len(numbers) < _LEAST:
        why = f"{len(numbers)} families, and fewer than {_LEAST} cannot tell anything"
        return Settlement(claim, Settled.CANNOT_TELL, mean, None, len(numbers), why)
    half = float(student.ppf(0.975, len(numbers) - 1)) * statistics.stdev(numbers) / math.sqrt(len(numbers))
    low, high = mean - half, mean + half
    if claim.band[0] < low and high < claim.band[1]:
        verdict = Settled.REPRODUCED
    elif high <= claim.band[0] or low >= claim.band[1]:
        verdict = Settled.NOT_REPRODUCED
    else:
        verdict = Settled.CANNOT_TELL
    return Settlement(claim, verdict, mean, (low, high), len(numbers))


Place = tuple[str, float, str]
"""A search, a density and an arm of it; the arm ``dense`` is the mean of a family's dense runs, at any density."""


def earlier(place: Place, than: Place) -> Measure:
    """Measure by how many per cent one arm's early stop comes before another's."""
    return _paired(place, than, "early_stop_iteration", lambda one, other: 100 * (1 - one / max(1.0, other)))


def times_faster(place: Place, than: Place) -> Measure:
    """Measure how many times later another arm's early stop comes than this one's."""
    return _paired(place, than, "early_stop_iteration", lambda one, other: other / max(1.0, one))


def points_above(place: Place, other: Place, *, at_early_stop: bool = True) -> Measure:
    """Measure how many points of test accuracy an arm has above another."""
    score = "test_accuracy_at_early_stop" if at_early_stop else "test_accuracy"
    return _paired(place, other, score, lambda one, other: 100 * (one - other))


def points_above_at_best(places: Sequence[Place], others: Sequence[Place]) -> Measure:
    """Measure how many points of test accuracy an arm has above another, each where validation likes it best.

    Which network wins may depend on the learning rate that both were given, Liu et al. (2019), section 6; so each arm
    is taken from the search in which the mean of its validation accuracy is highest, and the test is looked at once.

    Args:
        places: one arm in several searches; of two that validation likes alike, the first.
        others: the other arm, likewise.
    """

    def measure(findings: Mapping[str, Finding]) -> list[float]:
        return list(points_above(_best(findings, places), _best(findings, others), at_early_stop=False)(findings))

    return measure


def _best(findings: Mapping[str, Finding], places: Sequence[Place]) -> Place:
    liked = {place: _scores(findings, place, "validation_accuracy") for place in places}
    for place, values in liked.items():
        if not values:
            raise NotMeasured(f"no family of the search {place[0]} is left")
    return max(liked, key=lambda place: statistics.fmean(liked[place].values()))


def above(
    name: str, text: str, source: str, place: Place, other: Place, *, least: float = 0.0, certainty: str = "text"
) -> Claim:
    """Claim a direction: an arm's test accuracy after the last iteration lies above another's.

    Args:
        name: of the claim, and ``text`` and ``source`` as in :class:`Claim`.
        text: the claim in a sentence.
        source: paper and place.
        place: the arm that is above.
        other: the arm that it is compared with.
        least: points that the difference exceeds; below 0 for an arm that only does not fall behind.
        certainty: where it was read.
    """
    measure = points_above(place, other, at_early_stop=False)
    return Claim(name, text, source, certainty, None, (least, math.inf), "points", measure)


def _paired(place: Place, other: Place, score: str, compare: Callable[[float, float], float]) -> Measure:
    def measure(findings: Mapping[str, Finding]) -> list[float]:
        one, against = _scores(findings, place, score), _scores(findings, other, score)
        return [compare(one[r], against[r]) for r in sorted(one.keys() & against.keys())]

    return measure


def _scores(findings: Mapping[str, Finding], place: Place, score: str) -> Mapping[int, float]:
    search, density, arm = place
    if search not in findings:
        raise NotMeasured(f"there is no result of a search called {search}")
    finding = findings[search]
    if finding.about["data"] != _DATA:
        raise NotMeasured(f"the claim is about {_DATA}, and the search is on {finding.about['data']}")
    if arm == "dense":
        return {r: statistics.fmean(_of(run, score) for run in runs) for r, runs in finding.dense.items()}
    level = _level(finding, density)
    if arm not in level.arms:
        raise NotMeasured(f"no {arm} at a density of {100 * density:g} %")
    used = finding.judgement.replicates
    return {r: _of(run, score) for r, run in level.arms[arm].items() if r in used}


def _level(finding: Finding, density: float) -> LevelSummary:
    nearest = min(finding.levels, key=lambda level: abs(math.log(level.density / density)))
    if abs(math.log(nearest.density / density)) > math.log(_NEAR):
        raise NotMeasured(f"no level near a density of {100 * density:g} %")
    return nearest


def _of(run: Run, score: str) -> float:
    value = getattr(run, score)
    if score == "early_stop_iteration" and run.censored:
        raise NotMeasured("a run had its least validation loss at its last evaluation, so it may lie beyond")
    if value is None:
        raise NotMeasured("the runs kept no validation curve")
    return float(value)
