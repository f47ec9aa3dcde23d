"""What a judgement says: the verdicts, the numbers behind them, and a form for JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from tombola.stats.comparison import Comparison, ControlComparison, SpeedComparison
from tombola.stats.estimate import Estimate
from tombola.stats.scale import Scale


class Verdict(Enum):
    """What the evidence says about a ticket at one density; ``sentence`` says it with a place for the density."""

    WINS = "wins"
    MATCHES_NO_EFFECT = "matches but no lottery effect"
    MATCHES = "matches"
    LOSES = "loses"
    CANNOT_TELL = "cannot tell"
    NOT_APPLICABLE = "not applicable"

    @property
    def sentence(self) -> str:
        """A main clause with ``{density}`` in it, such as ``'The ticket wins at {density} of the weights'``."""
        return _SENTENCES[self]


_SENTENCES = {
    Verdict.WINS: "The ticket wins at {density} of the weights",
    Verdict.MATCHES_NO_EFFECT: "The ticket matches dense at {density} of the weights but shows no lottery effect",
    Verdict.MATCHES: "The ticket matches dense at {density} of the weights",
    Verdict.LOSES: "The ticket loses at {density} of the weights",
    Verdict.CANNOT_TELL: "Whether the ticket matches dense at {density} of the weights cannot be told",
    Verdict.NOT_APPLICABLE: "The question does not apply at {density} of the weights",
}


@dataclass(frozen=True)
class LevelVerdict:
    """One density.

    Attributes:
        density: fraction of the prunable weights kept.
        gate: whether this level is part of the fixed sequence.
        certified: a gate at or before the certified density of the budget certificate.
        verdict: on the test score after the full budget, and on the controls.
        clauses: ``"budget"``, ``"early"`` and ``"speed"`` -> matches, loses, cannot tell or not applicable, each
            tested at this level alone.
        sentence: the verdict for a person, with its numbers.
        budget: the test score after the last iteration, against dense.
        early: the test score at the early-stop iteration; ``None`` where it was not kept.
        speed: early-stop iteration; ``None`` where it was not kept or does not apply.
        controls: name -> ticket against that control.
        required_replicates: when the verdict is "cannot tell", how many would tell with power 0.8 if the observed
            mean and spread are the truth; ``None`` then means more than 1000.
    """

    density: float
    gate: bool
    certified: bool
    verdict: Verdict
    clauses: Mapping[str, Verdict]
    sentence: str
    budget: Comparison
    early: Comparison | None
    speed: SpeedComparison | None
    controls: Mapping[str, ControlComparison]
    required_replicates: int | None


@dataclass(frozen=True)
class Judgement:
    """A whole study.

    Attributes:
        verdict: at the certified density of the budget certificate; without one, at the first gate, which failed.
        sentence: one paragraph for a person.
        certified: ``"budget"``, ``"early"`` and ``"speed"`` -> the sparsest density certified, or ``None``. Three
            separate claims, each with probability at most alpha of reaching too far.
        not_applicable: certificate -> why it was not judged.
        estimate: where the mean difference crosses the margin; no guarantee.
        levels: dense to sparse.
        gates: the fixed sequence, dense to sparse.
        replicates: the families used.
        dense_runs: how many dense runs each of them has.
        dropped: a sentence for each family left out.
        score: what the networks are scored by, ``"accuracy"`` or another name; every mean, limit and spread is in its
            units, accuracies being fractions.
        margin: what of it may be lost.
        alpha: one-sided level of every test.
        eta: share by which the early-stop iteration may be later.
        lottery: whether the survivors restart from initial values, so that a lottery effect can be claimed at all.
        notes: what a careful reader should know besides.
    """

    verdict: Verdict
    sentence: str
    certified: Mapping[str, float | None]
    not_applicable: Mapping[str, str]
    estimate: Estimate
    levels: tuple[LevelVerdict, ...]
    gates: tuple[float, ...]
    replicates: tuple[int, ...]
    dense_runs: tuple[int, ...]
    dropped: tuple[str, ...]
    score: str
    margin: float
    alpha: float
    eta: float
    lottery: bool
    notes: tuple[str, ...]

    @property
    def scale(self) -> Scale:
        """How scores and differences of this study are written."""
        return Scale(self.score).fitted(self.margin)

    @property
    def certified_density(self) -> float | None:
        """The sparsest density certified by the test score after the full budget."""
        return self.certified["budget"]


def as_json(judgement: Judgement) -> dict[str, object]:
    """Turn a judgement into plain dicts, lists, strings, numbers and ``None``.

    Field names are kept, ``certified_density`` is added, and a number that is not finite becomes ``None``.
    """
    plain = _plain(judgement)
    assert isinstance(plain, dict)
    return {"certified_density": judgement.certified_density, **plain}


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
