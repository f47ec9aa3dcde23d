"""One component of a ticket after another exchanged for a healthy one, and every such ticket trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

import torch
from torch import Tensor

from tombola.analysis.family import Observed, one_shot_masks
from tombola.explain.diagnosis import Arm, Cause
from tombola.explain.material import Material
from tombola.prune.masks import counts
from tombola.prune.rewinding import masked
from tombola.prune.select import select
from tombola.search.setup import Setup
from tombola.seeds import generator
from tombola.types import Masks, Params, RunResult, Seed, Snapshot, TrainJob, TrainOutcome

LATER: Final = 0.05
"""How much later the rewinding step is, as a fraction of T."""

RATES: Final = (3, 10)
"""What the learning rate is divided by."""

ROUNDING: Final = 0.01
"""Relative difference of two magnitudes that is none: bfloat16 keeps eight bits."""

_FIRST_ORDER: Final = 101
"""Data orders from here on are of no dense run of a search."""


PATIENT: Final = "the ticket"
REFERENCE: Final = "reference ticket"
DENSE: Final = "dense network"


_Part = tuple[str, Cause | None, Snapshot, Masks]
"""What it is called, the component exchanged, and what is trained."""


@final
@dataclass(frozen=True)
class Patient:
    """A ticket that is looked into.

    Attributes:
        name: the file, or that it is the run's own.
        level: of the run's own; ``None`` for a file.
        family: the replicate of the run that it is set against.
        masks: over the run's prunable tensors.
        start: every parameter; what pruned entries hold does not matter.
        buffers: the rest of the state dict.
    """

    name: str
    level: int | None
    family: int
    masks: Masks
    start: Params
    buffers: Params


@final
class Trial:
    """A patient, what stands in for its parts, and what trains them."""

    def __init__(self, material: Material, setup: Setup, patient: Patient, *, orders: int, watcher: Any) -> None:
        self.material, self.setup, self.patient, self.watcher = material, setup, patient, watcher
        self.one = next(one for one in material.families if one.replicate == patient.family)
        self.family = next(one for one in setup.families if one.seed.replicate == patient.family)
        self.orders = [_FIRST_ORDER + k for k in range(orders)]
        self.iterations = 0
        self.own = float("nan")
        self.healthy = start_of(material, setup, self.one, watcher)
        self.later = self.healthy.step + max(1, round(LATER * setup.iterations))
        self.values = filled(patient.start, patient.masks, self.healthy.params)
        self.run_mask = self._run_mask()

    def arms(self) -> list[Arm]:
        """Train everything."""
        parts = self._parts()
        trained = [self._job(*self._ill(), order=0)]
        trained += [self._job(start, masks, order) for _, _, start, masks in parts for order in self.orders]
        self.own, *every = self._train(trained)
        found = [
            Arm(name, tuple(values), cause)
            for (name, cause, _, _), values in zip(parts, self._each(every), strict=True)
        ]
        for rate in self._rates():
            networks: tuple[tuple[Snapshot, Masks], ...] = (self._ill(), (self.family.init, {}))
            low = self._train(
                [self._job(start, masks, order) for start, masks in networks for order in self.orders], rate
            )
            ticket, dense = self._each(low)
            found.append(Arm(f"{Cause.RATE.value} {rate:g}", tuple(ticket), Cause.RATE))
            found.append(Arm(f"{DENSE} at {rate:g}", tuple(dense)))
        return found

    def _ill(self) -> tuple[Snapshot, Masks]:
        return Snapshot(self.healthy.step, self.values, self.patient.buffers), self.patient.masks

    def _parts(self) -> list[_Part]:
        """Give what is trained at the recipe's learning rate; an exchange for the same is none."""
        healthy, (ill, mask) = self.healthy, self._ill()
        parts: list[_Part] = [(PATIENT, None, ill, mask)]
        parts.append((REFERENCE, None, healthy, self._reference()))
        parts.append((DENSE, None, self.family.init, {}))
        signed = with_signs(self.values, healthy.params, mask)
        if not _alike(signed, self.values, mask):
            parts.append((Cause.SIGNS.value, Cause.SIGNS, replace(ill, params=signed), mask))
        if not _alike(healthy.params, self.values, mask):
            parts.append((Cause.VALUES.value, Cause.VALUES, healthy, mask))
        if not _same(self._other_mask(), mask):
            parts.append((Cause.MASK.value, Cause.MASK, ill, self._other_mask()))
        if self.later < self.setup.iterations:
            (run,) = self._outcomes([_leading(self.family.init, self.family.seed, self.later)])
            parts.append((Cause.STEP.value, Cause.STEP, run.saved[self.later], mask))
        return parts

    def _rates(self) -> list[float]:
        assert self.setup.alone is not None
        # Two digits are what a person would give on the command line.
        return [float(f"{self.setup.alone.recipe.lr / divisor:.2g}") for divisor in RATES]

    def _each(self, values: Sequence[float]) -> list[Sequence[float]]:
        """Cut accuracies into those of one network each."""
        return [values[k : k + len(self.orders)] for k in range(0, len(values), len(self.orders))]

    def _run_mask(self) -> Masks:
        """Give the run's own mask at the patient's counts."""
        wanted, end = counts(self.patient.masks), self.one.ends[0]
        for level in sorted(self.one.masks, reverse=True):
            own = self.one.masks[level]
            if all(count >= wanted[name] for name, count in counts(own).items()):
                scores = {name: end[name].abs().masked_fill(~own[name], -torch.inf) for name in wanted}
                return select(scores, wanted, self._ties())
        return self._one_shot()

    def _one_shot(self) -> Masks:
        return one_shot_masks(self.one.ends[0], counts(self.patient.masks), self._ties())

    @property
    def signs_alone(self) -> bool:
        """Whether the patient starts from the run's magnitudes, up to rounding, so that only its signs differ."""
        mask, healthy = self.patient.masks, self.healthy.params
        return all(
            torch.allclose(value[mask[name]].abs(), healthy[name][mask[name]].abs(), rtol=ROUNDING, atol=1e-6)
            if name in mask
            else torch.allclose(value, healthy[name], rtol=ROUNDING, atol=1e-6)
            for name, value in self.values.items()
        )

    @property
    def has_run_mask(self) -> bool:
        """Whether the patient's mask is the run's own."""
        return _same(self.run_mask, self.patient.masks)

    def _other_mask(self) -> Masks:
        return self._one_shot() if self.has_run_mask else self.run_mask

    def _reference(self) -> Masks:
        """Give the mask of the reference ticket: another one only where the patient's start values are healthy."""
        return self._other_mask() if _alike(self.values, self.healthy.params, self.patient.masks) else self.run_mask

    def _ties(self) -> torch.Generator:
        return generator(Seed(self.setup.method.seed, self.patient.family), "control", "why")

    def _job(self, start: Snapshot, masks: Masks, order: int) -> TrainJob:
        name = "exchange" if masks else "dense"
        seed = replace(self.family.seed, order=order)
        return TrainJob(masked(start, masks), masks, seed, self.setup.iterations, with_optimizer=False, name=name)

    def _train(self, jobs: Sequence[TrainJob], rate: float | None = None) -> list[float]:
        """Give accuracies; guessing where a network diverged."""
        guess = 1 / int(self.setup.about["classes"])
        return [guess if run.test_accuracy is None else run.test_accuracy for run in self._outcomes(jobs, rate)]

    def _outcomes(self, jobs: Sequence[TrainJob], rate: float | None = None) -> list[TrainOutcome]:
        self.iterations += sum(job.stop - job.start.step for job in jobs)
        at = self.material if rate is None else replace(self.material, setup=at_rate(self.setup, rate))
        return _outcomes(at, jobs, self.watcher)


