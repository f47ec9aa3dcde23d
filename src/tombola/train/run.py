"""The run that every engine of ours makes: from one position at which something is kept or looked at to the next."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

from tombola.errors import InvalidValue
from tombola.prune.masks import check, counts
from tombola.seeds import generator
from tombola.stats.early_stop import early_stop
from tombola.train.row import Keeper, Progress, Resumable, Row
from tombola.train.watch import Watcher
from tombola.types import Curve, Masks, RunResult, Snapshot, Step, TrainJob, TrainOutcome


def check_order(job: TrainJob) -> None:
    """Refuse a job that runs back.

    Raises:
        InvalidValue: it starts behind its stop.
    """
    if not job.start.step <= job.stop:
        raise InvalidValue(f"a job starts at step {job.start.step} and stops at {job.stop}; it must not run back.")


def check_fixed(job: TrainJob, engine: str) -> None:
    """Refuse a job whose masks change, that trains scores or accumulates something, for an engine that does none of it.

    Raises:
        InvalidValue: it is such a job.
    """
    if job.scores is not None:
        raise InvalidValue(
            f"the run {job.name!r} trains scores, and {engine} trains weights. Use the engine plain or sparse for it."
        )
    if job.updates is not None or job.moved:
        what = "changes its masks during training" if job.updates is not None else "accumulates how weights moved"
        use = "plain" if job.moved else "plain or sparse"
        raise InvalidValue(
            f"the run {job.name!r} {what}, and {engine} trains under fixed masks and accumulates nothing. "
            f"Use the engine {use} for it."
        )


def changes(job: TrainJob) -> tuple[Step, ...]:
    """Give the positions at which a job's masks change: none where it starts, none where it stops."""
    if job.updates is None:
        return ()
    return tuple(sorted({at for at in job.updates.steps if job.start.step < at < job.stop}))


def run(
    row: Row, jobs: Sequence[TrainJob], *, every: Step, watcher: Watcher, numbers: Sequence[int]
) -> list[TrainOutcome]:
    """Train to the end, keeping what was asked for and what validation saw; then read the test split.

    A network whose validation loss is not finite has diverged: it is kept as it is, and what the row goes on to compute
    in its place counts for nothing. The test split is not read where nobody finished.

    Args:
        row: holds the networks at their start.
        jobs: one for each network of the row; all start at one position and stop at one, under fixed masks.
        every: spacing of the evaluation grid, whose positions count from 0; the stop belongs to it.
        watcher: told of every evaluation; asked before every call of ``iterate`` whether to stop.
        numbers: what the watcher is told each job is called.

    Returns:
        An outcome for each job; ``seconds`` is its equal share of the time taken here.
    """
    began = time.perf_counter()
    courses = [_Course() for _ in jobs]
    row.keep(range(len(jobs)), jobs[0].start.step)
    _train(row, jobs, courses, every, watcher, numbers)
    ends = [at.end or row.snapshot(place, at.step) for place, at in enumerate(courses)]
    finished = any(at.result is RunResult.FINISHED for at in courses)
    tests = row.test() if finished else [(math.nan, math.nan)] * len(jobs)
    seconds = (time.perf_counter() - began) / len(jobs)
    return [
        _outcome(job, at, end, row.best(place), test, seconds)
        for place, (job, at, end, test) in enumerate(zip(jobs, courses, ends, tests, strict=True))
    ]


