"""A search in which no family waits for another finds what the search level by level finds."""

import threading
from collections.abc import Sequence

import pytest
from search_kit import PRUNABLE, FakeTrain, families

from tombola.prune.controls import CONTROLS
from tombola.prune.pruner import imp
from tombola.search.levels import Level, NobodyLeft, Searching, search
from tombola.study.families import by_family
from tombola.types import TrainJob, TrainOutcome


class Pure:
    """The kit's trainer without a memory of calls: what a job gives depends on the job alone."""

    def __init__(self, lost: frozenset[tuple[int, float]] = frozenset()) -> None:
        self._lost = lost

    def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        return [FakeTrain(diverges=lambda _, job: self._diverges(job))([job])[0] for job in jobs]

    def _diverges(self, job: TrainJob) -> bool:
        kept = sum(int(mask.sum()) for mask in job.masks.values()) if job.masks else 0
        return (job.seed.replicate, kept) in self._lost


def levels(driven: Searching, train: Pure) -> list[Level]:
    controls = {name: CONTROLS[name] for name in ("reinit", "shuffle")}
    return list(
        driven(
            families(4), train, imp(), PRUNABLE,
            iterations=100, levels=3, dense_runs=2, controls=controls, control_levels=(1, 3),
        )
    )  # fmt: skip


def kept_at(level: int) -> int:
    masks = levels(search, Pure())[level].masks[0]
    return sum(int(mask.sum()) for mask in masks.values())


def told(level: Level) -> object:
    """Everything of a level that can be compared by ``==``."""
    return (
        level.level,
        {r: {n: m.tolist() for n, m in masks.items()} for r, masks in level.masks.items()},
        {r: {n: v.tolist() for n, v in s.params.items()} for r, s in level.starts.items()},
        {arm: {r: repr(run.curve) for r, run in runs.items()} for arm, runs in level.arms.items()},
        {arm: {r: run.end.params["w"].tolist() for r, run in runs.items()} for arm, runs in level.arms.items()},
        {r: len(runs) for r, runs in level.dense.items()},
        level.dropped,
        [(job.name, job.seed, job.stop) for job, _ in level.runs],
    )


@pytest.mark.parametrize("lost", [(), (1,), (0, 3)])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_it_finds_what_the_search_level_by_level_finds(at: int, lost: tuple[int, ...]) -> None:
    train = Pure(frozenset((r, kept_at(at)) for r in lost))
    assert [told(one) for one in levels(by_family, train)] == [told(one) for one in levels(search, train)]


def test_where_nobody_is_left_it_says_so_in_the_same_words() -> None:
    train = Pure(frozenset((r, kept_at(2)) for r in range(4)))
    with pytest.raises(NobodyLeft) as one:
        levels(by_family, train)
    with pytest.raises(NobodyLeft) as other:
        levels(search, train)
    assert str(one.value) == str(other.value)


def test_a_family_does_not_wait_for_another() -> None:
    far, slow = threading.Event(), families(2)[0].replicate

    class Waiting(Pure):
        def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
            if jobs[0].seed.replicate == slow and not jobs[0].masks:
                assert far.wait(30), "the other family has not gone on"
            elif jobs[0].masks:
                far.set()
            return super().__call__(jobs)

    assert len(levels(by_family, Waiting())) == 4


def test_an_error_of_the_trainer_is_raised() -> None:
    class Broken(Pure):
        def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:  # noqa: ARG002
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        levels(by_family, Broken())
