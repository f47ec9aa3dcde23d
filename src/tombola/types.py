"""The words every room shares: parameters, masks, snapshots, jobs and outcomes.

Nothing here imports torch at run time, so specifications and ``--help`` stay fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from torch import Generator, Tensor

Params: TypeAlias = Mapping[str, "Tensor"]
"""state_dict name -> float tensor, any shape and device."""

Masks: TypeAlias = Mapping[str, "Tensor"]
"""Same names and shapes as the parameters they belong to, dtype bool; an absent name stays dense."""

Scores: TypeAlias = Mapping[str, "Tensor"]
"""Same names and shapes as the masks, float; larger is kept longer, a pruned entry scores ``-inf``."""

Step: TypeAlias = int
"""A position in training, counted in optimiser iterations from initialisation."""


@dataclass(frozen=True)
class Seed:
    """Where every random stream of one network comes from.

    Attributes:
        root: the study's seed, as given on the command line.
        replicate: the family; families differ in initialisation, data order and (where the data set has no
            published test split) in the split.
        order: which data order of the family: 0 is the family's own, shared by its first dense run, its ticket and
            its controls; 1, 2, ... belong to further dense runs.
    """

    root: int
    replicate: int = 0
    order: int = 0


@dataclass(frozen=True)
class Snapshot:
    """Everything a network is at one step.

    Attributes:
        step: position in the learning-rate schedule and in the data order, in iterations.
        params: every trainable tensor of the network by state_dict name.
        buffers: the rest of the state dict (batch-norm statistics, ...).
        optimizer: parameter name -> slot name -> tensor, or ``None`` for a fresh optimiser.
    """

    step: Step
    params: Params
    buffers: Params = field(default_factory=dict)
    optimizer: Mapping[str, Mapping[str, Tensor]] | None = None


class Updates(Protocol):
    """How masks change while a network trains.

    A frozen dataclass of plain values and frozen parts: it can be pickled, and what it does depends on its arguments
    alone.
    """

    @property
    def steps(self) -> tuple[Step, ...]:
        """The positions at which masks change, each after that many iterations."""
        ...

    def wants_gradient(self, step: Step, /) -> bool:
        """Whether the update of a position looks at the dense gradient."""
        ...

    def update(
        self,
        step: Step,
        params: Params,
        masks: Masks,
        gradient: Params | None,
        moved: Params | None,
        generator: Generator,
        /,
    ) -> dict[str, Tensor]:
        """Make the masks that training goes on with.

        Args:
            step: one of ``steps``.
            params: name -> weight, zero where pruned, on the CPU.
            masks: name -> bool, on the CPU: those up to here.
            gradient: for the names in ``masks``, of the loss of the batch that comes next with respect to every entry,
                pruned ones too; where it is wanted.
            moved: name -> ``-sum_t lr_t g_t w_t`` so far; where the job accumulates it.
            generator: a CPU generator of this position's own.

        Returns:
            name -> bool for the names in ``masks``.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Identify it: plain JSON values, equal for two that do the same."""
        ...


class ScoreRule(Protocol):
    """How a score for every weight is learned while the weights themselves stay as they are.

    The network computes with ``weight * factor(score)``. A frozen dataclass of plain values, as :class:`Updates`.
    """

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The fields of the recipe that scores are trained with in place of the weights' own."""
        ...

    def first(self, weight: Tensor, generator: Generator, /) -> Tensor:
        """Give the scores that a tensor starts with: its shape, float, on the CPU."""
        ...

    def factors(self, scores: Params, alive: Params, generator: Generator | None, /) -> dict[str, Tensor]:
        """Give what the weights are multiplied by.

        Args:
            scores: name -> float tensor; gradients flow to it.
            alive: name -> 1 where the mask keeps, 0 elsewhere, of the same shape and dtype.
            generator: on the scores' device, for rules that draw during training; ``None`` to evaluate.

        Returns:
            name -> float tensor; zero where the mask prunes.
        """
        ...

    def settle(self, scores: Params, /) -> None:
        """Bring scores back into their range, in place, after a step."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Identify it: plain JSON values, equal for two that do the same."""
        ...


