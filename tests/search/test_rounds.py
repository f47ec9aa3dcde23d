"""What is trained between two cuts where it is not the tickets: from where, how long, and judged by nobody."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import small
import torch
from own_kit import T as OWN_T
from own_kit import loop, mlp, searched
from search_kit import CONTROLS, FakeTrain, T, families, run

from tombola.errors import InvalidValue
from tombola.prune.masks import kept, nested
from tombola.prune.pruner import During, Pruner, imp, one_shot
from tombola.prune.rewinding import masked, rewind_to_step
from tombola.prune.schedules import ladder
from tombola.search import own
from tombola.search.course import Course, Fixed
from tombola.search.find import Silent
from tombola.search.levels import DENSE, TICKET, Level, NobodyLeft, search
from tombola.search.named import prepare
from tombola.search.rounds import Rounds, Settle, cautions
from tombola.search.settings import MOVING, Method, Settings
from tombola.search.way import ROUND
from tombola.study.families import by_family
from tombola.types import Masks, RunResult, Snapshot, TrainJob, TrainOutcome

S = 30
"""Iterations of a round."""

VISITED = Fixed((2, 5))


def going(
    rounds: Rounds | None,
    pruner: Pruner | None = None,
    train: FakeTrain | None = None,
    search_: Callable[..., Iterator[Level]] = search,
    course: Course = VISITED,
    **options: Any,
) -> tuple[list[Level], list[list[TrainJob]]]:
    return run(search_, pruner, train, levels=5, course=course, rounds=rounds, **options)


def jobs_of(calls: Sequence[Sequence[TrainJob]], name: str, replicate: int = 0) -> list[TrainJob]:
    return [job for call in calls for job in call if job.name == name and job.seed.replicate == replicate]


def equal(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def check_cut(masks: Masks, weights: Mapping[str, torch.Tensor], before: Masks) -> None:
    """The survivors are the largest of those that were there, in every tensor."""
    for name, mask in masks.items():
        size = weights[name].abs().masked_fill(~before[name], -1.0)
        assert not (mask & ~before[name]).any()
        assert size[mask].min() > size[~mask].max()


@dataclass
class Calming(FakeTrain):
    """The kit's trainer whose weights rest between two positions, so that what is cut of them has settled.

    Attributes:
        calm: family -> position from which they rest.
        wakes: family -> position from which they move again.
    """

    calm: Mapping[int, int] = field(default_factory=dict)
    wakes: int = 10**9

    def at(self, job: TrainJob, step: int) -> Snapshot:
        calm = self.calm[job.seed.replicate]
        moved = super().at(job, step if step >= self.wakes else min(step, calm))
        rests = calm <= job.start.step and step < self.wakes
        return masked(replace(moved, step=step, params=job.start.params if rests else moved.params), job.masks)


def test_between_two_cuts_rounds_train_the_survivors_from_the_start_and_tickets_are_trained_where_it_stops() -> None:
    """s iterations from theta_0 under every mask on the way; T from theta_0, bit for bit, where the search visits."""
    levels, calls = going(Rounds(S))
    assert [level.level for level in levels] == [0, 2, 5]
    assert [[{job.name for job in call}, len(call)] for call in calls] == [
        [{DENSE}, 3], [{ROUND}, 3], [{TICKET}, 3], *[[{ROUND}, 3]] * 3, [{TICKET}, 3],
    ]  # fmt: skip
    planned = [sum(counts.values()) for counts in imp().plan({"w": (20, 10), "v": (6, 20)}, 5)]
    for r in range(3):
        init, rounds = families()[r].init, jobs_of(calls, ROUND, r)
        assert [kept(job.masks) for job in rounds] == planned[1:5]
        for job in rounds:
            assert (job.start.step, job.stop, job.start.optimizer, job.save_at) == (0, S, None, ())
            assert (job.seed.root, job.seed.order, job.with_optimizer) == (5, 0, False)
            assert equal(job.start.params, masked(init, job.masks).params)
        for level, job in zip(levels[1:], jobs_of(calls, TICKET, r), strict=True):
            assert (job.start.step, job.stop, job.start.optimizer) == (0, T, None)
            assert job.masks is level.masks[r]
            assert equal(job.start.params, masked(init, level.masks[r]).params)
            assert equal(level.starts[r].params, job.start.params)


def test_every_mask_is_cut_from_the_round_before_it_and_the_first_from_the_dense_run() -> None:
    levels, _ = going(Rounds(S))
    for r in range(3):
        dense = levels[0].arms[TICKET][r].end.params
        rounds = [one for level in levels for one in level.making if one.job.seed.replicate == r]
        assert [one.level for one in rounds] == [1, 2, 3, 4]
        first, second, third, fourth = rounds
        check_cut(first.job.masks, dense, levels[0].masks[r])
        check_cut(levels[1].masks[r], first.outcome.end.params, first.job.masks)
        # The round of a level that is visited has the ticket's mask, and what comes next is cut from the round.
        assert second.job.masks is levels[1].masks[r]
        check_cut(third.job.masks, second.outcome.end.params, second.job.masks)
        check_cut(fourth.job.masks, third.outcome.end.params, third.job.masks)
        check_cut(levels[2].masks[r], fourth.outcome.end.params, fourth.job.masks)
        assert nested(levels[2].masks[r], levels[1].masks[r])


def test_a_round_is_written_down_for_the_level_that_it_leads_to_and_is_in_no_arm() -> None:
    levels, calls = going(Rounds(S), controls={"reinit": CONTROLS["reinit"]}, control_levels=(5,))
    assert [level.cut_from for level in levels] == [None, 0, 2]
    assert [[(one.level, one.job.seed.replicate) for one in level.making] for level in levels] == [
        [], [(1, r) for r in range(3)], [(level, r) for r in range(3) for level in (2, 3, 4)],
    ]  # fmt: skip
    assert [set(level.arms) for level in levels] == [{TICKET}, {TICKET}, {TICKET, "reinit"}]
    assert {one.job.name for level in levels for one in level.making} == {ROUND}
    assert all(run[0].name != ROUND for level in levels for run in level.runs)
    written = sum(len(level.runs) + len(level.making) for level in levels)
    assert written == sum(map(len, calls))


def test_rounds_rewind_to_the_step_that_tickets_rewind_to() -> None:
    levels, calls = going(Rounds(S), imp(rewind=rewind_to_step(7)))
    for r in range(3):
        at_step = levels[0].arms[TICKET][r].saved[7]
        for job in jobs_of(calls, ROUND, r):
            assert (job.start.step, job.stop) == (7, 7 + S)
            assert equal(job.start.params, masked(at_step, job.masks).params)
            assert torch.equal(job.start.buffers["mean"], torch.full((10,), 7.0))
        assert {(job.start.step, job.stop) for job in jobs_of(calls, TICKET, r)} == {(7, T)}


def test_a_share_of_the_examples_is_for_rounds_and_never_for_what_is_judged() -> None:
    _, calls = going(Rounds(S, fraction=0.25), controls={"reinit": CONTROLS["reinit"]}, control_levels=(5,))
    shares = {(job.name, job.fraction) for call in calls for job in call}
    assert shares == {(DENSE, 1.0), (ROUND, 0.25), (TICKET, 1.0), ("reinit", 1.0)}


@pytest.mark.parametrize("pruner", [imp(), imp(rewind=rewind_to_step(7))])
def test_rounds_of_full_length_make_the_masks_of_imp_bit_for_bit(pruner: Pruner) -> None:
    whole, _ = run(pruner=pruner, levels=5)
    by_level = {level.level: level for level in whole}
    found, _ = going(Rounds(T - pruner.rewind.step), pruner)
    for level in found:
        other = by_level[level.level]
        for r in range(3):
            assert equal(level.masks[r], other.masks[r])
            assert equal(level.starts[r].params, other.starts[r].params)
            assert equal(level.arms[TICKET][r].end.params, other.arms[TICKET][r].end.params)
    # And shorter ones make others.
    assert not equal(going(Rounds(S), pruner)[0][2].masks[0], by_level[5].masks[0])


def levels_of(settings: Settings, driven: Callable[..., Iterator[Level]] = search) -> list[Level]:
    """Search with the trainer of the library, and give the levels with their tensors."""
    setup = prepare(settings)
    with setup.trainer(Silent()) as train:
        return list(
            driven(
                setup.families, train, setup.plan.pruner, setup.plan.scope.prunable, iterations=setup.iterations,
                levels=setup.plan.cuts, course=setup.course, rounds=setup.plan.rounds,
            )
        )  # fmt: skip


def test_trained_in_earnest_rounds_of_full_length_make_the_masks_of_imp_too() -> None:
    few: dict[str, Any] = {"rounds": 4, "replicates": 1, "dense_runs": 1, "controls": ()}
    whole = {level.level: level for level in levels_of(small.settings(**few))}
    found = levels_of(small.settings(**few, gates=(0.29, 0.1), round_iterations=small.ITERATIONS))
    assert [level.level for level in found] == [0, 2, 4]
    for level in found:
        assert equal(level.masks[0], whole[level.level].masks[0])
        assert equal(level.arms[TICKET][0].end.params, whole[level.level].arms[TICKET][0].end.params)
    assert [len(level.making) for level in found] == [0, 1, 2]


def test_continued_rounds_go_on_where_the_dense_run_ended_and_rewind_for_the_tickets_alone() -> None:
    """Weights, statistics and moments of the survivors, at the positions T, T + s, ..."""
    levels, calls = going(Rounds(S, continued=True))
    assert all(job.with_optimizer for call in calls for job in call if job.name in (DENSE, ROUND))
    for r in range(3):
        rounds = [one for level in levels for one in level.making if one.job.seed.replicate == r]
        assert [(one.job.start.step, one.job.stop) for one in rounds] == [
            (T + n * S, T + (n + 1) * S) for n in range(4)
        ]
        before = [levels[0].arms[TICKET][r].end, *(one.outcome.end for one in rounds)]
        for source, one in zip(before, rounds, strict=False):
            expected = masked(source, one.job.masks)
            assert equal(one.job.start.params, expected.params)
            assert equal(one.job.start.buffers, source.buffers)
            assert one.job.start.optimizer is not None
            assert expected.optimizer is not None
            for name, slots in expected.optimizer.items():
                assert equal(one.job.start.optimizer[name], slots)
        init = families()[r].init
        for job in jobs_of(calls, TICKET, r):
            assert (job.start.step, job.stop, job.start.optimizer, job.with_optimizer) == (0, T, None, False)
            assert equal(job.start.params, masked(init, job.masks).params)


SETTLE = Settle(every=10, window=3, threshold=0.05)


def test_a_round_that_may_settle_is_trained_in_pieces_each_from_the_piece_before() -> None:
    """It ends with the third look whose masks agree, family by family, and at its full length at the latest."""
    train = Calming(calm={0: 15, 1: 35, 2: 10**6})
    levels, calls = going(Rounds(80, settle=SETTLE), train=train, course=Fixed((1, 3)))
    assert all(job.with_optimizer for call in calls for job in call if job.name == ROUND)
    for r, ends in {0: 40, 1: 60, 2: 80}.items():
        made = [one for level in levels for one in level.making if one.job.seed.replicate == r]
        pieces = [(step, step + 10) for step in range(0, ends, 10)]
        assert [(one.job.start.step, one.job.stop) for one in made] == pieces * 2
        assert [one.level for one in made] == [1] * len(pieces) + [2] * len(pieces)
        first = made[: len(pieces)]
        assert equal(first[0].job.start.params, masked(families()[r].init, first[0].job.masks).params)
        assert first[0].job.start.optimizer is None
        for before, after in pairwise(first):
            assert after.job.start is before.outcome.end, "with weights, moments and position"
            assert after.job.masks is before.job.masks
        # What is cut next is where it settled.
        check_cut(made[-1].job.masks, first[-1].outcome.end.params, first[-1].job.masks)
        check_cut(levels[2].masks[r], made[-1].outcome.end.params, made[-1].job.masks)


def test_a_search_whose_rounds_settle_cuts_the_dense_run_where_its_first_mask_had_settled() -> None:
    train = Calming(calm={0: 15, 1: 35, 2: 10**6}, wakes=75)
    levels, calls = going(Rounds(80, settle=SETTLE), train=train, course=Fixed((1, 2)))
    assert {job.save_at for job in calls[0]} == {tuple(range(10, T, 10))}
    assert levels[1].dense_needed == {0: 40, 1: 60}
    for r, needed in {0: 40, 1: 60, 2: T}.items():
        dense = levels[0].arms[TICKET][r]
        network = dense.end if needed == T else dense.saved[needed]
        check_cut(levels[1].masks[r], network.params, levels[0].masks[r])


EARLY_BIRD = replace(one_shot(), schedule=ladder())


def test_early_bird_prunes_the_dense_run_once_where_the_mask_of_each_level_had_settled() -> None:
    """No rounds: every level is a cut of the dense run, that of its end where the mask never settled."""
    train = Calming(calm={0: 15, 1: 35, 2: 10**6}, wakes=75)
    levels, calls = going(Rounds(T, settle=SETTLE), EARLY_BIRD, train)
    assert [{job.name for job in call} for call in calls] == [{DENSE}, {TICKET}, {TICKET}]
    assert [level.cut_from for level in levels] == [None, 0, 0]
    plain, _ = going(None, EARLY_BIRD, replace(train, calls=[]))
    for level, other in zip(levels[1:], plain[1:], strict=True):
        assert not level.making
        assert level.dense_needed == {0: 40, 1: 60}
        for r, needed in {0: 40, 1: 60, 2: T}.items():
            dense = levels[0].arms[TICKET][r]
            network = dense.end if needed == T else dense.saved[needed]
            check_cut(level.masks[r], network.params, levels[0].masks[r])
            assert equal(level.masks[r], other.masks[r]) == (needed == T), "the end of the run has another mask"
            start = level.starts[r]
            assert (start.step, start.optimizer) == (0, None)
            assert equal(start.params, masked(families()[r].init, level.masks[r]).params)


@dataclass
class Moving(FakeTrain):
    """The kit's trainer, which ends a run of changing masks with its largest weights."""

    def train(self, call: int, job: TrainJob) -> TrainOutcome:
        run = super().train(call, job)
        if job.updates is None or run.result is not RunResult.FINISHED:
            return run
        final: Mapping[str, int] = job.updates.final  # type: ignore[attr-defined]
        size = {name: run.end.params[name].abs() for name in job.masks}
        masks = {name: value >= value.flatten().topk(final[name]).values[-1] for name, value in size.items()}
        return replace(run, masks=masks, end=masked(run.end, masks))


