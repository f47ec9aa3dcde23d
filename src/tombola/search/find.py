"""A whole search: families, levels, verdict, and the ticket to keep."""

import platform
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, final

import numpy
import torch

import tombola
from tombola.search.book import Book
from tombola.search.choosing import choose
from tombola.search.course import Course, Followed
from tombola.search.finding import Finding, LevelSummary, results
from tombola.search.levels import Dropped, Family, Level, Searching, search
from tombola.search.named import prepare
from tombola.search.noticed import check_budgets, no_speed, notes_on
from tombola.search.settings import Settings
from tombola.search.setup import Setup, name_of
from tombola.stats import Judgement, Looks, Verdict, combine, judge, settled
from tombola.train.watch import Watcher
from tombola.types import TrainFn, TrainJob, TrainOutcome


class Observer(Watcher, Protocol):
    """Who watches a search; a :class:`~tombola.train.watch.Watcher` of its runs besides."""

    def planned(self, setup: Setup) -> None:
        """Everything is decided and training begins."""

    def training(self, jobs: Sequence[TrainJob]) -> None:
        """A level's jobs go to the trainer; ``evaluated`` counts them from 0."""

    def level_done(self, summary: LevelSummary, dropped: Sequence[Dropped]) -> None:
        """A level is finished."""


@final
class Silent:
    """An observer that shows nothing."""

    def planned(self, setup: Setup) -> None:
        """Do nothing."""

    def training(self, jobs: Sequence[TrainJob]) -> None:
        """Do nothing."""

    def level_done(self, summary: LevelSummary, dropped: Sequence[Dropped]) -> None:
        """Do nothing."""

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:
        """Do nothing."""

    def stop(self) -> bool:
        """Go on."""
        return False


def find(settings: Settings, observer: Observer | None = None) -> Finding:
    """Search for a ticket and judge it.

    Args:
        settings: what to do.
        observer: is told of progress.

    Returns:
        The levels, the verdict, and the subnetwork worth keeping; nothing is written.

    Raises:
        TombolaError: see :func:`tombola.search.named.prepare` and :func:`tombola.search.levels.search`.
    """
    return run(prepare(settings), observer)


def run(setup: Setup, observer: Observer | None = None, searching: Searching = search) -> Finding:
    """Run a search that has been prepared, driven level by level or otherwise; see :func:`find`."""
    began = time.perf_counter()
    observer = observer or Silent()
    observer.planned(setup)
    book, judgements, course = Book(setup), list[Judgement](), setup.course
    with setup.trainer(observer) as trainer:

        def train(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
            observer.training(jobs)
            return trainer(jobs)

        for families, alpha in _looks(setup):
            for level in _levels(setup, families, train, searching, course):
                observer.level_done(book.enter(level), level.dropped)
                check_budgets(book.noticed)
            judgements.append(_judge(setup, book, alpha))
            if setup.looks is not None and _settled(judgements, setup.looks, setup):
                break
            # Later families go the way of the first, for a verdict compares them at the same levels.
            course = Followed(book.cuts) if course.joint else course
    sequential = None
    if setup.looks is not None:
        sequential = combine(judgements, setup.looks, longer=not _moving(setup))
    judgement = judgements[-1] if sequential is None else sequential.judgement
    about = _about(setup)
    return Finding(
        title=setup.title,
        about=about,
        levels=book.levels,
        dense=book.dense,
        judgement=judgement,
        cost=book.cost(time.perf_counter() - began),
        chosen=choose(setup, book, judgement, about),
        dropped=tuple(book.dropped),
        notes=(*setup.notes, *notes_on(book.noticed)),
        observed=book.observed,
        sequential=sequential,
    )


def _looks(setup: Setup) -> Iterator[tuple[Sequence[Family], float]]:
    """Give the families that each look adds, and its error rate."""
    if setup.looks is None:
        yield setup.families, setup.method.alpha
        return
    for before, size, alpha in zip((0, *setup.looks.sizes), setup.looks.sizes, setup.looks.alphas, strict=False):
        yield setup.families[before:size], alpha


def _settled(judgements: Sequence[Judgement], plan: Looks, setup: Setup) -> bool:
    """Whether further families would decide nothing, the lottery effect included."""
    if not settled(judgements, plan).all:
        return False
    verdict = combine(judgements, plan, longer=not _moving(setup)).judgement.verdict
    return verdict is not Verdict.MATCHES or not setup.plan.controls


def _levels(
    setup: Setup, families: Sequence[Family], train: TrainFn, searching: Searching, course: Course
) -> Iterator[Level]:
    return searching(
        families,
        train,
        setup.plan.pruner,
        setup.plan.scope.prunable,
        iterations=setup.iterations,
        levels=setup.plan.cuts,
        dense_runs=setup.method.dense_runs,
        controls=setup.plan.controls,
        control_levels=setup.plan.gates,
        course=course,
        rounds=setup.plan.rounds,
    )


def _moving(setup: Setup) -> bool:
    """Whether what is judged are networks whose masks changed while they trained."""
    during = setup.plan.pruner.during
    return during is not None and not during.rewinds


def _judge(setup: Setup, book: Book, alpha: float) -> Judgement:
    pruner = setup.plan.pruner
    restarts = pruner.keeps_start_values
    speed, early = setup.speed or no_speed(book.noticed), None
    if _moving(setup):
        speed = "masks change while the network trains, and its early stop is sought after the last change"
    elif not restarts:
        speed = "the survivors keep trained weights, so their iterations do not count from initialisation"
    if all(one.steps == () for one in book.noticed):
        early = "the training loop reported no validation loss, so there is no early stop"
    table = results(book.levels, book.dense)
    return judge(
        table,
        margin=setup.margin,
        gates=[book.at[level].density for level in setup.plan.gates],
        alpha=alpha,
        lottery=restarts,
        longer=not _moving(setup),
        speed=speed,
        early=early,
        score=setup.score,
        seed=setup.method.seed,
    )


def _about(setup: Setup) -> dict[str, Any]:
    method, plan = setup.method, setup.plan
    criterion = method.criterion
    return {
        **setup.about,
        "strategy": method.strategy,
        "criterion": criterion if isinstance(criterion, str) or criterion is None else name_of(criterion),
        "allocation": plan.pruner.allocation.name,
        "structure": method.structure,
        "recalibrated": method.recalibrate,
        "rewind": plan.pruner.rewind.describe(),
        "controls": list(plan.controls),
        "seed": method.seed,
        "replicates": len(setup.families),
        "dense_runs_per_replicate": method.dense_runs,
        "score": setup.score.name,
        "margin": setup.margin,
        "alpha": method.alpha,
        "skipped": dict(plan.scope.skipped),
        "tied": dict(setup.tied),
        "macs_not_counted": list(setup.work.uncounted) if setup.work else None,
        "versions": {
            "tombola": tombola.__version__,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
    }
