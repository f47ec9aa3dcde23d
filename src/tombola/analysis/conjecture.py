"""The conjecture of Frankle & Carbin (2019): SGD seeks out and trains a well-initialised subset of the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Final, final

from tombola.analysis.between import Between, between
from tombola.analysis.excess import DRAWS, Excess, excesses
from tombola.analysis.family import Observed
from tombola.analysis.measurement import ALPHA, Measurement, Outcome, measure
from tombola.analysis.supermask import Evaluate
from tombola.errors import InvalidValue
from tombola.prune.counting import Counts
from tombola.prune.structure import Group
from tombola.stats.paired import MIN_REPLICATES
from tombola.stats.sequence import holm
from tombola.stats.wording import listed, significant
from tombola.types import Seed

REQUIRED: Final = ("survival", "signs", "overlap")
"""Without these three nothing is called supported."""

CORRELATIONAL: Final = (
    "This is correlational: it says that training kept and moved weights unlike a process that does not look at them, "
    "and not that their initial values are why; tombola.analysis.intervention asks that."
)

_MISSING: Final[Mapping[str, str]] = {
    "survival": "every layer is kept whole, or not at all",
    "signs": "nothing that moved is kept, or nothing that moved is pruned",
    "overlap": "no family has a second dense run with another data order",
    "supermask": "there is nothing to evaluate a mask with",
    "reinit": "the search trained no ticket on a fresh initialisation",
}


class Verdict(Enum):
    """What the measurements say together; ``sentence`` says it."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not supported"
    CONTRADICTED = "contradicted"
    CANNOT_TELL = "cannot tell"

    @property
    def sentence(self) -> str:
        """A main clause."""
        return _SENTENCES[self]


_SENTENCES: Final[Mapping[Verdict, str]] = {
    Verdict.SUPPORTED: "That SGD seeks out and trains a well-initialised subset is supported",
    Verdict.NOT_SUPPORTED: "That SGD seeks out and trains a well-initialised subset is not supported",
    Verdict.CONTRADICTED: "That SGD seeks out and trains a well-initialised subset is contradicted",
    Verdict.CANNOT_TELL: "Whether SGD seeks out and trains a well-initialised subset cannot be told",
}


@final
@dataclass(frozen=True)
class Conjecture:
    """The verdict on the conjecture.

    Attributes:
        verdict: supported, not supported, contradicted or cannot tell.
        sentence: the same for a person, with its numbers, and that it is correlational.
        measurements: name -> what was found, for all five; those that were not taken say why.
        failed: measurements that were taken and do not exclude the null as predicted.
        between: what masks share across initialisations, reported and not tested; ``None`` for one family.
        families: replicates.
        counts: name -> weights kept, at the density looked at.
        draws: of the null, for each family.
        alpha: of each one-sided test.
    """

    verdict: Verdict
    sentence: str
    measurements: Mapping[str, Measurement]
    failed: tuple[str, ...]
    between: Between | None
    families: tuple[int, ...]
    counts: Mapping[str, int]
    draws: int
    alpha: float

    def as_json(self) -> dict[str, Any]:
        """Give it as plain values: dictionaries, lists, numbers, text, true, false and ``None``."""
        return _plain(asdict(self))