GRADUAL = replace(
    imp(), during=During(lambda counts: SimpleNamespace(final=dict(counts)), starts_dense=True, rewinds=True)
)  # type: ignore[arg-type]


def test_gradual_pruning_that_rewinds_makes_a_mask_in_one_run_and_trains_it_from_the_start() -> None:
    levels, calls = going(None, GRADUAL, Moving())
    assert [{job.name for job in call} for call in calls] == [{DENSE}, {ROUND}, {TICKET}, {ROUND}, {TICKET}]
    planned = GRADUAL.plan({"w": (20, 10), "v": (6, 20)}, 5)
    for level in levels[1:]:
        assert level.cut_from is None
        assert [(one.level, one.job.name) for one in level.making] == [(level.level, ROUND)] * 3
        for one in level.making:
            r = one.job.seed.replicate
            assert one.job.updates.final == planned[level.level]  # type: ignore[union-attr]
            assert (one.job.start.step, one.job.stop) == (0, T)
            assert equal(one.job.start.params, families()[r].init.params)
            assert all(bool(mask.all()) for mask in one.job.masks.values()), "it starts with all weights"
            assert one.outcome.masks is not None
            assert equal(level.masks[r], one.outcome.masks)
    for job in (job for call in calls for job in call if job.name == TICKET):
        assert job.updates is None
        assert (job.start.step, job.stop) == (0, T)
        assert equal(job.start.params, masked(families()[job.seed.replicate].init, job.masks).params)


