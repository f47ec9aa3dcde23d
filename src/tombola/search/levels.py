"""The loop: train, prune, rewind, repeat; one record per level.

Generic in the trainer and the pruner. Nothing here knows of files, plots or progress.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar, final

import torch
from torch import Tensor

from tombola.errors import Diverged, InvalidValue
from tombola.prune.controls import Case, Control
from tombola.prune.evidence import Evidence
from tombola.prune.masks import ones
from tombola.prune.pruner import Pruner
from tombola.prune.rewinding import masked, restart
from tombola.prune.structure import Group
from tombola.search.looking import AfterCut, Looking
from tombola.seeds import derive, generator
from tombola.train.flops import FlopCount
from tombola.train.process import undisturbed
from tombola.types import Masks, Params, RunResult, Seed, Snapshot, Step, TrainFn, TrainJob, TrainOutcome

_Value = TypeVar("_Value")

TICKET: Final = "ticket"
DENSE: Final = "dense"

_SMALL_DENSE: Final = "small-dense"
"""What the names of the controls begin with that ask for the network's units."""


@final
@dataclass(frozen=True)
class Family:
    """Everything that shares one initialisation and one data order.

    Attributes:
        seed: its random streams.
        init: theta_0, at step 0.
        draw: gives another initialisation from another seed; ``None`` where the initialiser is not known.
        looking: the network and its data, for criteria that look at them; ``None`` where neither is known.
    """

    seed: Seed
    init: Snapshot
    draw: Callable[[Seed], Snapshot] | None = None
    looking: Looking | None = None

    @property
    def replicate(self) -> int:
        """The number of the family."""
        return self.seed.replicate


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
class Scoring:
    """What it cost to make the masks of a level, training aside.

    Attributes:
        flops: operations of matrix products and convolutions; 0 for a criterion that looks at weights alone.
        seconds: wall time.
    """

    flops: float
    seconds: float


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

    Yields:
        One record per level, level 0 first.

    Raises:
        Diverged: no family is left. A family with a run whose loss is not finite leaves the search and makes no mask.
        KeyboardInterrupt: a run was interrupted, because its watcher asked for it.
    """
    if not families or dense_runs < 1 or levels < 0:
        raise InvalidValue("a search needs at least one family and one dense run, and no negative number of levels.")
    state = {family.replicate: _Search(family, pruner, tuple(prunable)) for family in families}
    yield _somebody_left(_dense_level(state, train, iterations, dense_runs))
    for level in range(1, levels + 1):
        chosen = controls or {} if level in control_levels else {}
        yield _somebody_left(_pruned_level(level, state, train, iterations, chosen))


def _dense_level(state: dict[int, "_Search"], train: TrainFn, iterations: int, dense_runs: int) -> Level:
    jobs = [one.dense_job(iterations, order) for one in state.values() for order in range(dense_runs)]
    trained = train(jobs)
    outcomes = iter(trained)
    runs = {replicate: tuple(next(outcomes) for _ in range(dense_runs)) for replicate in state}
    named = {r: {f"{DENSE} run {k}": run for k, run in enumerate(of_one)} for r, of_one in runs.items()}
    dropped = _drop(0, state, named)
    for replicate, one in state.items():
        one.after_dense(runs[replicate][0])
    return Level(
        level=0,
        masks={r: one.masks for r, one in state.items()},
        starts={r: one.family.init for r, one in state.items()},
        arms={TICKET: {r: runs[r][0] for r in state}},
        dense={r: runs[r] for r in state},
        dropped=dropped,
        runs=tuple(zip(jobs, trained, strict=True)),
    )


def _pruned_level(
    level: int, state: dict[int, "_Search"], train: TrainFn, iterations: int, controls: Mapping[str, Control]
) -> Level:
    for one in state.values():
        one.prune(level)
    scoring = {r: one.scoring for r, one in state.items()}
    after_cut = {r: one.after_cut for r, one in state.items() if one.after_cut is not None}
    # Where masks change in training, the controls of a mask wait for it.
    grows = any(one.pruner.during for one in state.values())
    tickets = {(r, TICKET): one.ticket_job(level, iterations) for r, one in state.items()}
    found = _trained(train, tickets) if grows else {}
    for (r, _), outcome in found.items():
        state[r].settle(outcome)
    jobs: dict[_Key, TrainJob] = {}
    for r, one in state.items():
        if not grows:
            jobs[r, TICKET] = tickets[r, TICKET]
        elif found[r, TICKET].result is not RunResult.FINISHED:
            continue
        for name, control in controls.items():
            jobs[r, name] = one.control_job(level, name, control, iterations)
    found |= _trained(train, jobs)
    every = {**tickets, **jobs}
    runs = {r: {name: found[r, name] for name in (TICKET, *controls) if (r, name) in found} for r in state}
    starts = {r: one.start for r, one in state.items()}
    dropped = _drop(level, state, runs)
    for replicate, one in state.items():
        one.after_ticket(runs[replicate][TICKET])
    return Level(
        level=level,
        masks={r: one.masks for r, one in state.items()},
        starts={r: starts[r] for r in state},
        arms={name: {r: runs[r][name] for r in state} for name in (TICKET, *controls)},
        dropped=dropped,
        runs=tuple((every[key], outcome) for key, outcome in found.items()),
        scoring=scoring,
        after_cut=after_cut,
    )


_Key = tuple[int, str]


def _trained(train: TrainFn, jobs: Mapping[_Key, TrainJob]) -> dict[_Key, TrainOutcome]:
    return dict(zip(jobs, train(list(jobs.values())), strict=True)) if jobs else {}


def _drop(
    level: int, state: dict[int, "_Search"], runs: Mapping[int, Mapping[str, TrainOutcome]]
) -> tuple[Dropped, ...]:
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
        state.pop(one.replicate, None)
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


@final
class _Search:
    """One family's way through the levels."""

    def __init__(self, family: Family, pruner: Pruner, prunable: tuple[str, ...]) -> None:
        self.family, self.pruner = family, pruner
        self.dense_masks: Masks = ones(family.init.params, prunable)
        self.masks: Masks = self.dense_masks
        self.start: Snapshot = family.init
        self._unmasked: Snapshot = family.init
        self._dense: Snapshot = family.init
        self._at_step: Snapshot | None = None
        self._last: Snapshot = family.init
        self._moved: Params | None = None
        self.scoring = Scoring(0.0, 0.0)
        self.after_cut: AfterCut | None = None

    def dense_job(self, iterations: int, order: int) -> TrainJob:
        keep = (self.pruner.rewind.step,) if order == 0 and self.pruner.rewind.weights == "step" else ()
        return TrainJob(
            start=self.family.init,
            masks={},
            seed=replace(self.family.seed, order=order),
            stop=iterations,
            save_at=keep,
            with_optimizer=order == 0 and self.pruner.rewind.optimizer == "saved",
            name=DENSE,
            moved=order == 0 and self.pruner.moved,
        )

    def after_dense(self, run: TrainOutcome) -> None:
        self._dense = self._last = run.end
        self._moved = run.moved
        self._at_step = run.saved.get(self.pruner.rewind.step)

    def after_ticket(self, run: TrainOutcome) -> None:
        self._last = run.end
        if not self.pruner.each_from_dense:
            self._moved = run.moved

    def prune(self, level: int) -> None:
        """Make this level's mask from training results alone, and what its survivors restart from."""
        pruner = self.pruner
        before = self.dense_masks if pruner.each_from_dense else self.masks
        source = (
            self.family.init if pruner.at_init or pruner.during else self._dense if pruner.from_dense else self._last
        )
        if pruner.during and pruner.during.starts_dense:
            self.masks = self.dense_masks
        else:
            self.masks, source = self._cut(level, source, before)
        self._unmasked = restart(pruner.rewind, init=self.family.init, at_step=self._at_step, end=source)
        self.after_cut = None
        if self.family.looking is not None and not pruner.rewind.keeps_start_values:
            looking, plain = self.family.looking, self._unmasked
            again = looking.recalibrated(plain, self.masks) if pruner.recalibrate else None
            # What is pruned stays as it was under the new statistics: a shuffled mask keeps some of it.
            self._unmasked = plain if again is None else replace(plain, buffers=again.buffers)
            self.after_cut = looking.after_cut(plain, self.masks, again)
        self.start = masked(self._unmasked, self.masks)

    def _cut(self, level: int, source: Snapshot, before: Masks) -> tuple[Masks, Snapshot]:
        """Give the mask, and what the network it was made from has become by the cut."""
        began = time.perf_counter()
        evidence = self._evidence(level, "prune", source)
        with _watched(self.pruner.looks) as counter:
            masks = self.pruner.prune(level, source.params, before, evidence)
            params = self.pruner.survivors(source.params, before, masks, evidence)
        flops = 0.0 if counter is None else counter.flops
        self.scoring = Scoring(flops, time.perf_counter() - began)
        # Of the survivors alone: a control with another mask keeps what this one deletes, as it was trained.
        made_up = {n: torch.where(masks[n], v, source.params[n]) if n in masks else v for n, v in params.items()}
        return masks, replace(source, params=made_up)

    def settle(self, run: TrainOutcome) -> None:
        """Take the mask that a run ended with, where it changed."""
        if run.masks is not None:
            self.masks = run.masks
            self.start = masked(self._unmasked, self.masks)

    def ticket_job(self, level: int, iterations: int) -> TrainJob:
        during, updates = self.pruner.during, None
        if during is not None:
            shapes = {name: tuple(mask.shape) for name, mask in self.masks.items()}
            updates = during.updates(self.pruner.plan(shapes, level)[level])
        return TrainJob(
            start=self.start,
            masks=self.masks,
            seed=self.family.seed,
            stop=self._stop(self.start.step, iterations),
            with_optimizer=self.pruner.rewind.optimizer == "saved",
            name=TICKET,
            updates=updates,
            moved=self.pruner.moved,
        )

    def control_job(self, level: int, name: str, control: Control, iterations: int) -> TrainJob:
        fold = (name, level)
        start, masks = control(
            Case(
                start=self._unmasked,
                masks=self.masks,
                fresh=lambda: self._fresh(derive(self.family.seed, "control", *fold)),
                one_shot=lambda: self._one_shot(level),
                groups=self._groups if name.startswith(_SMALL_DENSE) else None,
                macs=self._macs if name.startswith(_SMALL_DENSE) else None,
                generator=generator(self.family.seed, "control", *fold),
            )
        )
        return TrainJob(
            start=masked(start, masks),
            masks=masks,
            seed=self.family.seed,
            stop=self._stop(start.step, iterations),
            with_optimizer=False,
            name=name,
        )

    def _fresh(self, root: int) -> Snapshot:
        if self.family.draw is None:
            raise InvalidValue(
                "the reinit control draws new initial values, and this network was given as a finished module. "
                "Give a factory that builds it, or leave reinit out."
            )
        return self.family.draw(replace(self.family.seed, root=root))

    def _one_shot(self, level: int) -> dict[str, Tensor]:
        evidence = self._evidence(level, "control", self._dense)
        return self.pruner.prune_dense(level, self._dense.params, tuple(self.dense_masks), evidence)

    def _stop(self, start: Step, iterations: int) -> Step:
        rewind = self.pruner.rewind
        if rewind.position == "end" and start >= iterations:
            return start + (iterations if rewind.extra is None else rewind.extra)
        return iterations

    @property
    def _groups(self) -> Sequence[Group] | None:
        return None if self.family.looking is None else self.family.looking.groups("neurons")

    @property
    def _macs(self) -> Mapping[str, int] | None:
        return None if self.family.looking is None else self.family.looking.macs()

    def _evidence(self, level: int, stream: str, network: Snapshot) -> Evidence:
        looking = self.family.looking if self.pruner.looks else None
        return replace(
            Evidence() if looking is None else looking.evidence(network),
            moved=self._moved,
            theta_0=self.family.init.params,
            theta_k=self._at_step.params if self._at_step else self.family.init.params,
            generator=generator(self.family.seed, stream, level),
        )


@contextmanager
def _watched(looks: bool) -> Iterator[FlopCount | None]:
    """Let a criterion look at a network: on one thread, so that its sums are the same everywhere, and counted."""
    if not looks:
        yield None
        return
    with undisturbed("cpu"), FlopCount() as counter:
        yield counter
