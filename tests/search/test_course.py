"""Which levels a search visits: those named, those that another search visited, or what the last tickets allow."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from own_kit import T as OWN_T
from own_kit import loop, searched
from search_kit import CONTROLS, PRUNABLE, FakeTrain, T, families, run
from torch import nn

from tombola import Record
from tombola.prune.masks import nested
from tombola.prune.pruner import imp
from tombola.search.course import Adaptive, Course, Cut, Fixed, Followed, Seen, foreseen, is_given_up
from tombola.search.finding import Finding
from tombola.search.levels import ATTEMPT, DENSE, TICKET, Level, NobodyLeft, search
from tombola.search.rounds import Made
from tombola.search.way import Way
from tombola.study.families import by_family
from tombola.types import Curve, RunResult, Seed, Snapshot, TrainJob, TrainOutcome

MARGIN = 0.01
WELL, WEAK, FAILS = 0.5, 0.0, -0.02
"""Differences of tickets that lead, that do not lead by half of the margin, and that lose more than it."""


def adaptive(
    last: int = 15, gates: Sequence[int] = (15,), first: int = 7, strides: tuple[int, ...] = (5, 4, 3, 2)
) -> Adaptive:
    return Adaptive(last, tuple(gates), first, MARGIN, strides)


def visited(course: Course, answer: Callable[[Cut], tuple[float | None, float | None]]) -> list[Cut]:
    """Go a course to its end; ``answer`` gives the difference and the barrier of a cut."""
    seen = [Seen(0, 0)]
    cuts: list[Cut] = []
    while (cut := course.next(tuple(seen))) is not None:
        cuts.append(cut)
        assert len(cuts) < 100, "the course has no end"
        seen.append(Seen(cut.target, cut.source, *answer(cut)))
    return cuts


def targets(
    course: Course, differences: dict[int, float | None], barriers: dict[int, float] | None = None
) -> list[int]:
    """Give the levels in the order they are trained; those that are not named do well."""
    cuts = visited(course, lambda cut: (differences.get(cut.target, WELL), (barriers or {}).get(cut.target, 0.0)))
    return [cut.target for cut in cuts]


def test_a_fixed_course_visits_its_targets_each_cut_from_the_one_before() -> None:
    """Whatever validation says of them."""
    for answer in ((WELL, 0.0), (FAILS, 0.5), (None, None)):
        assert visited(Fixed((2, 3, 7)), lambda _, said=answer: said) == [Cut(0, 2), Cut(2, 3), Cut(3, 7)]
    assert visited(Fixed(()), lambda _: (None, None)) == []


def test_a_course_is_followed_cut_by_cut_and_each_family_may_go_alone() -> None:
    cuts = (Cut(0, 3), Cut(0, 7), Cut(7, 8))
    assert visited(Followed(cuts), lambda _: (FAILS, 1.0)) == list(cuts)
    assert [course.joint for course in (Followed(cuts), Fixed((1,)), adaptive())] == [False, False, True]


def test_where_nothing_weakens_a_few_cuts_lead_to_the_end() -> None:
    """They become smaller as less is left, and go no further than the last level."""
    assert visited(adaptive(), lambda _: (WELL, 0.0)) == [Cut(0, 5), Cut(5, 9), Cut(9, 12), Cut(12, 14), Cut(14, 15)]
    assert foreseen(adaptive()) == (5, 9, 12, 14, 15)
    assert foreseen(adaptive(last=18)) == (5, 9, 12, 14, 15, 16, 17, 18)
    assert foreseen(adaptive(last=4, gates=(4,))) == (4,)
    assert foreseen(adaptive(last=11, gates=(11,))) == (5, 9, 11)
    assert foreseen(adaptive(last=3, strides=())) == (1, 2, 3)
    assert foreseen(Fixed((2, 5))) == (2, 5)


def test_no_gate_is_passed_and_one_within_a_big_cut_is_cut_beside_it() -> None:
    """From the trunk's last level, which the big cut is then made from as well: a gate costs the trunk nothing."""
    found = visited(adaptive(gates=(2, 7, 8, 13, 15)), lambda _: (WELL, 0.0))
    assert [(cut.source, cut.target) for cut in found] == [
        (0, 2), (0, 5), (5, 7), (5, 8), (5, 9), (9, 12), (12, 13), (12, 14), (14, 15),
    ]  # fmt: skip
    # Where it is a level of the trunk, it is no detour.
    assert visited(adaptive(gates=(5, 9, 15)), lambda _: (WELL, 0.0)) == visited(adaptive(), lambda _: (WELL, 0.0))