CHEAP: dict[str, tuple[Rounds | None, Pruner, Callable[..., FakeTrain]]] = {
    "short": (Rounds(S), imp(), FakeTrain),
    "rewound to a step": (Rounds(S), imp(rewind=rewind_to_step(7)), FakeTrain),
    "continued": (Rounds(S, continued=True), imp(), FakeTrain),
    "settled": (Rounds(80, settle=SETTLE), imp(), lambda lost: Calming(lost, calm={0: 15, 1: 35, 2: 10**6})),
    "early-bird": (Rounds(T, settle=SETTLE), EARLY_BIRD, lambda lost: Calming(lost, calm={0: 15, 1: 35, 2: 10**6})),
    "gradual-rewind": (None, GRADUAL, Moving),
}


@pytest.mark.parametrize("lost", [(), (0,), (2,)])
@pytest.mark.parametrize("name", CHEAP)
def test_all_families_driven_together_or_each_alone_find_the_same(name: str, lost: tuple[int, ...]) -> None:
    rounds, pruner, trainer = CHEAP[name]

    def diverges(_: int, job: TrainJob) -> bool:
        # On the way to the last level: in a round where there are any, else in the ticket.
        left = kept(job.masks) if job.updates is None else sum(job.updates.final.values())  # type: ignore[attr-defined]
        here = job.name == ROUND or (name == "early-bird" and job.name == TICKET)
        return here and job.seed.replicate in lost and left < 150

    one, other = (going(rounds, pruner, Alone(trainer, diverges), driven)[0] for driven in (search, by_family))
    assert list(map(told, one)) == list(map(told, other))
    assert [d.replicate for level in one for d in level.dropped] == list(lost)