def run_one(
    row: Resumable,
    job: TrainJob,
    *,
    every: Step,
    watcher: Watcher,
    number: int,
    keeper: Keeper | None = None,
    resumed: Progress | None = None,
) -> TrainOutcome:
    """Train one network as :func:`run` does, from where another process left it, or under masks that change.

    Masks change between two iterations, at the positions that :func:`changes` gives. What is saved, evaluated or kept
    at such a position is the network that goes on from it. The best network, and with it the early-stop iteration, is
    looked for among the evaluations from the last change on: the masks are final there. A network that is not finite
    where its masks are to change has diverged.

    Args:
        row: holds the network at its start, or at ``resumed.now``.
        job: what is trained, from its own start on.
        every, watcher: as in :func:`run`.
        number: what the watcher is told the job is called.
        keeper: keeps the run while it is in progress.
        resumed: what was kept of it.

    Returns:
        The outcome of the whole job; ``seconds`` are those spent here.

    Raises:
        InvalidValue: masks are to change and the job has none, or an update gives other masks than it was given.
        TombolaError: what the updates themselves refuse.
    """
    if job.updates is not None and not job.masks:
        raise InvalidValue(
            f"the run {job.name!r} changes its masks during training and has none. Give a mask for every tensor that "
            "may change; a dense one is all true."
        )
    began = time.perf_counter()
    course = _Course(masks=None if job.updates is None else {name: mask.cpu() for name, mask in job.masks.items()})
    if resumed is None:
        row.keep([0], job.start.step)
    else:
        row.put_back(resumed.best)
        curve = resumed.curve
        course.seen = list(zip(curve.steps, curve.loss, curve.accuracy, strict=True))
        course.saved = dict(resumed.saved)
        fixed = _fixed_from(job)
        counted = [loss for step, loss in zip(curve.steps, curve.loss, strict=True) if step >= fixed]
        course.lowest = min(counted, default=math.inf)
        course.history = list(resumed.history)
        course.masks = resumed.masks if job.updates is not None else None
    kept = _Kept(row, course, keeper) if keeper else None
    _train(row, [job], [course], every, watcher, [number], kept, resumed, row)
    end = course.end or row.snapshot(0, course.step)
    moved = row.moved()
    (test,) = row.test() if course.result is RunResult.FINISHED else [(math.nan, math.nan)]
    outcome = _outcome(job, course, end, row.best(0), test, time.perf_counter() - began)
    return replace(outcome, masks=course.masks, history=tuple(course.history), moved=moved)


@final
@dataclass
class _Course:
    """What one network has been through."""

    result: RunResult | None = None
    sentence: str = ""
    step: Step = 0
    seen: list[tuple[Step, float, float]] = field(default_factory=list)
    saved: dict[Step, Snapshot] = field(default_factory=dict)
    lowest: float = math.inf
    end: Snapshot | None = None
    masks: Masks | None = None
    history: list[tuple[Step, Mapping[str, int]]] = field(default_factory=list)

    def ends(self, result: RunResult, step: Step, sentence: str) -> None:
        self.result, self.step, self.sentence = result, step, sentence


