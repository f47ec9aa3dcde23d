"""The loop, with a trainer that trains nothing."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import search_kit as kit
import torch
from search_kit import CONTROLS, PRUNABLE, FakeTrain, T, all_controls, families, run

from tombola import models
from tombola.errors import Diverged, EmptiedLayer, InvalidValue
from tombola.prune.allocation import ALLOCATIONS
from tombola.prune.masks import kept, nested
from tombola.prune.pruner import imp, one_shot, train_prune_finetune
from tombola.prune.rewinding import Rewind, masked, restart, rewind_learning_rate, rewind_to_init, rewind_to_step
from tombola.prune.schedules import ladder
from tombola.search.levels import TICKET, Level, search
from tombola.types import Masks, RunResult, Seed, Snapshot, TrainFn, TrainJob, TrainOutcome

CHECKS = (
    kit.check_families_are_paired,
    kit.check_tickets_start_from_their_own_initialisation,
    kit.check_diverged_runs_make_no_mask,
)


@pytest.mark.parametrize("check", CHECKS)
def test_the_search_does_what_a_search_must(check: Callable[[kit.Search], None]) -> None:
    check(search)


def altered(change: Callable[[TrainJob, int], TrainJob]) -> kit.Search:
    """Plant a fault: the jobs of every call reach the trainer changed."""

    def faulty(members: Any, train: TrainFn, *rest: Any, **options: Any) -> Iterator[Level]:
        calls = 0

        def between(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
            nonlocal calls
            calls += 1
            return train([change(job, calls - 1) for job in jobs])

        return search(members, between, *rest, **options)

    return faulty


def order_of_the_level(job: TrainJob, level: int) -> TrainJob:
    return replace(job, seed=replace(job.seed, order=job.seed.order + level))


def unpaired_dense(job: TrainJob, level: int) -> TrainJob:
    return replace(job, seed=replace(job.seed, root=6)) if level == 0 else job


def dense_initialised_anew(job: TrainJob, level: int) -> TrainJob:
    return replace(job, start=kit.draw(replace(job.seed, root=6))) if level == 0 else job


def tickets_go_on(job: TrainJob, level: int) -> TrainJob:
    moved = {name: value * 1.001 for name, value in job.start.params.items()}
    return replace(job, start=replace(job.start, params=moved)) if level else job


def statistics_stay(job: TrainJob, level: int) -> TrainJob:
    return replace(job, start=replace(job.start, buffers={"mean": torch.ones(10)})) if level else job


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (kit.check_families_are_paired, order_of_the_level),
        (kit.check_families_are_paired, unpaired_dense),
        (kit.check_families_are_paired, dense_initialised_anew),
        (kit.check_tickets_start_from_their_own_initialisation, tickets_go_on),
        (kit.check_tickets_start_from_their_own_initialisation, statistics_stay),
    ],
)
def test_planted_faults_are_caught(check: Callable[[kit.Search], None], fault: Any) -> None:
    with pytest.raises(AssertionError):
        check(altered(fault))


def keeps_diverged(members: Any, train: TrainFn, *rest: Any, **options: Any) -> Iterator[Level]:
    """Plant a fault: a run that diverged is passed off as finished."""

    def between(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        return [replace(run, result=RunResult.FINISHED) for run in train(jobs)]

    return search(members, between, *rest, **options)


def test_a_planted_search_that_keeps_diverged_runs_is_caught() -> None:
    with pytest.raises(AssertionError):
        kit.check_diverged_runs_make_no_mask(keeps_diverged)


def test_level_zero_is_the_first_dense_run() -> None:
    train = FakeTrain()
    levels, _ = run(train=train, dense_runs=2)
    zero = levels[0]
    assert (zero.level, zero.arms.keys()) == (0, {TICKET})
    for r in range(3):
        assert zero.arms[TICKET][r] is zero.dense[r][0]
        assert len(zero.dense[r]) == 2
        assert kept(zero.masks[r]) == 20 * 10 + 6 * 20
        assert zero.starts[r] is levels[0].starts[r]
    assert all(not level.dense for level in levels[1:])


def test_all_jobs_of_a_level_go_out_in_one_call_and_controls_only_where_asked() -> None:
    levels, calls = run(dense_runs=2, **all_controls(2))
    assert [len(jobs) for jobs in calls] == [3 * 2, 3, 3 * (1 + len(CONTROLS)), 3]
    assert [set(level.arms) for level in levels] == [{TICKET}, {TICKET}, {TICKET, *CONTROLS}, {TICKET}]
    assert [job.name for job in calls[2][: 1 + len(CONTROLS)]] == [TICKET, *CONTROLS]


def test_outcomes_go_to_the_family_and_arm_of_their_job() -> None:
    train = FakeTrain()
    levels, calls = run(train=train, dense_runs=2, **all_controls(1, 2, 3))
    for call, (level, jobs) in enumerate(zip(levels[1:], calls[1:], strict=True), start=1):
        for job in jobs:
            again = train.train(call, job)
            found = level.arms[job.name][job.seed.replicate]
            assert all(torch.equal(value, found.end.params[name]) for name, value in again.end.params.items())


def start_of(level: Level, calls: list[list[TrainJob]], replicate: int) -> TrainJob:
    return next(job for job in calls[level.level] if job.name == TICKET and job.seed.replicate == replicate)


@pytest.mark.parametrize("kind", ["fresh", "saved"])
def test_rewinding_to_a_step_reaches_the_jobs(kind: Any) -> None:
    pruner = imp(rewind=rewind_to_step(7, kind))
    levels, calls = run(pruner=pruner, dense_runs=2, **all_controls(1))
    assert [job.save_at for job in calls[0]] == [(7,), ()] * 3
    for level in levels[1:]:
        for r in range(3):
            job, at_step = start_of(level, calls, r), levels[0].dense[r][0].saved[7]
            expected = masked(at_step if kind == "saved" else replace(at_step, optimizer=None), level.masks[r])
            assert (job.start.step, job.stop) == (7, T)
            assert (job.start.optimizer is None) == (kind == "fresh")
            for name, value in expected.params.items():
                assert torch.equal(job.start.params[name], value)
            assert torch.equal(job.start.buffers["mean"], torch.full((10,), 7.0))
    # A fresh initialisation is at step 0 and gets the whole budget; every other control starts where the ticket does.
    steps = {job.name: (job.start.step, job.stop) for job in calls[1]}
    assert steps == {name: (0 if name == "reinit" else 7, T) for name in (TICKET, *CONTROLS)}


def test_learning_rate_rewinding_keeps_the_weights_and_goes_back_to_the_first_position() -> None:
    levels, calls = run(pruner=imp(rewind=rewind_learning_rate()))
    for before, level in pairwise(levels):
        job, end = start_of(level, calls, 1), before.arms[TICKET][1].end
        assert (job.start.step, job.stop, job.start.optimizer) == (0, T, None)
        expected = masked(end, level.masks[1]).params
        assert all(torch.equal(value, expected[name]) for name, value in job.start.params.items())


@pytest.mark.parametrize(("extra", "span"), [(None, T), (25, 25)])
def test_fine_tuning_goes_on_at_the_end_with_the_saved_state(extra: int | None, span: int) -> None:
    levels, calls = run(pruner=train_prune_finetune(extra=extra), **all_controls(1, 2))
    for before, level in pairwise(levels):
        for r in range(3):
            job, end = start_of(level, calls, r), before.arms[TICKET][r].end
            expected = masked(end, level.masks[r])
            begins = T + span * (level.level - 1)
            assert (job.start.step, job.stop) == (begins, begins + span)
            assert all(torch.equal(value, expected.params[name]) for name, value in job.start.params.items())
            for name, slots in expected.optimizer.items():
                assert torch.equal(job.start.optimizer[name]["momentum_buffer"], slots["momentum_buffer"])
            assert all(not bool(job.start.optimizer[n]["momentum_buffer"][~level.masks[r][n]].any()) for n in PRUNABLE)


def test_iterative_masks_come_from_the_last_run_and_one_shot_masks_from_the_dense_run() -> None:
    for pruner, from_dense in ((imp(), False), (replace(one_shot(), schedule=ladder()), True)):
        levels, _ = run(pruner=pruner)
        for before, level in pairwise(levels):
            for r in range(3):
                source = levels[0].arms[TICKET][r] if from_dense else before.arms[TICKET][r]
                for name, mask in level.masks[r].items():
                    size = source.end.params[name].abs().masked_fill(~before.masks[r][name], -1.0)
                    if from_dense:
                        size = source.end.params[name].abs()
                    assert size[mask].min() > size[~mask].max()


def test_the_one_shot_control_is_one_cut_of_the_dense_run_at_the_tickets_density() -> None:
    levels, calls = run(**all_controls(3))
    for job in calls[3]:
        if job.name == "one-shot":
            dense = levels[0].arms[TICKET][job.seed.replicate].end.params
            assert kept(job.masks) == kept(levels[3].masks[job.seed.replicate])
            for name, mask in job.masks.items():
                assert dense[name].abs()[mask].min() > dense[name].abs()[~mask].max()


def test_controls_draw_anew_at_each_level_and_are_replayed() -> None:
    _, calls = run(**all_controls(1, 2))
    _, again = run(**all_controls(1, 2))
    for first, second in zip(calls, again, strict=True):
        for a, b in zip(first, second, strict=True):
            assert all(torch.equal(value, b.start.params[name]) for name, value in a.start.params.items())
            assert all(torch.equal(mask, b.masks[name]) for name, mask in a.masks.items())
    fresh = [job.start.params["b"] for call in calls[1:3] for job in call if job.name == "reinit"]
    assert len({tuple(value.tolist()) for value in fresh}) == len(fresh) == 6
    # Asking for one control changes no other.
    _, one = run(controls={"shuffle": CONTROLS["shuffle"]}, control_levels=(1, 2))
    among, alone = ([job.masks["w"] for call in jobs for job in call if job.name == "shuffle"] for jobs in (calls, one))
    assert all(torch.equal(a, b) for a, b in zip(among, alone, strict=True))


def test_reinit_needs_to_know_the_initialiser() -> None:
    given = [replace(family, draw=None) for family in families()]
    assert len(run(families=given)[0]) == 4
    with pytest.raises(InvalidValue, match="leave reinit out"):
        run(families=given, **all_controls(1))


def test_when_every_family_diverged_the_search_says_where() -> None:
    train = FakeTrain(lambda call, job: call == 2 and job.name == TICKET)
    levels = search(families(), train, imp(), PRUNABLE, iterations=T, levels=3)
    assert [next(levels).level, next(levels).level] == [0, 1]
    with pytest.raises(Diverged, match=r"no family is left at level 2: ticket of family 0 diverged at iteration 10; "):
        next(levels)


def test_an_interrupted_run_ends_the_search_and_is_no_divergence() -> None:
    train = FakeTrain(lambda call, job: call == 1 and job.seed.replicate == 2, result=RunResult.INTERRUPTED)
    with pytest.raises(KeyboardInterrupt, match="level 1, ticket: interrupted at iteration 10"):
        run(train=train)


def test_no_mask_or_start_depends_on_the_test_split() -> None:
    """A trainer with made-up test accuracies leads to the same search."""
    for pruner in (imp(), imp(rewind=rewind_to_step(7)), train_prune_finetune()):
        honest, calls = run(pruner=pruner, **all_controls(1, 2, 3))
        made_up, others = run(pruner=pruner, train=FakeTrain(tests=random.Random(1).random), **all_controls(1, 2, 3))
        assert honest[1].arms[TICKET][0].test_accuracy != made_up[1].arms[TICKET][0].test_accuracy
        for first, second in zip(calls, others, strict=True):
            for a, b in zip(first, second, strict=True):
                assert (a.seed, a.stop, a.save_at, a.name) == (b.seed, b.stop, b.save_at, b.name)
                assert all(torch.equal(value, b.start.params[name]) for name, value in a.start.params.items())
                assert a.masks.keys() == b.masks.keys()
                assert all(torch.equal(mask, b.masks[name]) for name, mask in a.masks.items())


class Blind:
    """An outcome that has everything but test accuracies."""

    def __init__(self, outcome: TrainOutcome) -> None:
        self._outcome = outcome

    def __getattr__(self, name: str) -> Any:
        assert not name.startswith("test"), "the search asked for a test accuracy"
        return getattr(self._outcome, name)


def test_the_search_never_asks_for_a_test_accuracy() -> None:
    train = FakeTrain()
    levels = search(
        families(), lambda jobs: [Blind(o) for o in train(jobs)], imp(), PRUNABLE,
        iterations=T, levels=3, **all_controls(1, 2, 3),
    )  # fmt: skip
    assert len(list(levels)) == 4


PAPER = (100, 80.04, 64.06, 51.28, 41.05, 32.87, 26.32, 21.07, 16.88, 13.52, 10.83, 8.68, 6.95, 5.57, 4.47, 3.58)


def test_lenets_densities_are_the_papers() -> None:
    """The counts that its rates give, weight by weight."""
    names = ("fc1.weight", "fc2.weight", "output.weight")
    init = models.initial(lambda: models.build("lenet-300-100", (1, 28, 28), 10), Seed(0))
    members = [kit.Family(Seed(0), init)]
    multipliers = {"output.weight": Fraction(1, 2)}
    pruner = imp(allocation=ALLOCATIONS["layer-rates"](multipliers))
    alive = {name: init.params[name].numel() for name in names}
    before: Masks = {}

    def train(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        end = Snapshot(T, jobs[0].start.params)
        return [replace(EMPTY, end=end)]

    for level in search(members, train, pruner, names, iterations=T, levels=15):
        masks = level.masks[0]
        assert {name: int(mask.sum()) for name, mask in masks.items()} == alive
        assert round(100 * kept(masks) / 266_200, 2) == PAPER[level.level]
        assert nested(masks, before)
        before = masks
        alive = {n: a - int(Fraction(1, 10 if n == names[2] else 5) * a + Fraction(1, 2)) for n, a in alive.items()}


EMPTY = FakeTrain().train(0, TrainJob(kit.draw(Seed(0)), {}, Seed(0), T))


def test_wrong_calls_are_refused() -> None:
    for changes in ({"levels": -1}, {"dense_runs": 0}):
        with pytest.raises(InvalidValue, match="at least one family"):
            run(**changes)
    with pytest.raises(InvalidValue, match="at least one family"):
        list(search([], FakeTrain(), imp(), PRUNABLE, iterations=T, levels=1))
    with pytest.raises(EmptiedLayer, match="would empty"):
        run(pruner=imp(Fraction(9, 10)), levels=5)


def test_a_dense_level_alone_is_a_search() -> None:
    levels, calls = run(levels=0)
    assert [level.level for level in levels] == [0]
    assert len(calls) == 1


def test_every_policy_describes_itself() -> None:
    policies = (rewind_to_init(), rewind_to_step(7), rewind_to_step(7, "saved"), rewind_learning_rate())
    assert len({policy.describe() for policy in policies}) == 4
    bad = Rewind("step", "step", step=3)
    with pytest.raises(InvalidValue, match="needs the dense run's snapshot"):
        restart(bad, init=kit.draw(Seed(0)), at_step=None, end=kit.draw(Seed(0)))