def at_rate(setup: Setup, rate: float) -> Setup:
    """Give the same search with another learning rate; its runs are others in the store."""
    assert setup.alone is not None
    recipe = replace(setup.alone.recipe, lr=rate)
    about = {**setup.about, "recipe": dict(recipe.as_json()), "recipe_digest": recipe.digest}
    return replace(setup, alone=replace(setup.alone, recipe=recipe), about=about)


def filled(values: Params, masks: Masks, others: Params) -> dict[str, Tensor]:
    """Give start values everywhere: the ticket's where it keeps a weight, the others elsewhere."""
    return {
        name: torch.where(masks[name], value, others[name]) if name in masks else value
        for name, value in values.items()
    }


def with_signs(values: Params, others: Params, masks: Masks) -> dict[str, Tensor]:
    """Give the magnitudes of some values the signs of others, in the masked tensors; a zero has none, and stays."""
    signed = {name: values[name].abs() * torch.where(others[name] < 0, -1.0, 1.0) for name in masks}
    return {name: signed.get(name, value) for name, value in values.items()}


def _alike(first: Params, second: Params, masks: Masks) -> bool:
    """Whether a ticket would start from the same values."""
    one, other = (masked(Snapshot(0, of), masks).params for of in (first, second))
    return all(torch.equal(value, other[name]) for name, value in one.items())


def _same(first: Masks, second: Masks) -> bool:
    return all(torch.equal(mask, second[name]) for name, mask in first.items())


def _leading(init: Snapshot, seed: Seed, step: int) -> TrainJob:
    """Give the way of the dense run up to a step: no longer, for a run is kept with what it saved."""
    return TrainJob(init, {}, seed, step, (step,), with_optimizer=False, name="dense")


def start_of(material: Material, setup: Setup, one: Observed, watcher: Any = None) -> Snapshot:
    """Give what the tickets of a family start from, before they are masked."""
    family = next(of for of in setup.families if of.seed.replicate == one.replicate)
    step = setup.plan.pruner.rewind.step
    if step == 0:
        return family.init
    (run,) = _outcomes(material, [_leading(family.init, family.seed, step)], watcher)
    return run.saved[step]


def _outcomes(material: Material, jobs: Sequence[TrainJob], watcher: Any) -> list[TrainOutcome]:
    with material.trainer(watcher) as train:
        found = train(jobs)
    for run in found:
        if run.result is RunResult.INTERRUPTED:
            raise KeyboardInterrupt(run.sentence)
    return found