class Alone(FakeTrain):
    """Trains by a trainer that knows no earlier calls, so that it may be called from several threads."""

    def __init__(self, trainer: Callable[..., FakeTrain], diverges: Callable[[int, TrainJob], bool]) -> None:
        super().__init__()
        self._make = lambda: trainer(diverges)

    def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        return self._make()(jobs)


def told(level: Level) -> object:
    """Everything of a level that can be compared by ``==``."""
    return (
        (level.level, level.cut_from, level.dense_needed, level.dropped),
        {r: {n: m.tolist() for n, m in masks.items()} for r, masks in level.masks.items()},
        {r: {n: v.tolist() for n, v in s.params.items()} for r, s in level.starts.items()},
        {arm: {r: run.end.params["w"].tolist() for r, run in runs.items()} for arm, runs in level.arms.items()},
        [(job.name, job.seed, job.start.step, job.stop) for job, _ in level.runs],
        [
            (one.level, one.job.name, one.job.seed, one.job.start.step, one.job.stop, repr(one.outcome.curve))
            for one in level.making
        ],
    )


def test_a_family_that_diverges_in_a_round_leaves_with_a_sentence_and_makes_no_mask() -> None:
    """Its earlier rounds cost what they cost, and are written down with the level that the others reach."""

    def diverges(call: int, job: TrainJob) -> bool:
        return call == 4 and job.seed.replicate == 1

    levels, calls = going(Rounds(S), train=FakeTrain(diverges))
    told = [(d.replicate, d.level, d.arm, d.sentence) for level in levels for d in level.dropped]
    assert told == [(1, 5, ROUND, "diverged at iteration 10")]
    assert levels[2].dropped
    assert levels[2].masks.keys() == levels[2].arms[TICKET].keys() == {0, 2}
    assert [one.level for one in levels[2].making if one.job.seed.replicate == 1] == [2, 3]
    assert all(job.seed.replicate != 1 for call in calls[5:] for job in call)