@pytest.mark.parametrize(
    ("difference", "barrier", "weak"),
    [
        (MARGIN / 2, 0.0, False),
        (MARGIN / 2, None, False),
        (WELL, 0.0199, False),
        (0.99 * MARGIN / 2, 0.0, True),
        (-MARGIN, 0.0, True),
        (None, 0.0, True),
        (None, None, True),
        (WELL, 0.02, True),
    ],
)
def test_once_tickets_weaken_one_level_is_cut_at_a_time(
    difference: float | None, barrier: float | None, weak: bool
) -> None:
    """And it stays so, however well the later ones do."""
    said = {9: (difference, barrier)}
    found = [cut.target for cut in visited(adaptive(), lambda cut: said.get(cut.target, (WELL, 0.0)))]
    assert found == ([5, *range(9, 16)] if weak else [5, 9, 12, 14, 15])


def test_tickets_that_are_denser_than_the_first_level_of_interest_cannot_weaken() -> None:
    assert targets(adaptive(gates=(3, 15)), {3: WEAK, 5: WEAK}, {3: 0.3, 5: 0.3}) == [3, 5, 9, 12, 14, 15]
    assert targets(adaptive(gates=(3, 15), first=5), {3: WEAK, 5: WEAK}) == [3, *range(5, 16)]
    # A gate beside the trunk counts as well as a level of it.
    assert targets(adaptive(gates=(7, 15)), {7: WEAK}) == [5, *range(7, 16)]


def test_a_big_cut_that_fails_is_given_up_and_the_search_goes_on_one_level_at_a_time() -> None:
    def failing(course: Course, fails: Cut) -> list[Cut]:
        return visited(course, lambda cut: (FAILS if cut == fails else WELL, 0.0))

    found = failing(adaptive(), Cut(9, 12))
    assert found == [Cut(0, 5), Cut(5, 9), Cut(9, 12), *(Cut(one, one + 1) for one in range(9, 15))]
    # From a gate that was held beside the trunk; from the dense network where there is none.
    found = failing(adaptive(gates=(7, 15)), Cut(5, 9))
    assert found == [Cut(0, 5), Cut(5, 7), Cut(5, 9), *(Cut(one, one + 1) for one in range(7, 15))]
    # And a gate itself, where it is what fails.
    found = failing(adaptive(gates=(7, 15)), Cut(5, 7))
    assert found == [Cut(0, 5), Cut(5, 7), *(Cut(one, one + 1) for one in range(5, 15))]
    assert failing(adaptive(), Cut(0, 5)) == [Cut(0, 5), *(Cut(one, one + 1) for one in range(15))]


def test_a_cut_of_one_level_is_never_given_up() -> None:
    """There is nothing finer, and the verdict says what it is worth."""
    assert targets(adaptive(), {9: WEAK, **dict.fromkeys(range(10, 16), FAILS)}) == [5, *range(9, 16)]
    assert targets(adaptive(strides=()), dict.fromkeys(range(1, 16), FAILS)) == list(range(1, 16))


def test_a_level_is_given_up_where_the_course_goes_back_behind_it() -> None:
    at = Seen(13, 10, FAILS)
    assert is_given_up(at, Cut(10, 11))
    assert is_given_up(at, Cut(12, 13)), "the same level again, by a finer cut"
    assert not is_given_up(at, Cut(13, 14))
    assert not is_given_up(at, None)


