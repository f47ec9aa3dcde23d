"""The loop: train, prune, rewind, repeat; one record per level.

Generic in the trainer and the pruner. Nothing here knows of files, plots or progress.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar, final

from tombola.errors import Diverged, InvalidValue
from tombola.prune.controls import Control
from tombola.prune.pruner import Pruner
from tombola.search.course import Course, Cut, Fixed, Seen, is_given_up
from tombola.search.looking import AfterCut
from tombola.search.rounds import Made, Rounds, advance
from tombola.search.way import DENSE, ROUND, TICKET, Family, Scoring, Way
from tombola.types import Masks, RunResult, Snapshot, Step, TrainFn, TrainJob, TrainOutcome

__all__ = ["ATTEMPT", "DENSE", "TICKET", "Dropped", "Family", "Level", "NobodyLeft", "Searching", "merged", "search"]

_Value = TypeVar("_Value")

ATTEMPT: Final = "attempt"
"""A ticket that lost more than the margin after a big cut, and was given up."""


@final
@dataclass(frozen=True)
class Dropped:
    """A family that left the search, at every level.

    Attributes:
        replicate: which.
        level: where it happened.
        arm: in which run.
        sentence: what happened, with the iteration.
    """

    replicate: int
    level: int
    arm: str
    sentence: str


@final
@dataclass(frozen=True)
class Level:
    """What one level of the search found.

    Attributes:
        level: 0 is the dense network.
        masks: replicate -> masks over the prunable tensors.
        starts: replicate -> what the ticket started from, masked.
        arms: arm -> replicate -> outcome; ``ticket`` is always there, and at level 0 it is the first dense run.
        dense: at level 0, replicate -> every dense run, the first of them the ticket arm's; empty elsewhere.
        dropped: families that left at this level; they are in no arm of it.
        runs: every job of the level with its outcome, also of families that left.
        scoring: replicate -> what its masks cost; empty at level 0.
        after_cut: replicate -> what the network was worth before it was trained again; empty where survivors restart
            from early values.
        cut_from: the level whose trained network was cut; ``None`` for the dense level, and where none was.
        making: the runs that the masks took from ``cut_from`` on and that no arm has.
        dense_needed: replicate -> iterations of the dense run that were needed, where those are fewer than all.
    """

    level: int
    masks: Mapping[int, Masks]
    starts: Mapping[int, Snapshot]
    arms: Mapping[str, Mapping[int, TrainOutcome]]
    dense: Mapping[int, tuple[TrainOutcome, ...]] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()
    runs: tuple[tuple[TrainJob, TrainOutcome], ...] = ()
    scoring: Mapping[int, Scoring] = field(default_factory=dict)
    after_cut: Mapping[int, AfterCut] = field(default_factory=dict)
    cut_from: int | None = None
    making: tuple[Made, ...] = ()
    dense_needed: Mapping[int, Step] = field(default_factory=dict)


def merged(parts: Sequence[Level]) -> Level:
    """Put together one level of several searches, each over families of its own."""
    arms = dict.fromkeys(name for part in parts for name in part.arms)
    return Level(
        level=parts[0].level,
        masks=_joined(part.masks for part in parts),
        starts=_joined(part.starts for part in parts),
        arms={name: _joined(part.arms[name] for part in parts if name in part.arms) for name in arms},
        dense=_joined(part.dense for part in parts),
        dropped=tuple(one for part in parts for one in part.dropped),
        runs=tuple(one for part in parts for one in part.runs),
        scoring=_joined(part.scoring for part in parts),
        after_cut=_joined(part.after_cut for part in parts),
        cut_from=parts[0].cut_from,
        making=tuple(one for part in parts for one in part.making),
        dense_needed=_joined(part.dense_needed for part in parts),
    )


def _joined(mappings: Iterable[Mapping[int, _Value]]) -> dict[int, _Value]:
    return {replicate: value for mapping in mappings for replicate, value in mapping.items()}


class Searching(Protocol):
    """How a search is driven; :func:`search` is the one that goes level by level with all families together."""

    def __call__(
        self,
        families: Sequence[Family],
        train: TrainFn,
        pruner: Pruner,
        prunable: Sequence[str],
        *,
        iterations: int,
        levels: int,
        dense_runs: int = 1,
        controls: Mapping[str, Control] | None = None,
        control_levels: Collection[int] = (),
        course: Course | None = None,
        rounds: Rounds | None = None,
    ) -> Iterator[Level]: ...


def search(
    families: Sequence[Family],
    train: TrainFn,
    pruner: Pruner,
    prunable: Sequence[str],
    *,
    iterations: int,
    levels: int,
    dense_runs: int = 1,
    controls: Mapping[str, Control] | None = None,
    control_levels: Collection[int] = (),
    course: Course | None = None,
    rounds: Rounds | None = None,
) -> Iterator[Level]:
    """Search for tickets, level by level.

    Args:
        families: the replicates.
        train: trains all jobs of a level together.
        pruner: makes the masks and says what survivors restart from. It sees training results only, never the test.
        prunable: names of the prunable tensors.
        iterations: T, of the dense run.
        levels: how many cuts after the dense level.
        dense_runs: dense runs per family: same initialisation, other data orders.
        controls: name -> control.
        control_levels: the levels at which the controls are run.
        course: which levels are visited; by default each, one after the other.
        rounds: what is trained between two cuts; by default the tickets themselves, as long as the dense run.

    Yields:
        One record per level visited, level 0 first.

    Raises:
        Diverged: no family is left. A family with a run whose loss is not finite leaves the search and makes no mask.
        KeyboardInterrupt: a run was interrupted, because its watcher asked for it.
    """
    if not families or dense_runs < 1 or levels < 0:
        raise InvalidValue("a search needs at least one family and one dense run, and no negative number of levels.")
    ways = {family.replicate: Way(family, pruner, tuple(prunable)) for family in families}
    course = course or Fixed(tuple(range(1, levels + 1)))
    looks = () if rounds is None else rounds.looks(iterations)
    dense = _dense_level(ways, train, iterations, dense_runs, looks, rounds is not None and rounds.continued)
    yield _somebody_left(dense)
    seen, making, lost = [Seen(0, 0)], list[Made](), list[Dropped]()
    while (cut := course.next(tuple(seen))) is not None:
        cut = replace(cut, source=0) if pruner.each_from_dense else cut
        trying = _Try(cut, ways, train, iterations, rounds, making)
        trying.cut()
        if pruner.during:
            trying.grow(is_round=pruner.during.rewinds)
        grown = pruner.during is not None and not pruner.during.rewinds
        chosen = controls or {} if cut.target in control_levels else {}
        # Where a level may be given up, or the masks are not known yet, the controls wait for the tickets.
        if not grown:
            trying.train({} if course.joint else chosen, tickets=True)
        if course.joint:
            trying.settle()
            seen.append(trying.seen())
            if ways and is_given_up(seen[-1], course.next(tuple(seen))):
                lost.extend(trying.give_up())
                continue
        else:
            seen.append(Seen(cut.target, cut.source))
        if course.joint or grown:
            trying.train(chosen, tickets=False)
        level = trying.level(chosen, lost)
        if not course.joint:
            trying.settle()
        yield _somebody_left(level)
        making, lost = [], []
        for way in ways.values():
            way.forget_all_but(course.needs(tuple(seen)))


def _dense_level(
    ways: dict[int, Way], train: TrainFn, iterations: int, dense_runs: int, looks: Sequence[Step], optimizer: bool
) -> Level:
    jobs = [
        way.dense_job(iterations, order, looks, keeps_optimizer=optimizer)
        for way in ways.values()
        for order in range(dense_runs)
    ]
    trained = train(jobs)
    outcomes = iter(trained)
    runs = {replicate: tuple(next(outcomes) for _ in range(dense_runs)) for replicate in ways}
    named = {r: {f"{DENSE} run {k}": run for k, run in enumerate(of_one)} for r, of_one in runs.items()}
    dropped = _drop(0, ways, named)
    for replicate, way in ways.items():
        way.after_dense(runs[replicate][0], looks)
    return Level(
        level=0,
        masks={r: way.masks for r, way in ways.items()},
        starts={r: way.family.init for r, way in ways.items()},
        arms={TICKET: {r: runs[r][0] for r in ways}},
        dense={r: runs[r] for r in ways},
        dropped=dropped,
        runs=tuple(zip(jobs, trained, strict=True)),
    )


@final
class _Try:
    """One cut: the masks, their tickets, and their controls."""

    def __init__(
        self,
        cut: Cut,
        ways: dict[int, Way],
        train: TrainFn,
        iterations: Step,
        rounds: Rounds | None,
        making: list[Made],
    ) -> None:
        self._cut, self._ways, self._train, self._iterations = cut, ways, train, iterations
        self._rounds, self._making = rounds, making
        # Now, for at its end nobody may be left to ask.
        none = all(way.family.given or way.pruner.at_init or way.pruner.during for way in ways.values())
        self._cut_from = None if none else cut.source
        self._dropped: list[Dropped] = []
        self._found: dict[int, dict[str, TrainOutcome]] = {}
        self._runs: list[tuple[TrainJob, TrainOutcome]] = []

    def cut(self) -> None:
        """Make the masks, and whatever is trained for them alone."""
        for way in self._ways.values():
            way.go_from(self._cut.source)
        if self._rounds is not None:
            done = advance(self._ways, self._cut, self._train, self._rounds)
            self._making.extend(done.made)
            self._drop({replicate: {ROUND: run} for replicate, run in done.lost.items()})
        for way in self._ways.values():
            way.prune(self._cut.target)

    def grow(self, *, is_round: bool) -> None:
        """Train the runs in which masks change: the tickets' own, or rounds that only make their masks."""
        jobs = {r: way.growing_job(self._cut.target, self._iterations) for r, way in self._ways.items()}
        outcomes = dict(zip(jobs, self._train(list(jobs.values())), strict=True)) if jobs else {}
        for r, run in outcomes.items():
            self._ways[r].settle(run)
            if is_round:
                self._making.append(Made(self._cut.target, jobs[r], run))
            else:
                self._enter(jobs[r], run)
        if is_round:
            self._drop({r: {ROUND: run} for r, run in outcomes.items()})

    def train(self, controls: Mapping[str, Control], *, tickets: bool) -> None:
        """Train tickets and controls in one call; a family whose ticket did not finish gets no controls."""
        jobs: list[TrainJob] = []
        for r, way in self._ways.items():
            ticket = self._found.get(r, {}).get(TICKET)
            if tickets:
                jobs.append(way.ticket_job(self._iterations, keeps_optimizer=self._goes_on))
            elif ticket is None or ticket.result is not RunResult.FINISHED:
                continue
            for name, control in controls.items():
                jobs.append(way.control_job(self._cut.target, name, control, self._iterations))
        for job, run in zip(jobs, self._train(jobs) if jobs else [], strict=True):
            self._enter(job, run)

    def _enter(self, job: TrainJob, run: TrainOutcome) -> None:
        self._runs.append((job, run))
        self._found.setdefault(job.seed.replicate, {})[job.name] = run

    @property
    def _goes_on(self) -> bool:
        """Whether rounds go on with the tickets' optimisers."""
        return self._rounds is not None and self._rounds.between and self._rounds.continued

    def settle(self) -> None:
        """Take out the families that lost a run, and stand where the next cut is made from."""
        self._drop(self._found)
        for r, way in self._ways.items():
            are_rounds = self._rounds is None or self._rounds.between
            way.after_ticket(self._cut.target, self._found[r][TICKET], is_round=are_rounds)

    def seen(self) -> Seen:
        """Say what validation says of the tickets."""
        leads = [way.lead(self._found[r][TICKET]) for r, way in self._ways.items()]
        barriers = [way.barrier(self._cut.target, self._cut.source) for way in self._ways.values()]
        return Seen(self._cut.target, self._cut.source, _mean(leads), _mean(barriers))

    def give_up(self) -> list[Dropped]:
        """Count the tickets among what the next level takes; give the families that left."""
        self._making.extend(Made(self._cut.target, replace(job, name=ATTEMPT), run) for job, run in self._runs)
        return self._dropped

    def level(self, controls: Mapping[str, Control], dropped: Sequence[Dropped]) -> Level:
        """Write it down."""
        level, ways = self._cut.target, self._ways
        starts = {r: way.start for r, way in ways.items()}
        self._drop(self._found)
        # By family, as they are where each family goes its own way.
        made = sorted(self._making, key=lambda one: one.job.seed.replicate)
        lost = sorted((*dropped, *self._dropped), key=lambda one: one.replicate)
        return Level(
            level=level,
            masks={r: way.masks for r, way in ways.items()},
            starts={r: starts[r] for r in ways},
            arms={name: {r: self._found[r][name] for r in ways} for name in (TICKET, *controls)},
            dropped=tuple(lost),
            runs=tuple(sorted(self._runs, key=lambda run: run[0].seed.replicate)),
            scoring={r: way.take_scoring() for r, way in ways.items()},
            after_cut={r: way.after_cut for r, way in ways.items() if way.after_cut is not None},
            cut_from=self._cut_from,
            making=tuple(made),
            dense_needed={r: way.dense_needed for r, way in ways.items() if way.dense_needed is not None},
        )

    def _drop(self, runs: Mapping[int, Mapping[str, TrainOutcome]]) -> None:
        known = {one.replicate for one in self._dropped}
        new = {r: arms for r, arms in runs.items() if r not in known}
        self._dropped.extend(_drop(self._cut.target, self._ways, new))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if values and len(known) == len(values) else None


