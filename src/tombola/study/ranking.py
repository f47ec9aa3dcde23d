"""Which way of pruning is best at a density: every arm of every search of a study, in one order.

Families are the independent unit, so every difference is paired by family. The best arm and its rivals are compared on
the same numbers by which it was found to be the best; so the ones that are marked as equal to it are those that cannot
be told from it here, and no more is claimed.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from tombola.errors import InvalidResults, InvalidValue, UnknownName
from tombola.prune.catalogue import STRATEGIES
from tombola.stats import holm
from tombola.stats.paired import MIN_REPLICATES, differences, t_test
from tombola.stats.wording import percent

_NEAR: Final = 1.05
"""Levels within this factor of a density are ranked together."""

_ALPHA: Final = 0.05
_TICKET, _DENSE, _SCORING = "ticket", "dense", "scoring"
_ONCE: Final = ("one-shot", "one-shot-finetune")
_UNSEARCHED: Final = ("random", "random-erk", "global-shuffle", "small-dense")
"""Controls that need no more than a number of weights: whoever wants one trains nothing else."""

Result = Mapping[str, Any]
"""What ``result.json`` of a search holds; see ``docs/json.md``."""


@final
@dataclass(frozen=True)
class Arm:
    """An arm of a search at one level.

    Attributes:
        search: which.
        name: ``ticket`` or a control.
        density: fraction kept of the prunable weights; ``small-dense`` has as many in another shape.
        accuracy: family -> test accuracy after the last iteration, a fraction; families without a result are not in it.
        cost: family -> what it took, in dense trainings, see :func:`cost`; ``None`` where it was not counted.
    """

    search: str
    name: str
    density: float
    accuracy: Mapping[int, float]
    cost: Mapping[int, float | None]

    @property
    def label(self) -> str:
        """Search and name, as ``--reference`` takes them."""
        return f"{self.search}/{self.name}"


@final
@dataclass(frozen=True)
class Standing:
    """An arm in the order.

    Attributes:
        rank: 1 is the best; arms of equal means share one.
        arm: search and name.
        density: actually kept.
        n: families.
        mean: test accuracy, a fraction.
        interval: 95 % t interval of the mean; ``None`` with fewer than three families.
        pairs: families that the arm and the reference share.
        difference: mean of the arm minus the reference over these; ``None`` for the reference itself and without pairs.
        difference_interval: 95 % t interval; ``None`` with fewer than three pairs.
        cost: mean over the families, in dense trainings; ``None`` where it was not counted.
        with_best: whether it cannot be told from the best; ``None`` where it shares fewer than three families with it.
        p_best: of no difference from the best, two-sided and Holm-adjusted over all arms compared with it; ``None`` for
            the best itself and where nothing was tested.
    """

    rank: int
    arm: str
    density: float
    n: int
    mean: float
    interval: tuple[float, float] | None
    pairs: int
    difference: float | None
    difference_interval: tuple[float, float] | None
    cost: float | None
    with_best: bool | None
    p_best: float | None


@final
@dataclass(frozen=True)
class Ranking:
    """The order at one density.

    Attributes:
        density: that of the reference's search, or of the first search that has it.
        standings: best first.
        notes: what a reader should know.
    """

    density: float
    standings: tuple[Standing, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Give plain values."""
        return {"density": self.density, "arms": [asdict(one) for one in self.standings], "notes": list(self.notes)}