SCORES = st.one_of(st.none(), st.floats(-0.1, 0.1), st.just(-MARGIN), st.just(MARGIN / 2))
BARRIERS = st.one_of(st.none(), st.floats(0, 0.1))


@given(
    st.data(), st.integers(1, 20), st.sets(st.integers(1, 20)), st.integers(1, 20), st.lists(st.integers(1, 6))
)  # fmt: skip
def test_whatever_validation_says_it_ends_passes_no_gate_and_cuts_what_it_holds(
    data: st.DataObject, last: int, gates: set[int], first: int, strides: list[int]
) -> None:
    wanted = tuple(sorted(gate for gate in gates if gate <= last))
    course = Adaptive(last, wanted, first, MARGIN, tuple(strides))
    seen, held, in_memory = [Seen(0, 0)], [Seen(0, 0)], {0}
    while (cut := course.next(tuple(seen))) is not None:
        before = held[-1]
        failed = before.difference is not None and before.difference < -MARGIN and before.level - before.cut_from > 1
        assert is_given_up(seen[-1], cut) == failed
        if failed:
            held.pop()
            assert cut == Cut(held[-1].level, held[-1].level + 1)
        else:
            in_memory &= {0, *course.needs(tuple(seen))}
        assert cut.source in {one.level for one in held}
        assert cut.source in in_memory, "its network has been forgotten"
        assert held[-1].level < cut.target <= last
        assert not [gate for gate in wanted if held[-1].level < gate < cut.target], "a gate was passed over"
        seen.append(Seen(cut.target, cut.source, data.draw(SCORES), data.draw(BARRIERS)))
        held.append(seen[-1])
        in_memory.add(cut.target)
        # One cut more than levels: only one big cut can fail, for all after it are of one level.
        assert len(seen) <= last + 2
    assert held[-1].level == last
    assert {*wanted} <= {one.level for one in held}


def test_what_a_course_still_cuts_from_stays_in_memory() -> None:
    at = (Seen(0, 0), Seen(5, 0, WELL), Seen(7, 5, WELL))
    assert adaptive(gates=(7, 15)).needs(at) == {5, 7}, (
        "the next big cut is made from 5, and 7 is what it falls back to"
    )
    assert Fixed((5, 7, 9)).needs(at) == {7}
    assert Followed((Cut(0, 5), Cut(5, 7), Cut(5, 9), Cut(9, 10))).needs(at) == {5, 9}


@dataclass
class Judged:
    """The kit's trainer with a validation accuracy of the test's: the only thing that an adaptive course looks at.

    Attributes:
        says: family, cuts, and weights kept (all, for the dense run) -> accuracy; NaN for a loop that reports none.
        fails: whether a job does not finish.
    """

    says: Callable[[int, int], float] = lambda replicate, kept: WELL  # noqa: ARG005
    fails: Callable[[TrainJob], bool] = lambda job: False  # noqa: ARG005
    result: RunResult = RunResult.DIVERGED
    tests: Callable[[], float] = lambda: 0.9
    calls: list[list[TrainJob]] = field(default_factory=list)

    def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        self.calls.append(list(jobs))
        return [self._train(job) for job in jobs]

    def _train(self, job: TrainJob) -> TrainOutcome:
        (run,) = FakeTrain(lambda _, job: self.fails(job), self.tests, self.result)([job])
        if run.result is not RunResult.FINISHED:
            return run
        said = 0.5 if job.name == DENSE else 0.5 + self.says(job.seed.replicate, kept(job))
        return replace(run, curve=Curve(run.curve.steps, run.curve.loss, (said,)))


def kept(job: TrainJob) -> int:
    return sum(int(mask.sum()) for mask in job.masks.values())


_SIZES = [sum(counts.values()) for counts in imp().plan({"w": (20, 10), "v": (6, 20)}, 12)]


def at(*levels: int) -> set[int]:
    """Give the weights that are kept at levels."""
    return {_SIZES[level] for level in levels}