@pytest.mark.parametrize("call", [1, 4])
def test_where_a_round_loses_everybody_the_search_says_so(call: int) -> None:
    train = FakeTrain(lambda at, job: at == call and job.name == ROUND)
    with pytest.raises(
        NobodyLeft, match=r"no family is left at level [25]: round of family 0 diverged at iteration 10"
    ):
        going(Rounds(S), train=train)


@pytest.mark.parametrize(
    ("rounds", "pruner", "trainer"), [(Rounds(S), imp(), FakeTrain), (None, GRADUAL, Moving)]
)  # fmt: skip
def test_a_round_that_is_interrupted_ends_the_search(rounds: Rounds | None, pruner: Pruner, trainer: Any) -> None:
    train = trainer(lambda _, job: job.name == ROUND and job.seed.replicate == 2, result=RunResult.INTERRUPTED)
    with pytest.raises(KeyboardInterrupt, match="level 2, round: interrupted at iteration 10"):
        going(rounds, pruner, train)


def test_nothing_that_rounds_make_depends_on_the_test_split() -> None:
    for rounds, pruner, trainer in CHEAP.values():
        honest, made_up = (
            going(rounds, pruner, replace(trainer(lambda *_: False), tests=tests))[0]
            for tests in (lambda: 0.9, random.Random(1).random)
        )
        assert honest[1].arms[TICKET][0].test_accuracy != made_up[1].arms[TICKET][0].test_accuracy
        assert list(map(told, honest)) == list(map(told, made_up))