def _drop(level: int, ways: dict[int, Way], runs: Mapping[int, Mapping[str, TrainOutcome]]) -> tuple[Dropped, ...]:
    """Take the families with a run that diverged out of the search."""
    for arms in runs.values():
        for arm, run in arms.items():
            if run.result is RunResult.INTERRUPTED:
                raise KeyboardInterrupt(f"level {level}, {arm}: {run.sentence}")
    dropped = tuple(
        Dropped(replicate, level, arm, run.sentence)
        for replicate, arms in runs.items()
        for arm, run in arms.items()
        if run.result is not RunResult.FINISHED
    )
    for one in dropped:
        ways.pop(one.replicate, None)
    return dropped


def _somebody_left(level: Level) -> Level:
    if not level.arms[TICKET]:
        raise NobodyLeft(level)
    return level


@final
class NobodyLeft(Diverged):
    """Every family had a run whose loss was not finite.

    Attributes:
        level: the level where the last ones left.
    """

    def __init__(self, level: Level) -> None:
        """Say who left where."""
        self.level = level
        super().__init__(
            f"no family is left at level {level.level}: "
            + "; ".join(f"{d.arm} of family {d.replicate} {d.sentence}" for d in level.dropped)
            + ". Lower the learning rate, or look for NaN in the data."
        )