COURSE = adaptive(last=9, gates=(2, 9), first=4, strides=(4, 3, 2))
"""Foreseen: 2 and 4 from the dense network, 7, 9."""


def going(
    train: Judged, search_: Callable[..., Iterator[Level]] = search, course: Course = COURSE, **options: Any
) -> tuple[list[Level], list[list[TrainJob]]]:
    return run(search_, train=train, levels=9, course=course, **options)  # type: ignore[arg-type]


def cuts(levels: Sequence[Level]) -> list[tuple[int | None, int]]:
    return [(one.cut_from, one.level) for one in levels[1:]]


def made(level: Level) -> list[tuple[int, str, int]]:
    return [(one.level, one.job.name, one.job.seed.replicate) for one in level.making]


def loses_at(*levels: int) -> Judged:
    return Judged(lambda _, left: FAILS if left in at(*levels) else WELL)


def test_an_adaptive_search_visits_the_levels_of_its_course_by_few_cuts() -> None:
    levels, calls = going(Judged())
    assert cuts(levels) == [(0, 2), (0, 4), (4, 7), (7, 9)]
    assert all(not level.making for level in levels)
    assert [{job.name for job in call} for call in calls] == [{DENSE}, *[{TICKET}] * 4]
    for before, level in pairwise(levels[1:]):
        for r, masks in level.masks.items():
            # Two cuts of the dense network nest as well, by magnitude: what is larger stays longer.
            assert nested(masks, before.masks[r])


def test_masks_are_cut_from_the_network_that_the_course_names() -> None:
    levels, _ = going(Judged())
    found = {level.level: level for level in levels}
    for level in levels[1:]:
        source = found[level.cut_from or 0]
        for r, masks in level.masks.items():
            check_cut(masks, source, r)


def check_cut(masks: Any, source: Level, replicate: int) -> None:
    """The survivors are the largest of those that the source has, in every tensor."""
    weights = source.arms[TICKET][replicate].end.params
    for name, mask in masks.items():
        size = weights[name].abs().masked_fill(~source.masks[replicate][name], -1.0)
        assert not (mask & ~source.masks[replicate][name]).any()
        assert size[mask].min() > size[~mask].max()


def test_families_go_on_together_by_the_mean_of_what_validation_says() -> None:
    """One that loses much does not go back alone, and where the mean fails all go back."""
    one = Judged(lambda r, left: (-0.3 if r == 1 else 0.9) if left in at(7) else WELL)
    assert cuts(going(one)[0]) == [(0, 2), (0, 4), (4, 7), (7, 9)]
    mean = Judged(lambda r, left: (-0.9 if r == 1 else 0.1) if left in at(7) else WELL)
    levels, _ = going(mean)
    assert cuts(levels) == [(0, 2), (0, 4), *((n, n + 1) for n in range(4, 9))]
    assert all(level.masks.keys() == {0, 1, 2} for level in levels)
    # A family without a score leaves the mean unknown.
    unknown = Judged(lambda r, left: math.nan if r == 1 and left in at(4) else WELL)
    assert cuts(going(unknown)[0]) == [(0, 2), (0, 4), *((n, n + 1) for n in range(4, 9))]


@dataclass
class Between:
    """What a family's networks are looked at with: a made-up barrier, and the pairs that it was asked of."""

    found: float
    asked: list[tuple[Snapshot, Snapshot]] = field(default_factory=list)

    def barrier(self, first: Snapshot, second: Snapshot) -> float:
        self.asked.append((first, second))
        return self.found