def test_known_weaknesses_of_cheap_rounds_are_said_and_none_of_full_ones() -> None:
    assert cautions(None, T, 0.01) == ()
    assert cautions(Rounds(T), T, 0.01) == ()
    assert cautions(Rounds(S, continued=True), T, 0.2) == ()
    for rounds, said in (
        (Rounds(S), "by rounds of 30 of 100 iterations"),
        (Rounds(T, fraction=0.5), "by rounds of 100 of 100 iterations on 50 % of the examples"),
        (Rounds(S, continued=True), "by rounds that go on with trained weights"),
        (Rounds(T, settle=SETTLE), "by rounds that end when their mask has settled"),
    ):
        (caution,) = cautions(rounds, T, 0.01)
        assert said in caution
        assert "docs/cheaper.md" in caution


ROUNDLESS = ("one-shot", "lr-rewind", "finetune", "obd", "at-init", "gradual", *MOVING, "rigl", "adaptive")


@pytest.mark.parametrize("strategy", ROUNDLESS)
@pytest.mark.parametrize("given", [{"round_iterations": 10}, {"round_data": 0.5}])
def test_a_strategy_without_rounds_of_its_own_refuses_to_be_told_of_them(strategy: str, given: dict[str, Any]) -> None:
    name = next(iter(given)).replace("_", "-")
    with pytest.raises(InvalidValue, match=rf"{name} is of the rounds .*, and {strategy} has none of its own.*: imp,"):
        Method(strategy=strategy, **given)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01])
def test_a_share_of_the_examples_is_a_share(share: float) -> None:
    with pytest.raises(InvalidValue, match=r"round-data is .*above 0 and up to 1"):
        Method(round_data=share)
    assert Method(round_data=1).round_data == 1