def _train(
    row: Row,
    jobs: Sequence[TrainJob],
    courses: Sequence[_Course],
    every: Step,
    watcher: Watcher,
    numbers: Sequence[int],
    kept: "_Kept | None" = None,
    resumed: Progress | None = None,
    single: Resumable | None = None,
) -> None:
    """Go from one position at which something changes, is kept or looked at to the next."""
    step, stop = jobs[0].start.step, jobs[0].stop
    changing = set(changes(jobs[0])) if single else set()
    wanted = {at for job in jobs for at in job.save_at} | changing
    if resumed is None:
        _save(row, jobs, courses, step)
    else:
        step = resumed.now.step
    while step < stop and _alive(courses):
        grid = min((step // every + 1) * every, stop)
        until = min([grid, *(at for at in wanted if at > step)])
        while step < until:
            if watcher.stop():
                if kept:
                    kept.keep(step)
                return _end_all(courses, RunResult.INTERRUPTED, step, f"interrupted at iteration {step} of {stop}")
            step += row.iterate(step, until)
            if kept and step < until and kept.keeper.due():
                kept.keep(step)
        if single and step in changing:
            _change(single, jobs[0], courses[0], step)
        _save(row, jobs, courses, step)
        if step == grid and _alive(courses):
            _look(row, jobs, courses, step, watcher, numbers)
        if kept and _alive(courses) and kept.keeper.due():
            kept.keep(step)
    return _end_all(courses, RunResult.FINISHED, step, f"trained to iteration {stop}")


@final
@dataclass(frozen=True)
class _Kept:
    """Puts together what a keeper keeps; never between a position and the look at it, and only what goes on from it."""

    row: Resumable
    course: _Course
    keeper: Keeper

    def keep(self, step: Step) -> None:
        if not self.row.resumes():
            return
        steps, losses, accuracies = zip(*self.course.seen, strict=True) if self.course.seen else ((), (), ())
        self.keeper.keep(
            Progress(
                now=self.row.whole(step),
                best=self.row.best(0),
                saved=dict(self.course.saved),
                curve=Curve(steps, losses, accuracies),
                masks=self.course.masks,
                history=tuple(self.course.history),
                moved=self.row.moved(),
            )
        )


def _change(row: Resumable, job: TrainJob, course: _Course, step: Step) -> None:
    """Change the masks of a network, unless it has diverged."""
    assert job.updates is not None
    assert course.masks is not None
    params, moved = row.whole(step).params, row.moved()
    gradient = row.gradient(step) if job.updates.wants_gradient(step) else None
    for what, tensors in (("weights", params), ("gradients", gradient or {})):
        if not all(bool(value.isfinite().all()) for value in tensors.values()):
            # They make no mask, and the next evaluation would only say the same.
            course.ends(
                RunResult.DIVERGED, step, f"diverged: {what} are not finite at iteration {step}, where masks change"
            )
            course.end = row.snapshot(0, step)
            return
    # Folded with a word of its own: masks that are made between runs draw from this stream too, by level.
    draw = generator(job.seed, "prune", "update", step)
    found = job.updates.update(step, params, course.masks, gradient, moved, draw)
    if found.keys() != course.masks.keys():
        odd = ", ".join(sorted(found.keys() ^ course.masks.keys()))
        raise InvalidValue(
            f"the update at {step} gave masks for other tensors than it was given: {odd} is in one only."
        )
    check(params, found)
    course.masks = {name: found[name] for name in course.masks}
    row.remask(course.masks, step)
    course.history.append((step, counts(course.masks)))


def _fixed_from(job: TrainJob) -> Step:
    """Give the position from which on the masks are final."""
    return max(changes(job), default=job.start.step)


def _save(row: Row, jobs: Sequence[TrainJob], courses: Sequence[_Course], step: Step) -> None:
    for place in _alive(courses):
        if step in jobs[place].save_at:
            courses[place].saved[step] = row.snapshot(place, step)


def _look(
    row: Row,
    jobs: Sequence[TrainJob],
    courses: Sequence[_Course],
    step: Step,
    watcher: Watcher,
    numbers: Sequence[int],
) -> None:
    """Evaluate everything; note what is still alive, and keep what improved."""
    improved = []
    found = row.evaluate()
    for place in _alive(courses):
        at, (loss, accuracy) = courses[place], found[place]
        at.seen.append((step, loss, accuracy))
        watcher.evaluated(numbers[place], step, loss, accuracy)
        if not math.isfinite(loss):
            at.ends(RunResult.DIVERGED, step, f"diverged: the validation loss is {loss} at iteration {step}")
            # The rest of the row may go on, and the values in this place with it.
            at.end = row.snapshot(place, step)
        elif loss < at.lowest and step >= _fixed_from(jobs[place]):
            at.lowest = loss
            improved.append(place)
    if improved:
        row.keep(improved, step)


def _alive(courses: Sequence[_Course]) -> list[int]:
    return [place for place, at in enumerate(courses) if at.result is None]


def _end_all(courses: Sequence[_Course], result: RunResult, step: Step, sentence: str) -> None:
    for place in _alive(courses):
        courses[place].ends(result, step, sentence)


def _outcome(
    job: TrainJob, at: _Course, end: Snapshot, best: Snapshot, test: tuple[float, float], seconds: float
) -> TrainOutcome:
    assert at.result is not None
    finished = at.result is RunResult.FINISHED
    steps, losses, accuracies = zip(*at.seen, strict=True) if at.seen else ((), (), ())
    counted = [(step, loss) for step, loss, _ in at.seen if step >= _fixed_from(job)]
    argmin, censored = early_stop(*zip(*counted, strict=True)) if finished and counted else (None, False)
    return TrainOutcome(
        result=at.result,
        sentence=at.sentence,
        end=end,
        best=best,
        saved=at.saved,
        curve=Curve(steps, losses, accuracies),
        early_stop_iteration=argmin,
        censored=censored,
        test_accuracy=test[0] if finished else None,
        test_accuracy_at_early_stop=test[1] if finished else None,
        iterations=end.step - job.start.step,
        seconds=seconds,
    )
