"""What is trained between two cuts where it is not the ticket itself: shorter, cheaper, and never judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from tombola.search.course import Cut
from tombola.search.way import ROUND, Reached, Way
from tombola.types import RunResult, Step, TrainFn, TrainJob, TrainOutcome

_SAFE_CONTINUED: Final = 0.2
"""Density down to which rounds that go on with trained weights found the tickets of full ones."""


@final
@dataclass(frozen=True)
class Settle:
    """When a round may end before its time: its mask has settled.

    You et al. (2020), section 3.2, with a distance that chance does not pass: see :mod:`tombola.analysis.early`.

    Attributes:
        every: iterations between two looks at the mask.
        window: looks that must agree.
        threshold: the largest distance among them, 1 being that of two random masks.
    """

    every: Step
    window: int
    threshold: float


@final
@dataclass(frozen=True)
class Rounds:
    """How a round is trained.

    The first network is the dense run's own, in full or up to where its mask settled; every further one is trained for
    the search alone.

    Attributes:
        iterations: of a round, at most.
        continued: the survivors go on with their trained weights at the last learning rate, and are rewound once, for
            the ticket; otherwise they are rewound in every round.
        fraction: share of the training examples that a round sees.
        settle: ends it earlier; ``None`` never does.
        between: only the levels that a cut passes over have rounds; where tickets are, their own runs are the rounds.
    """

    iterations: Step
    continued: bool = False
    fraction: float = 1.0
    settle: Settle | None = None
    between: bool = False

    @property
    def keeps_optimizer(self) -> bool:
        """Whether a round goes on with the optimiser's state."""
        return self.continued or self.settle is not None

    def looks(self, iterations: Step) -> tuple[Step, ...]:
        """Give the positions at which a dense run of T iterations is looked at."""
        return () if self.settle is None else tuple(range(self.settle.every, iterations, self.settle.every))


def cautions(rounds: Rounds | None, iterations: Step, sparsest: float) -> tuple[str, ...]:
    """Say what is known against rounds such as these; a cheap search may miss the ticket that a full one finds.

    Args:
        rounds: what is trained between two cuts, if not the tickets.
        iterations: T.
        sparsest: density of the last level.
    """
    if rounds is None or rounds.between:
        return ()
    if rounds.settle is None and rounds.iterations >= iterations and rounds.fraction == 1:
        return ()
    if rounds.continued:
        if sparsest >= _SAFE_CONTINUED:
            return ()
        what, seen = "rounds that go on with trained weights", "matched full rounds at 20 %, and lost to them below"
    elif rounds.settle is not None:
        what, seen = "rounds that end when their mask has settled", "lost to full ones"
    else:
        share = f"{rounds.iterations:,} of {iterations:,} iterations" + (
            f" on {100 * rounds.fraction:g} % of the examples" if rounds.fraction < 1 else ""
        )
        what, seen = f"rounds of {share}", "at 30 % of T lost to full ones, and at 10 % found no better than chance"
    return (
        f"The masks are made by {what}. On LeNet-300-100 and MNIST such rounds {seen} (docs/cheaper.md), so a ticket "
        "that loses here may be the search's fault: look again with --strategy imp or adaptive before it is believed.",
    )


@final
@dataclass(frozen=True)
class Made:
    """A run that was trained to make a mask, and is judged by nobody.

    Attributes:
        level: that it was trained at.
        job: what was trained: a round, or an attempt that was given up.
        outcome: what came of it.
    """

    level: int
    job: TrainJob
    outcome: TrainOutcome


@final
@dataclass
class Advanced:
    """What came of the rounds of a cut.

    Attributes:
        made: every run.
        lost: replicate -> the run that did not finish.
    """

    made: list[Made] = field(default_factory=list)
    lost: dict[int, TrainOutcome] = field(default_factory=dict)


def advance(ways: Mapping[int, Way], cut: Cut, train: TrainFn, rounds: Rounds) -> Advanced:
    """Train what lies between the source of a cut and its target, one level at a time.

    Every way is then ready for the cut to the target itself. Where each level is cut from the dense network there are
    no levels between, and so no rounds.
    """
    done = Advanced()
    going = dict(ways)
    if any(way.pruner.each_from_dense for way in ways.values()):
        for way in ways.values():
            if rounds.settle is not None:
                way.settle_dense(cut.target, rounds.settle.window, rounds.settle.threshold)
        return done
    for level in range(cut.source, cut.target):
        if level > cut.source:
            for way in going.values():
                way.step(level)
        if level > 0 and not (rounds.between and level == cut.source):
            ended = _round(going, level, train, rounds, done)
            for replicate, run in ended.items():
                if run.result is not RunResult.FINISHED:
                    done.lost[replicate] = run
                    del going[replicate]
        elif level == 0 and rounds.settle is not None:
            for way in going.values():
                way.settle_dense(level + 1, rounds.settle.window, rounds.settle.threshold)
    return done


def _round(
    ways: Mapping[int, Way], level: int, train: TrainFn, rounds: Rounds, done: Advanced
) -> dict[int, TrainOutcome]:
    """Train every family's survivors of a level, all in one call, or in pieces until their masks settle."""
    begun = {r: way.begin_round(rounds.continued) for r, way in ways.items()}
    looks = {r: _pieces(start.step, rounds) for r, start in begun.items()}
    histories: dict[int, list[Reached]] = {r: [] for r in ways}
    ended: dict[int, TrainOutcome] = {}
    for piece in range(max(map(len, looks.values()), default=0)):
        jobs = {
            r: TrainJob(
                start=begun[r],
                masks=way.trail.masks,
                seed=way.family.seed,
                stop=looks[r][piece],
                with_optimizer=rounds.keeps_optimizer,
                name=ROUND,
                moved=way.pruner.moved,
                fraction=rounds.fraction,
            )
            for r, way in ways.items()
            if r not in ended
        }
        if not jobs:
            break
        for (r, job), run in zip(jobs.items(), train(list(jobs.values())), strict=True):
            done.made.append(Made(level, job, run))
            if run.result is not RunResult.FINISHED:
                ended[r] = run
                continue
            ways[r].end_round(level, run)
            begun[r] = run.end
            histories[r].append(ways[r].trail)
            last = piece + 1 == len(looks[r])
            if last or (rounds.settle is not None and _settled(ways[r], level, histories[r], rounds.settle)):
                ended[r] = run
    return ended


def _pieces(start: Step, rounds: Rounds) -> Sequence[Step]:
    stop = start + rounds.iterations
    return [stop] if rounds.settle is None else [*range(start + rounds.settle.every, stop, rounds.settle.every), stop]


def _settled(way: Way, level: int, history: Sequence[Reached], settle: Settle) -> bool:
    recent = history[-settle.window :]
    return len(recent) == settle.window and way.agree(level + 1, recent, settle.threshold)