def conjecture(
    families: Sequence[Observed],
    counts: Counts,
    *,
    seed: Seed,
    draws: int = DRAWS,
    evaluate: Evaluate | Mapping[int, Evaluate] | None = None,
    reinit_gaps: Mapping[int, float] | None = None,
    groups: Sequence[Group] = (),
    alpha: float = ALPHA,
) -> Conjecture:
    """Judge the conjecture by five measurements, each by what it is beyond a null that contains no seeking.

    Frankle & Carbin (2019), section 1, "The Lottery Ticket Conjecture". The first four measurements are those of
    :func:`~tombola.analysis.excess.excesses`; ``reinit`` is the accuracy of the ticket minus that of its mask on a
    fresh initialisation. A family gives one number to each, and families are the replicates of a t test.

    ``supported``: every measurement that was taken excludes 0 as predicted, one-sided at alpha, and survival, signs and
    overlap were taken. Where nothing seeks this happens with probability alpha at most, since each must reject.
    ``contradicted``: one of them excludes 0 in the other direction, with Holm's correction over those taken, so where
    nothing seeks with probability alpha at most too. ``not supported``: some measurement does not exclude 0.
    ``cannot tell``: none failed, and one that is needed is missing or has fewer than three families.

    Args:
        families: of one network, each with its own initialisation.
        counts: name -> how many weights of each tensor are kept at the density looked at.
        seed: of the draws of the null.
        draws: of the null, for each family.
        evaluate: ``params -> accuracy``, or one for each replicate; without it supermasks are not measured.
        reinit_gaps: replicate -> accuracy of the ticket minus that of the reinitialised control, fractions.
        groups: the hidden units; with them masks of different initialisations are compared after aligning units too.
        alpha: level of each test.

    Raises:
        InvalidValue: there is no family, two have one replicate number, or a gap belongs to none; and as ``excesses``.
        ImpossibleDensity: more weights are to be kept than there are.
    """
    gaps = dict(reinit_gaps or {})
    _check(families, gaps)
    seen = evaluate if isinstance(evaluate, Mapping) else {one.replicate: evaluate for one in families}
    found = {
        one.replicate: excesses(one, counts, seed=seed, draws=draws, evaluate=seen.get(one.replicate))
        for one in families
    }
    for replicate, gap in gaps.items():
        found[replicate]["reinit"] = Excess(gap, 0.0, gap, {})
    measurements = {
        name: measure(
            name, {r: taken[name] for r, taken in found.items() if name in taken}, alpha=alpha, without=without
        )
        for name, without in _MISSING.items()
    }
    verdict, failed = _judged(measurements, alpha)
    beside = between(families, counts, seed=seed, groups=groups)
    return Conjecture(
        verdict=verdict,
        sentence=_sentence(verdict, measurements, failed, beside),
        measurements=measurements,
        failed=failed,
        between=beside,
        families=tuple(found),
        counts=dict(counts),
        draws=draws,
        alpha=alpha,
    )


def _judged(measurements: Mapping[str, Measurement], alpha: float) -> tuple[Verdict, tuple[str, ...]]:
    tested = [one for one in measurements.values() if one.p_opposite is not None]
    failed = tuple(one.name for one in tested if one.outcome is not Outcome.SUPPORTS)
    if any(p < alpha for p in holm([one.p_opposite for one in tested if one.p_opposite is not None])):
        return Verdict.CONTRADICTED, failed
    if failed:
        return Verdict.NOT_SUPPORTED, failed
    missing = any(measurements[name].outcome is Outcome.NOT_MEASURED for name in REQUIRED)
    few = any(one.outcome is Outcome.CANNOT_TELL for one in measurements.values())
    return Verdict.CANNOT_TELL if missing or few else Verdict.SUPPORTED, failed


def _sentence(
    verdict: Verdict, measurements: Mapping[str, Measurement], failed: Sequence[str], beside: Between | None
) -> str:
    why = ""
    if failed:
        opposite = [name for name in failed if measurements[name].outcome is Outcome.CONTRADICTS]
        why = f" by {listed(opposite if verdict is Verdict.CONTRADICTED else failed)}"
    elif verdict is Verdict.CANNOT_TELL:
        open_ = [one.name for one in measurements.values() if one.outcome is Outcome.CANNOT_TELL]
        open_ += [name for name in REQUIRED if measurements[name].outcome is Outcome.NOT_MEASURED]
        why = f": {listed(open_)} would have to be measured on at least {MIN_REPLICATES} families"
    parts = [
        _SENTENCES[verdict] + why + ".",
        *(f"{one.sentence[0].upper()}{one.sentence[1:]}" for one in measurements.values()),
    ]
    if beside is not None:
        aligned = "" if beside.aligned is None else f", {significant(beside.aligned, signed=False)} with units aligned"
        parts.append(
            f"Masks of different initialisations overlap {significant(beside.raw, signed=False)} times as much as by "
            f"chance within inputs{aligned} (not tested)."
        )
    return " ".join([*parts, CORRELATIONAL])


def _check(families: Sequence[Observed], gaps: Mapping[int, float]) -> None:
    replicates = [one.replicate for one in families]
    if not replicates:
        raise InvalidValue(f"there is no family to judge by. Give at least {MIN_REPLICATES}.")
    twice = sorted({number for number in replicates if replicates.count(number) > 1})
    if twice:
        raise InvalidValue(
            f"two families have the replicate number {twice[0]}. Each is one initialisation with a number of its own."
        )
    strange = sorted(gaps.keys() - set(replicates))
    if strange:
        raise InvalidValue(
            f"there is a reinit gap for family {strange[0]}, and the families are {', '.join(map(str, replicates))}. "
            "Give gaps by the families' replicate numbers."
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