def rankings(results: Mapping[str, Result], reference: str, density: float | None = None) -> tuple[Ranking, ...]:
    """Rank the arms at every density at which a verdict was sought, dense to sparse, or at one of them.

    Args:
        results: search -> its result. Searches on other data or another seed than the reference's are left out, for
            their families are others.
        reference: what differences are taken to, ``SEARCH/ARM``.
        density: one that is within 5 % of a gate's; ``None`` for all.

    Raises:
        UnknownName: the reference is none of the arms.
        InvalidValue: no gate is near the density.
        InvalidResults: a result lacks what is read of it.
    """
    try:
        known = {
            f"{name}/{arm}" for name, one in results.items() for level in one["levels"][1:] for arm in level["arms"]
        }
        if reference not in known:
            raise UnknownName.among("arm", reference, known, "Give a search and an arm of it: iterative/ticket.")
        home = results[reference.partition("/")[0]]
        apart = [name for name, one in results.items() if _families_of(one) != _families_of(home)]
        kept = {name: one for name, one in results.items() if name not in apart}
        there = densities([home, *kept.values()])
        wanted = there if density is None else [_nearest(density, there)]
        found = [(one, *arms(kept, one)) for one in wanted]
    except (KeyError, TypeError, IndexError, AttributeError, ZeroDivisionError) as error:
        raise InvalidResults(
            f"a result of a search lacks what is ranked ({type(error).__name__}: {error}). It was written by another "
            "version or altered; run the study again, which trains nothing that is kept."
        ) from error
    left_out = [
        f"{', '.join(apart)}: left out, for the families are not those of {reference} (other data, or another seed)."
    ]
    return tuple(
        Ranking(one, rank(these, reference), (*(left_out if apart else ()), *empty, *_notes(these, reference)))
        for one, these, empty in found
    )


def densities(results: Sequence[Result]) -> list[float]:
    """Collect the gates of all results, dense to sparse; those within 5 % of one before are that one."""
    found: list[float] = []
    for result in results:
        for level in result["levels"][1:]:
            if level["gate"] and all(_apart(level["density"], one) > _NEAR for one in found):
                found.append(level["density"])
    return sorted(found, reverse=True)


def arms(results: Mapping[str, Result], density: float) -> tuple[tuple[Arm, ...], tuple[str, ...]]:
    """Read every arm that has a level within 5 % of a density, and a sentence for each arm without any result."""
    found: list[Arm] = []
    for search, result in results.items():
        level = min(result["levels"][1:], key=lambda one: _apart(one["density"], density))
        if _apart(level["density"], density) > _NEAR:
            continue
        for name, runs in level["arms"].items():
            scores = zip(result["replicates_used"], runs["test_accuracy"], strict=True)
            accuracy = {r: score for r, score in scores if score is not None and math.isfinite(score)}
            costs = {r: cost(result, level["level"], name, r) for r in accuracy}
            found.append(Arm(search, name, level["density"], accuracy, costs))
    empty = tuple(f"{arm.label}: no family has a result, so it has no place." for arm in found if not arm.accuracy)
    return tuple(arm for arm in found if arm.accuracy), empty


def cost(result: Result, level: int, arm: str, family: int) -> float | None:
    """Count what it took one family to get a trained network of an arm, in dense trainings.

    Operations of the surviving weights, scoring included, over those of the family's own dense run. Counted is what
    somebody pays who wants this network and nothing else:

    - iterative strategies: the dense run, and scoring and the ticket's training at every level up to this one;
    - ``one-shot``, ``one-shot-finetune``: the dense run, and scoring and training at this level;
    - ``at-init`` and the strategies whose masks change in training: scoring and training at this level alone;
    - a control: the same with its own training in the ticket's place. Where the mask is known only after the ticket's
      training, that too; a control that takes no more than a number of weights costs its own training.

    Further dense runs, other controls and evaluations are not counted.

    Returns:
        ``None`` where operations were not counted.
    """
    spent: dict[tuple[int, str], float | None] = {
        (one["level"], one["arm"]): one["flops_effective"]
        for one in result["cost"]["runs"]
        if one["replicate"] == family and one["order"] == 0
    }
    strategy = result["strategy"]
    grows = strategy in STRATEGIES and STRATEGIES[strategy].grows
    first = level if grows or strategy in ("at-init", *_ONCE) else 1
    needed = [] if grows or strategy == "at-init" else [(0, _DENSE)]
    needed += [(one, part) for one in range(first, level + 1) for part in (_SCORING, _TICKET)]
    if arm in _UNSEARCHED:
        needed = []
    elif arm == "one-shot":
        needed = [(0, _DENSE)]
    elif arm != _TICKET and not grows:
        needed.remove((level, _TICKET))
    if arm != _TICKET:
        needed.append((level, arm))
    # Criteria that look at weights alone have no entry for scoring.
    parts = [spent.get(key, 0.0 if key[1] == _SCORING else None) for key in needed]
    one = spent.get((0, _DENSE))
    known = [part for part in parts if part is not None]
    return sum(known) / one if one and len(known) == len(parts) else None


