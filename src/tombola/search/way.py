"""One family's way through the levels: what was trained, what is cut from it, and what the survivors start from."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from torch import Tensor

from tombola.analysis.early import settled
from tombola.errors import InvalidValue
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
from tombola.types import Curve, Masks, Params, Seed, Snapshot, Step, TrainJob, TrainOutcome

TICKET: Final = "ticket"
DENSE: Final = "dense"
ROUND: Final = "round"
"""A run that makes the next mask and is not judged."""

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
        given: level -> masks that were found elsewhere; ``None`` where this search finds them.
    """

    seed: Seed
    init: Snapshot
    draw: Callable[[Seed], Snapshot] | None = None
    looking: Looking | None = None
    given: Mapping[int, Masks] | None = None

    @property
    def replicate(self) -> int:
        """The number of the family."""
        return self.seed.replicate


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
class Reached:
    """A network under a mask, ready to be cut.

    Attributes:
        masks: over the prunable tensors.
        network: after its last iteration.
        moved: what its training accumulated, where the criterion asks for it.
    """

    masks: Masks
    network: Snapshot
    moved: Params | None = None


@final
class Way:
    """One family's way through the levels.

    Attributes:
        family: whose.
        pruner: makes its masks.
        masks: of the level that it is at.
        start: what its ticket there starts from, masked.
        trail: what the next cut is made of.
        scoring: what the cuts since the last level cost.
        after_cut: what the network was worth after the cut.
        dense_needed: iterations of its first dense run that the search took, where those are fewer than all.
    """

    def __init__(self, family: Family, pruner: Pruner, prunable: tuple[str, ...]) -> None:
        self.family, self.pruner = family, pruner
        self.dense_masks: Masks = ones(family.init.params, prunable)
        self.masks: Masks = self.dense_masks
        self.start: Snapshot = family.init
        self.trail = Reached(self.dense_masks, family.init)
        self.scoring = Scoring(0.0, 0.0)
        self.after_cut: AfterCut | None = None
        self.dense_needed: Step | None = None
        self._unmasked: Snapshot = family.init
        self._at_step: Snapshot | None = None
        self._dense_score: float | None = None
        self._on_the_way: dict[Step, Snapshot] = {}
        self._tickets: dict[int, Reached] = {}
        self._trails: dict[int, Reached] = {}

    def dense_job(
        self, iterations: int, order: int, looks: Sequence[Step] = (), *, keeps_optimizer: bool = False
    ) -> TrainJob:
        """Give a dense run; the family's first one keeps what later levels need of it."""
        rewind = self.pruner.rewind
        keep = (rewind.step,) if rewind.weights == "step" else ()
        return TrainJob(
            start=self.family.init,
            masks={},
            seed=replace(self.family.seed, order=order),
            stop=iterations,
            save_at=tuple(sorted({*keep, *looks})) if order == 0 else (),
            with_optimizer=order == 0 and (rewind.optimizer == "saved" or keeps_optimizer),
            name=DENSE,
            moved=order == 0 and self.pruner.moved,
        )

    def after_dense(self, run: TrainOutcome, looks: Sequence[Step] = ()) -> None:
        """Take the first dense run."""
        self._at_step = run.saved.get(self.pruner.rewind.step)
        self._dense_score = _last(run.curve)
        self._on_the_way = {step: run.saved[step] for step in looks if step in run.saved}
        dense = Reached(self.dense_masks, run.end, run.moved)
        self.trail = self._tickets[0] = self._trails[0] = dense

    def go_from(self, level: int) -> None:
        """Stand where the next cut is made from."""
        self.trail = self._trails[level]

    def forget_all_but(self, levels: Collection[int]) -> None:
        """Keep the networks of these levels; the dense one stays."""
        for passed in (self._tickets, self._trails):
            for other in [one for one in passed if one and one not in levels]:
                del passed[other]

    def after_ticket(self, level: int, run: TrainOutcome, *, is_round: bool) -> None:
        """Take the ticket of a level; where its run is the round too, the next cut is made of it."""
        dense = self._trails[0]
        moved = dense.moved if self.pruner.each_from_dense else run.moved
        self._tickets[level] = Reached(self.masks, run.end, moved)
        self._trails[level] = self.trail = self._tickets[level] if is_round else Reached(self.masks, self.trail.network)

    def lead(self, ticket: TrainOutcome) -> float | None:
        """Give a ticket's last validation score minus the dense run's; ``None`` where the loop reports none."""
        score = _last(ticket.curve)
        return None if score is None or self._dense_score is None else score - self._dense_score

    def barrier(self, level: int, cut_from: int) -> float | None:
        """Give the error barrier between the tickets of two levels, on validation; ``None`` without data."""
        if self.family.looking is None:
            return None
        began = time.perf_counter()
        first, second = self._tickets[cut_from].network, self._tickets[level].network
        with _watched(True) as counter:
            found = self.family.looking.barrier(first, second)
        self._spend(began, counter)
        return found

    def take_scoring(self) -> Scoring:
        """Give what was spent on looking since this was last asked."""
        spent, self.scoring = self.scoring, Scoring(0.0, 0.0)
        return spent

    def settle_dense(self, level: int, window: int, threshold: float) -> None:
        """Cut from the dense run where the mask of a level had settled, and not from its end."""
        recent: list[Reached] = []
        for step, network in sorted(self._on_the_way.items()):
            recent = [*recent, Reached(self.dense_masks, network)][-window:]
            if len(recent) == window and self.agree(level, recent, threshold):
                self.trail, self.dense_needed = recent[-1], step
                return
        self.dense_needed = None

    def agree(self, level: int, recent: Sequence[Reached], threshold: float) -> bool:
        """Whether the masks that a level would get from each of these are no further apart than a threshold."""
        return settled([self._mask_of(level, one)[0] for one in recent], len(recent), threshold)

    def step(self, level: int) -> None:
        """Cut the trail to a level that no ticket is trained at."""
        masks, network = self._mask_of(level, self.trail)
        self.trail = Reached(masks, network)

    def begin_round(self, continued: bool) -> Snapshot:
        """Give what a round starts from, masked."""
        at = self.trail
        again = restart(self.pruner.rewind, init=self.family.init, at_step=self._at_step, end=at.network)
        return masked(at.network if continued else again, at.masks)

    def end_round(self, level: int, run: TrainOutcome) -> None:
        """Take what a round, or a piece of one, trained."""
        self._trails[level] = self.trail = Reached(self.trail.masks, run.end, run.moved)

    def prune(self, level: int) -> None:
        """Make this level's mask from training results alone, and what its survivors restart from."""
        pruner = self.pruner
        if self.family.given is not None:
            self.masks, source = self.family.given[level], self.family.init
        elif pruner.during and pruner.during.starts_dense:
            self.masks, source = self.dense_masks, self.family.init
        else:
            self.masks, source = self._mask_of(level, self._to_cut())
        self._unmasked = restart(pruner.rewind, init=self.family.init, at_step=self._at_step, end=source)
        self.after_cut = None
        if self.family.looking is not None and not pruner.rewind.keeps_start_values:
            looking, plain = self.family.looking, self._unmasked
            again = looking.recalibrated(plain, self.masks) if pruner.recalibrate else None
            # What is pruned stays as it was under the new statistics: a shuffled mask keeps some of it.
            self._unmasked = plain if again is None else replace(plain, buffers=again.buffers)
            self.after_cut = looking.after_cut(plain, self.masks, again)
        self.start = masked(self._unmasked, self.masks)

    def _to_cut(self) -> Reached:
        if self.pruner.at_init or self.pruner.during:
            return Reached(self.dense_masks, self.family.init)
        if not self.pruner.from_dense:
            return self.trail
        # Where its mask settled before its end, the trail is the dense run at that step.
        return self._trails[0] if self.dense_needed is None else self.trail

    def _mask_of(self, level: int, at: Reached) -> tuple[Masks, Snapshot]:
        """Give the mask, and what the network it was made from has become by the cut."""
        began = time.perf_counter()
        evidence = self._evidence(level, "prune", at.network, at.moved)
        with _watched(self.pruner.looks) as counter:
            masks = self.pruner.prune(level, at.network.params, at.masks, evidence)
            params = self.pruner.survivors(at.network.params, at.masks, masks, evidence)
        self._spend(began, counter)
        # Of the survivors alone: a control with another mask keeps what this one deletes, as it was trained.
        kept = at.network.params
        made_up = {n: torch.where(masks[n], v, kept[n]) if n in masks else v for n, v in params.items()}
        return masks, replace(at.network, params=made_up)

    def _spend(self, began: float, counter: FlopCount | None) -> None:
        flops = 0.0 if counter is None else counter.flops
        self.scoring = Scoring(self.scoring.flops + flops, self.scoring.seconds + time.perf_counter() - began)

    def settle(self, run: TrainOutcome) -> None:
        """Take the mask that a run ended with, where it changed."""
        if run.masks is not None:
            self.masks = run.masks
            self.start = masked(self._unmasked, self.masks)

    def ticket_job(self, iterations: int, *, keeps_optimizer: bool = False) -> TrainJob:
        """Give the run of a level's survivors, judged at the end."""
        return TrainJob(
            start=self.start,
            masks=self.masks,
            seed=self.family.seed,
            stop=self._stop(self.start.step, iterations),
            with_optimizer=keeps_optimizer or self.pruner.rewind.optimizer == "saved",
            name=TICKET,
            moved=self.pruner.moved,
        )

    def growing_job(self, level: int, iterations: int) -> TrainJob:
        """Give the run in which a level's mask is made."""
        assert self.pruner.during is not None
        shapes = {name: tuple(mask.shape) for name, mask in self.masks.items()}
        updates = self.pruner.during.updates(self.pruner.plan(shapes, level)[level])
        name = ROUND if self.pruner.during.rewinds else TICKET
        return replace(self.ticket_job(iterations), updates=updates, name=name, scores=self.pruner.during.scores)

    def control_job(self, level: int, name: str, control: Control, iterations: int) -> TrainJob:
        """Give the run of a control of this level's mask."""
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
        dense = self._trails[0]
        evidence = self._evidence(level, "control", dense.network, dense.moved)
        return self.pruner.prune_dense(level, dense.network.params, tuple(self.dense_masks), evidence)

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

    def _evidence(self, level: int, stream: str, network: Snapshot, moved: Params | None) -> Evidence:
        looking = self.family.looking if self.pruner.looks else None
        return replace(
            Evidence() if looking is None else looking.evidence(network),
            moved=moved,
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


def _last(curve: Curve) -> float | None:
    return next(filter(math.isfinite, reversed(curve.accuracy)), None)