@pytest.mark.parametrize(("high", "weak"), [(0.05, False), (0.07, True)])
def test_the_barrier_is_that_between_the_tickets_and_the_networks_that_were_cut(high: float, weak: bool) -> None:
    """The mean over three families, of which two have none: 2 % is too much."""
    between = [Between(0.0), Between(high), Between(0.0)]
    looked = [replace(one, looking=seen) for one, seen in zip(families(), between, strict=True)]  # type: ignore[arg-type]
    levels, _ = going(Judged(), families=looked)
    assert cuts(levels) == [(0, 2), (0, 4), *([(n, n + 1) for n in range(4, 9)] if weak else [(4, 7), (7, 9)])]
    found = {level.level: level for level in levels}
    for r, seen in enumerate(between):
        ends = [(found[one.cut_from or 0].arms[TICKET][r].end, one.arms[TICKET][r].end) for one in levels[1:]]
        assert [(id(a), id(b)) for a, b in seen.asked] == [(id(a), id(b)) for a, b in ends]


def test_a_level_that_is_given_up_is_not_found_and_its_runs_made_the_next_one() -> None:
    levels, calls = going(loses_at(7))
    assert cuts(levels) == [(0, 2), (0, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 9)]
    assert {level.level: made(level) for level in levels if level.making} == {5: [(7, ATTEMPT, r) for r in range(3)]}
    assert all(job.name != ATTEMPT for level in levels for job, _ in level.runs)
    spent = [job for level in levels for job, _ in level.runs] + [one.job for level in levels for one in level.making]
    assert len(spent) == sum(map(len, calls)), "every run is somewhere, once"


def test_after_a_fallback_masks_are_cut_from_the_level_that_was_held() -> None:
    """Bit for bit those of a search that never tried: neither the failing masks nor its weights are in them."""
    levels, _ = going(loses_at(7))
    found = {level.level: level for level in levels}
    for r, masks in found[5].masks.items():
        check_cut(masks, found[4], r)
    untried, _ = going(Judged(), course=Followed((Cut(0, 2), Cut(0, 4), *(Cut(n, n + 1) for n in range(4, 9)))))
    for one, other in zip(levels, untried, strict=True):
        assert same(one.masks, other.masks)
        assert {r: run.curve.loss for r, run in one.arms[TICKET].items()} == {
            r: run.curve.loss for r, run in other.arms[TICKET].items()
        }
    # After the first cut of all, it is the dense network that was held.
    assert cuts(going(loses_at(4), course=adaptive(9, (9,), 4, (4, 3, 2)))[0]) == [(n, n + 1) for n in range(9)]


def same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(mask, second[r][name]) for r, masks in first.items() for name, mask in masks.items()
    )


def test_controls_are_trained_for_levels_that_are_kept_and_for_no_attempt() -> None:
    """A gate that a big cut fails at is given up first, and trained with its controls when it is reached again."""
    course, controls = adaptive(9, (2, 7, 9), 4, (4, 3, 2)), {"controls": CONTROLS, "control_levels": (2, 7, 9)}
    levels, calls = going(loses_at(7), course=course, **controls)
    assert [level.level for level in levels] == [0, 2, 4, 5, 6, 7, 8, 9]
    assert [level.level for level in levels if set(CONTROLS) <= set(level.arms)] == [2, 7, 9]
    controlled = [names for call in calls if (names := {job.name for job in call}) & set(CONTROLS)]
    assert controlled == [set(CONTROLS)] * 3
    attempt = next(level for level in levels if level.making)
    assert (attempt.level, {one.job.name for one in attempt.making}) == (5, {ATTEMPT})
    for level in levels[1:]:
        assert all(runs.keys() == {0, 1, 2} for runs in level.arms.values())
        # A family's arms are together, as where tickets and controls are trained at once.
        assert [job.seed.replicate for job, _ in level.runs] == sorted(job.seed.replicate for job, _ in level.runs)


def test_the_test_split_has_no_say_in_where_a_search_goes() -> None:
    low = Judged(loses_at(7).says, tests=lambda: 0.0)
    high = Judged(loses_at(7).says, tests=lambda: 1.0)
    one, other = going(low)[0], going(high)[0]
    assert cuts(one) == cuts(other)
    assert one[1].arms[TICKET][0].test_accuracy != other[1].arms[TICKET][0].test_accuracy
    assert all(same(a.masks, b.masks) for a, b in zip(one, other, strict=True))
    # One that is read where the search decides would be an error.
    turns = iter(range(10**6))
    falls = Judged(tests=lambda: 1.0 if next(turns) < 6 else 0.0)
    assert cuts(going(falls)[0]) == [(0, 2), (0, 4), (4, 7), (7, 9)]