def rank(found: Sequence[Arm], reference: str) -> tuple[Standing, ...]:
    """Order arms by the mean of their test accuracy and mark those that cannot be told from the best.

    The best is the first with at least three families, if there is one. The two-sided p values of the paired t tests
    against it are adjusted as Holm (1979) does: were the best named beforehand, an arm that is as good as it would be
    told apart from it in 5 % of studies at most, however many arms there are.

    Args:
        found: arms of one density, each with at least one family.
        reference: label of the arm that differences are taken to; it may be absent.
    """
    order = sorted(found, key=lambda arm: (-_mean(arm), arm.label))
    if not order:
        return ()
    best = next((arm for arm in order if len(arm.accuracy) >= MIN_REPLICATES), order[0])
    base = next((arm for arm in order if arm.label == reference), None)
    gaps = {arm.label: _gaps(arm, best) for arm in order if arm is not best}
    tested = {label: _p(gap) for label, gap in gaps.items() if len(gap) >= MIN_REPLICATES}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return tuple(_standing(arm, order, base, best, adjusted.get(arm.label)) for arm in order)


def _standing(arm: Arm, order: Sequence[Arm], base: Arm | None, best: Arm, p_best: float | None) -> Standing:
    scores, to_base = list(arm.accuracy.values()), [] if base is None or base is arm else _gaps(arm, base)
    costs = [one for one in arm.cost.values() if one is not None]
    return Standing(
        rank=1 + sum(_mean(other) > _mean(arm) for other in order),
        arm=arm.label,
        density=arm.density,
        n=len(scores),
        mean=_mean(arm),
        interval=interval(scores),
        pairs=len(to_base) if base is not arm else len(scores),
        difference=statistics.fmean(to_base) if to_base else None,
        difference_interval=interval(to_base),
        cost=statistics.fmean(costs) if costs and len(costs) == len(scores) else None,
        with_best=True if arm is best else None if p_best is None else p_best > _ALPHA,
        p_best=p_best,
    )


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Give the 95 % t interval of a mean; ``None`` with fewer than three values."""
    if len(values) < MIN_REPLICATES:
        return None
    test = t_test(values, alpha=_ALPHA / 2)
    return float(test.lower), float(test.upper)


def _mean(arm: Arm) -> float:
    # Means of whole test images over one number of families are equal or far apart; the rest is rounding.
    return round(statistics.fmean(arm.accuracy.values()), 12)


def _gaps(arm: Arm, other: Arm) -> list[float]:
    shared = sorted(arm.accuracy.keys() & other.accuracy.keys())
    found: list[float] = differences([arm.accuracy[r] for r in shared], [other.accuracy[r] for r in shared]).tolist()
    return found


def _p(gaps: Sequence[float]) -> float:
    test = t_test(gaps)
    return min(1.0, 2 * min(float(test.p_greater), float(test.p_less)))


def _notes(found: Sequence[Arm], reference: str) -> list[str]:
    notes: list[str] = []
    if found and reference not in {arm.label for arm in found}:
        notes.append(f"{reference} has no result at this density, so there are no differences to it.")
    most = max((len(arm.accuracy) for arm in found), default=0)
    fewer = [arm.label for arm in found if len(arm.accuracy) < most]
    if fewer:
        notes.append(f"{', '.join(fewer)}: fewer than {most} families, so the means are not of the same ones.")
    return notes


def _families_of(result: Result) -> tuple[Any, Any]:
    return result["data_fingerprint"], result["seed"]


def _apart(one: float, other: float) -> float:
    return max(one / other, other / one)


def _nearest(wanted: float, there: Collection[float]) -> float:
    if not 0 < wanted < 1:
        raise InvalidValue(f"the density is {wanted:g}; it is the fraction of weights kept, above 0 and below 1.")
    near = [one for one in there if _apart(one, wanted) <= _NEAR]
    if not near:
        raise InvalidValue(
            f"no search has a gate near a density of {percent(wanted)}. There are {', '.join(map(percent, there))}; "
            "give one of these as a fraction, such as 0.05."
        )
    return min(near, key=lambda one: _apart(one, wanted))