def test_a_round_has_an_iteration_and_no_more_than_a_run() -> None:
    with pytest.raises(InvalidValue, match="round-iterations is 0; it is at least 1"):
        Method(round_iterations=0)
    with pytest.raises(InvalidValue, match="a round of 25 iterations is longer than a run, which has 24"):
        prepare(small.settings(round_iterations=25))
    with pytest.raises(InvalidValue, match="a round of 20 iterations is longer than a run, which has 19"):
        prepare(small.settings(round_iterations=20, rewind="step:5"))
    assert prepare(small.settings(round_iterations=19, rewind="step:5")).plan.rounds == Rounds(19)


@pytest.mark.parametrize("asked", [{"round_iterations": 5}, {"strategy": "continued"}, {"strategy": "settled"}])
def test_masks_that_are_made_apart_from_tickets_and_kept_weights_exclude_each_other(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match="makes its masks apart from the tickets, which start from early values"):
        Method(rewind="lr", **asked)


def test_strategies_say_how_long_their_rounds_are() -> None:
    """A tenth of T for those that go on, a share of the examples once over; all of T where nobody says."""

    def rounds(**how: Any) -> Rounds | None:
        return prepare(small.settings(recipe={"iterations": 200}, **how)).plan.rounds

    assert rounds() is rounds(strategy="gradual-rewind") is None
    assert rounds(strategy="adaptive") == Rounds(12, continued=True, between=True)
    assert rounds(round_iterations=50) == Rounds(50)
    assert rounds(round_data=0.25) == Rounds(50, fraction=0.25)
    assert rounds(round_data=0.25, round_iterations=80) == Rounds(80, fraction=0.25)
    assert rounds(strategy="continued") == Rounds(20, continued=True)
    assert rounds(strategy="continued", round_iterations=5) == Rounds(5, continued=True)
    for strategy in ("settled", "early-bird"):
        assert rounds(strategy=strategy) == Rounds(200, settle=Settle(10, 3, 0.1))
    assert Rounds(200, settle=Settle(10, 3, 0.1)).looks(200) == tuple(range(10, 200, 10))
    assert Rounds(50).looks(200) == ()


@pytest.mark.parametrize("strategy", ["continued", "settled", "early-bird", "gradual-rewind", "gem-miner"])
def test_a_loop_of_ones_own_is_not_reached_into(strategy: str) -> None:
    with pytest.raises(InvalidValue, match=rf"{strategy} takes hold of a run between its first iteration and its last"):
        searched(strategy=strategy)


def test_a_loop_of_ones_own_has_its_data_to_itself() -> None:
    with pytest.raises(InvalidValue, match=r"round-data takes hold of a run .* not reached into. Use imp, adaptive"):
        own.prepare(Method(round_data=0.5), mlp, loop(), None, OWN_T, score="accuracy", speed=None, example=None)


def test_a_loop_of_ones_own_trains_shorter_rounds() -> None:
    heard: list[tuple[int, int]] = []
    spy = loop(spy=lambda model, seed, iterations, record: heard.append((record.start, record.stop)))  # noqa: ARG005
    found = searched(train=spy, rounds=4, gates=[0.25, 0.0625], round_iterations=5, dense_runs=1, replicates=1,
                     controls=[])  # fmt: skip
    assert heard == [(0, OWN_T), (0, 5), (0, OWN_T), (0, 5), (0, 5), (0, OWN_T)]
    assert [(run.level, run.toward, run.arm, run.iterations) for run in found.cost.runs] == [
        (0, 0, DENSE, OWN_T), (2, 2, TICKET, OWN_T), (1, 2, ROUND, 5),
        (4, 4, TICKET, OWN_T), (2, 4, ROUND, 5), (3, 4, ROUND, 5),
    ]  # fmt: skip
    assert any("rounds of 5 of 12 iterations" in note for note in found.notes)
