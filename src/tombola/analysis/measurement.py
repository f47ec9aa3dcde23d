"""A measurement over families: its mean beyond the null, an interval, and a test at a known error rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from statistics import fmean
from typing import Final, final

from tombola.analysis.excess import Excess
from tombola.stats.paired import MIN_REPLICATES, t_test
from tombola.stats.wording import level_of, significant

ALPHA: Final = 0.05

MEANINGS: Final[Mapping[str, str]] = {
    "survival": "the AUC of the initial magnitude for survival",
    "signs": "how much less the kept flip their signs than the pruned (log odds ratio)",
    "overlap": "the log overlap of the masks of two data orders over chance within inputs",
    "supermask": "the accuracy of the mask on the initial weights without training",
    "reinit": "the accuracy of the ticket over that of its mask on a fresh initialisation",
    "intervention": "the log overlap of the new mask with the old one moved along with the initial values",
}
"""Measurement -> what is measured, in the direction that the conjecture predicts to be positive."""


class Outcome(Enum):
    """What a measurement says."""

    SUPPORTS = "supports"
    CONTRADICTS = "contradicts"
    CHANCE = "does not exclude the null"
    CANNOT_TELL = "cannot tell"
    NOT_MEASURED = "not measured"


@final
@dataclass(frozen=True)
class Measurement:
    """One measurement, the families being the replicates.

    Attributes:
        name: a key of ``MEANINGS``.
        outcome: each direction is tested on its own, one-sided at alpha.
        sentence: the same for a person, with its numbers; or why it was not measured.
        families: the replicates measured.
        real: of each family.
        null: of each family; 0 where a measurement is a difference of its own.
        excess: of each family, positive as predicted; expectation 0 where nothing seeks.
        mean: of the excess; ``None`` without a family.
        low: of the two-sided 1 - alpha t interval of the mean; ``None`` below two families.
        high: its other end.
        p: of the null hypothesis that the mean is at most 0, one-sided t; ``None`` below three families.
        p_opposite: of the null hypothesis that the mean is at least 0; as ``p``.
        layers: layer -> what it is there, means over the families that have it.
    """

    name: str
    outcome: Outcome
    sentence: str
    families: tuple[int, ...] = ()
    real: tuple[float, ...] = ()
    null: tuple[float, ...] = ()
    excess: tuple[float, ...] = ()
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_opposite: float | None = None
    layers: Mapping[str, tuple[float, float]] | None = None


def measure(name: str, families: Mapping[int, Excess], *, alpha: float = ALPHA, without: str = "") -> Measurement:
    """Test whether a measurement exceeds its null over families, by Student's t.

    Args:
        name: a key of ``MEANINGS``.
        families: replicate -> its excess.
        alpha: level of each one-sided test, and of the two-sided interval.
        without: why there is no family, where there is none.

    Returns:
        The measurement; with fewer than three families it cannot tell.
    """
    if not families:
        return Measurement(name, Outcome.NOT_MEASURED, f"{name}: not measured: {without}.")
    excess = tuple(one.excess for one in families.values())
    test, n = t_test(excess, alpha=alpha / 2), len(excess)
    enough, p, opposite = n >= MIN_REPLICATES, float(test.p_greater), float(test.p_less)
    outcome = _outcome(p, opposite, alpha) if enough else Outcome.CANNOT_TELL
    real, null = tuple(one.real for one in families.values()), tuple(one.null for one in families.values())
    low, high = (float(test.lower), float(test.upper)) if n > 1 else (None, None)
    mean = float(test.mean)
    interval = f" [{significant(low)}, {significant(high)}]" if low is not None and high is not None else ""
    beside = f"; real {significant(fmean(real), signed=False)}, null {significant(fmean(null), signed=False)}"
    sentence = (
        f"{name}: {MEANINGS[name]} is {significant(mean)}{interval}{' beyond the null' if any(null) else ''} "
        f"({level_of(1 - alpha)} interval, {n} {'family' if n == 1 else 'families'}{beside if any(null) else ''}): "
        f"{_SAID[outcome]}."
    )
    return Measurement(
        name, outcome, sentence, tuple(families), real, null, excess, mean, low, high,
        p if enough else None, opposite if enough else None, _by_layer(families),
    )  # fmt: skip


_SAID: Final[Mapping[Outcome, str]] = {
    Outcome.SUPPORTS: "as the conjecture predicts",
    Outcome.CONTRADICTS: "opposite to what the conjecture predicts",
    Outcome.CHANCE: "chance without seeking is not excluded",
    Outcome.CANNOT_TELL: f"fewer than {MIN_REPLICATES} families cannot tell",
}


def _outcome(p: float, opposite: float, alpha: float) -> Outcome:
    if p < alpha:
        return Outcome.SUPPORTS
    return Outcome.CONTRADICTS if opposite < alpha else Outcome.CHANCE


def _by_layer(families: Mapping[int, Excess]) -> dict[str, tuple[float, float]]:
    """Give the mean real and null value of each layer, over the families that have it."""
    names = dict.fromkeys(name for one in families.values() for name in one.layers)
    found = {}
    for name in names:
        pairs = [one.layers[name] for one in families.values() if name in one.layers]
        found[name] = (fmean(pair[0] for pair in pairs), fmean(pair[1] for pair in pairs))
    return found
