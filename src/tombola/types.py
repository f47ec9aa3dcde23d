"""The words every room shares: parameters, masks, snapshots, jobs and outcomes.

Nothing here imports torch at run time, so specifications and ``--help`` stay fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

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


@dataclass(frozen=True)
class TrainJob:
    """One network to train, from a snapshot to a step, under masks.

    Attributes:
        start: the values to start from; ``start.step`` is the first position that is trained.
        masks: the subnetwork; pruned entries are zero throughout.
        seed: the random streams of the run.
        stop: the position after the last iteration.
        save_at: further positions, in ``[start.step, stop]``, whose snapshots are wanted.
        with_optimizer: whether the snapshots carry the optimiser's state, which is twice the network under Adam.
        name: what a progress display calls it, such as ``"ticket"`` or ``"reinit"``.
    """

    start: Snapshot
    masks: Masks
    seed: Seed
    stop: Step
    save_at: tuple[Step, ...] = ()
    with_optimizer: bool = True
    name: str = "run"


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
        best: the network at the early-stop iteration (the minimum of validation loss).
        saved: position -> snapshot, for every position the job asked for.
        curve: the validation curve.
        early_stop_iteration: argmin of validation loss, earliest of ties; ``None`` for a diverged run.
        censored: the minimum lies at the last evaluation, so the true one may lie beyond.
        test_accuracy: of ``end``, a fraction; the test split is read once, after training.
        test_accuracy_at_early_stop: of ``best``, a fraction.
        iterations: how many were trained.
        seconds: wall time.
        optimizer_steps: steps that optimisers of the network took, where a loop that is not ours was watched.
        rate_fell: a learning rate was seen to end below its highest value.
        elsewhere: the versions and processor that trained it, where it was kept from before and they are not these.
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


@runtime_checkable
class TrainFn(Protocol):
    """A training routine: many jobs at once, so that an engine can vectorise them; outcomes in the jobs' order."""

    def __call__(self, jobs: Sequence[TrainJob], /) -> list[TrainOutcome]: ...