def test_a_family_that_diverges_in_an_attempt_leaves_with_a_sentence_at_the_next_level() -> None:
    diverges = replace(loses_at(7), fails=lambda job: kept(job) in at(7) and job.seed.replicate == 1)
    levels, calls = going(diverges)
    told = [(d.replicate, d.level, d.arm, d.sentence) for level in levels for d in level.dropped]
    assert told == [(1, 7, TICKET, "diverged at iteration 10")]
    assert [bool(level.dropped) for level in levels] == [level.level == 5 for level in levels]
    assert made(levels[3]) == [(7, ATTEMPT, r) for r in range(3)], "what it cost is not forgotten"
    assert all(level.masks.keys() == {0, 2} for level in levels if level.level >= 5)
    assert all(job.seed.replicate != 1 for call in calls[4:] for job in call)


def test_a_family_that_diverges_is_in_no_mean() -> None:
    """The ones that are left do well, so that the cut stands."""
    diverges = Judged(fails=lambda job: kept(job) in at(7) and job.seed.replicate == 1)
    levels, _ = going(diverges)
    assert cuts(levels) == [(0, 2), (0, 4), (4, 7), (7, 9)]
    assert [d.replicate for d in levels[3].dropped] == [1]


def test_a_control_that_diverges_takes_its_family_along() -> None:
    diverges = Judged(fails=lambda job: job.name == "reinit" and job.seed.replicate == 2)
    levels, _ = going(diverges, controls={"reinit": CONTROLS["reinit"]}, control_levels=(2,))
    assert [(d.replicate, d.level, d.arm) for d in levels[1].dropped] == [(2, 2, "reinit")]
    assert all(level.masks.keys() == {0, 1} for level in levels[1:])


def test_where_an_attempt_loses_everybody_the_search_says_so() -> None:
    with pytest.raises(NobodyLeft, match=r"no family is left at level 7: ticket of family 0 diverged at iteration 10"):
        going(Judged(fails=lambda job: kept(job) in at(7)))


def test_an_attempt_that_is_interrupted_ends_the_search() -> None:
    train = Judged(fails=lambda job: kept(job) in at(7), result=RunResult.INTERRUPTED)
    with pytest.raises(KeyboardInterrupt, match="level 7, ticket: interrupted at iteration 10"):
        going(train)