@dataclass(frozen=True)
class TrainJob:
    """One network to train, from a snapshot to a step, under masks.

    Attributes:
        start: the values to start from; ``start.step`` is the first position that is trained.
        masks: the subnetwork; pruned entries are zero throughout. With ``updates`` it is the one at the start, with a
            mask for every tensor that may change; a dense one is all true.
        seed: the random streams of the run.
        stop: the position after the last iteration.
        save_at: further positions, in ``[start.step, stop]``, whose snapshots are wanted.
        with_optimizer: whether the snapshots carry the optimiser's state, which is twice the network under Adam.
        name: what a progress display calls it, such as ``"ticket"`` or ``"reinit"``.
        updates: changes the masks at its positions above ``start.step`` and below ``stop``; ``None`` leaves them.
        moved: whether ``-sum_t lr_t g_t w_t`` is accumulated for every tensor with a mask; without masks, for all.
        fraction: share of the training examples that the run sees, above 0 and up to 1; all runs of a family with one
            share see the same examples.
        scores: trains a score for every weight of the tensors with a mask, and nothing else: the weights stay those of
            ``start``, and in every snapshot of the run, its end among them, the scores stand in their place.
    """

    start: Snapshot
    masks: Masks
    seed: Seed
    stop: Step
    save_at: tuple[Step, ...] = ()
    with_optimizer: bool = True
    name: str = "run"
    updates: Updates | None = None
    moved: bool = False
    fraction: float = 1.0
    scores: ScoreRule | None = None


@dataclass(frozen=True)
class Curve:
    """What validation saw on the evaluation grid.

    Attributes:
        steps: positions evaluated, increasing, in iterations.
        loss: mean validation loss at each: what the run is trained on, cross-entropy in nats or the mean squared error;
            NaN where a loop reported none. Its minimum is the early stop.
        accuracy: validation accuracy at each, a fraction; NaN where a loop reported none.
    """

    steps: tuple[Step, ...]
    loss: tuple[float, ...]
    accuracy: tuple[float, ...]


class RunResult(Enum):
    """How a training run ended."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class TrainOutcome:
    """What a training run left behind.

    Attributes:
        result: finished, diverged or interrupted.
        sentence: the same for a person, with the iteration where it happened.
        end: the network after the last iteration.
        best: the network at the early-stop iteration (the minimum of validation loss). Where masks change, among the
            evaluations from the last change on, so that it is a network of the final masks; a run that ends before has
            its start here.
        saved: position -> snapshot, for every position the job asked for.
        curve: the validation curve.
        early_stop_iteration: argmin of validation loss, earliest of ties, where masks change from their last change
            on; ``None`` for a diverged run.
        censored: the minimum lies at the last evaluation, so the true one may lie beyond.
        test_accuracy: of ``end``, a fraction; the test split is read once, after training.
        test_accuracy_at_early_stop: of ``best``, a fraction.
        iterations: how many were trained.
        seconds: wall time.
        optimizer_steps: steps that optimisers of the network took, where a loop that is not ours was watched.
        rate_fell: a learning rate was seen to end below its highest value.
        elsewhere: the versions and processor that trained it, where it was kept from before and they are not these.
        masks: those at the end, on the CPU, of a job whose masks change; ``None`` for others.
        history: position -> weights kept in each tensor from there on, for every change of masks that was made, in
            order; from the start to the first of them it is the job's own masks.
        moved: name -> ``-sum_t lr_t g_t w_t`` over the job, float, on the CPU, of a job that asks for it. ``g_t`` is
            the gradient of the loss alone, zero where pruned, and ``w_t`` the weight before the step.
    """

    result: RunResult
    sentence: str
    end: Snapshot
    best: Snapshot
    saved: Mapping[Step, Snapshot]
    curve: Curve
    early_stop_iteration: Step | None
    censored: bool
    test_accuracy: float | None
    test_accuracy_at_early_stop: float | None
    iterations: int
    seconds: float
    optimizer_steps: int | None = None
    rate_fell: bool = False
    elsewhere: str = ""
    masks: Masks | None = None
    history: tuple[tuple[Step, Mapping[str, int]], ...] = ()
    moved: Params | None = None


@runtime_checkable
class TrainFn(Protocol):
    """A training routine: many jobs at once, so that an engine can vectorise them; outcomes in the jobs' order."""

    def __call__(self, jobs: Sequence[TrainJob], /) -> list[TrainOutcome]: ...