@pytest.mark.parametrize("course", [None, COURSE])
def test_networks_of_other_levels_are_forgotten(course: Course | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense one stays, and of the rest only those that the next cut may be made from."""
    ways: list[Way] = []
    begin = Way.__init__

    def spied(way: Way, *given: Any) -> None:
        begin(way, *given)
        ways.append(way)

    monkeypatch.setattr(Way, "__init__", spied)
    most = 0
    found = search(families(2), loses_at(7), imp(), PRUNABLE, iterations=T, levels=9, course=course)
    for _ in found:
        for way in ways:
            most = max(most, *(len({id(one.network) for one in of.values()}) for of in (way._tickets, way._trails)))
    # Dense, the one that was cut and the new one; where a cut may fail also the attempt and what is held before it.
    assert most == (5 if course else 3)
    for way in ways:
        assert 0 in way._trails
        assert len(way._trails) <= (3 if course else 2)


@pytest.mark.parametrize("lost", [(), (1,), (0, 2)])
def test_all_families_driven_together_or_each_alone_find_the_same(lost: tuple[int, ...]) -> None:
    def train() -> Judged:
        return replace(loses_at(7), calls=[], fails=lambda job: kept(job) in at(5) and job.seed.replicate in lost)

    for course in (COURSE, Fixed((2, 5, 9)), Followed((Cut(0, 2), Cut(0, 5), Cut(5, 6)))):
        one, other = (going(train(), driven, course)[0] for driven in (search, by_family))
        assert list(map(told, one)) == list(map(told, other))


def told(level: Level) -> object:
    """Everything of a level that can be compared by ``==``."""
    return (
        level.level,
        level.cut_from,
        level.dense_needed,
        level.dropped,
        {r: {n: m.tolist() for n, m in masks.items()} for r, masks in level.masks.items()},
        {r: {n: v.tolist() for n, v in s.params.items()} for r, s in level.starts.items()},
        {arm: {r: run.end.params["w"].tolist() for r, run in runs.items()} for arm, runs in level.arms.items()},
        [(job.name, job.seed, job.stop) for job, _ in level.runs],
        [as_told(one) for one in level.making],
    )


def as_told(one: Made) -> object:
    return one.level, one.job.name, one.job.seed, one.job.start.step, one.job.stop, one.outcome.curve.loss


def own(train: Any) -> Finding:
    """Search adaptively in a loop of one's own: eight levels, a gate at level 3, where a fifth is left."""
    return searched(
        train=train, strategy="adaptive", rate=0.4, rounds=8, gates=[0.2, 0.02], dense_runs=1, replicates=2,
        controls=[], margin=0.1, min_keep=1,
    )  # fmt: skip


def reporting(says: Callable[[float], float]) -> Callable[..., None]:
    """Give an ordinary loop that reports a made-up accuracy, which follows from the density alone."""
    train = loop(said="nothing")

    def reports(model: nn.Module, *, seed: int, iterations: int, record: Record) -> None:
        train(model, seed=seed, iterations=iterations, record=record)
        left = float((model.get_submodule("1").weight != 0).float().mean())  # type: ignore[union-attr]
        record(record.stop, accuracy=0.5 + says(left))

    return reports


def test_a_loop_of_ones_own_that_reports_accuracy_says_how_far_a_cut_goes() -> None:
    found = own(reporting(lambda left: 0.3 if left < 0.9 else 0.0))
    assert [(one.cut_from, one.level) for one in found.levels] == [(None, 0), (0, 3), (0, 5), (5, 8)]
    assert found.cost.iterations == 2 * OWN_T * 4
    assert [(run.level, run.arm) for run in found.cost.runs if run.replicate == 1] == [
        (0, DENSE), (3, TICKET), (5, TICKET), (8, TICKET),
    ]  # fmt: skip
    # The fifth level keeps 8 %: it fails after a big cut, and is found again by a finer one.
    found = own(reporting(lambda left: 0.0 if left > 0.9 else -0.2 if left < 0.1 else 0.3))
    assert [(one.cut_from, one.level) for one in found.levels] == [
        (None, 0), (0, 3), *((level, level + 1) for level in range(3, 8)),
    ]  # fmt: skip
    assert [(run.level, run.toward) for run in found.cost.runs if run.arm == ATTEMPT] == [(5, 4)] * 2
    assert found.cost.iterations == 2 * OWN_T * 8


@pytest.mark.parametrize("said", ["nothing", "loss"])
def test_a_loop_of_ones_own_that_reports_none_goes_one_level_at_a_time_after_the_first(said: str) -> None:
    found = own(loop(said=said))
    assert [one.level for one in found.levels] == [0, 3, 4, 5, 6, 7, 8]
    assert [one.cut_from for one in found.levels] == [None, 0, 3, 4, 5, 6, 7]


def test_families_that_are_added_later_go_the_way_of_the_first() -> None:
    """A verdict compares them at the same levels, so their own tickets do not decide."""
    levels, _ = going(loses_at(7), families=families(2))
    way = Followed(tuple(Cut(one.cut_from or 0, one.level) for one in levels[1:]))
    further = [replace(one, seed=Seed(5, 7 + n)) for n, one in enumerate(families(2))]
    later, _ = going(Judged(lambda *_: FAILS), course=way, families=further)
    assert cuts(later) == cuts(levels)
    assert all(not level.making for level in later)
