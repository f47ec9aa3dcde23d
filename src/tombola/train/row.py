"""Networks that an engine trains side by side, as the run sees them; and what is kept of one in progress."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, final

from torch import Tensor

from tombola.types import Curve, Masks, Params, Snapshot, Step, TrainJob


class Row(Protocol):
    """Networks that an engine trains side by side, one for each job; most engines have a row of one."""

    def iterate(self, step: Step, until: Step) -> int:
        """Train from a position on, at most to another; give how many iterations were made, at least 1."""

    def evaluate(self) -> Sequence[tuple[float, float]]:
        """Give each network's mean validation loss and its accuracy, a fraction."""

    def snapshot(self, place: int, step: Step) -> Snapshot:
        """Give a network as it is, with the optimiser's state where its job wants that."""

    def keep(self, places: Sequence[int], step: Step) -> None:
        """Keep these networks as they are: each is the best of its run so far."""

    def best(self, place: int) -> Snapshot:
        """Give a network as it was kept last."""

    def test(self) -> Sequence[tuple[float, float]]:
        """Read the test split, once for each network as it is and once as it was kept last: two accuracies each."""


class Resumable(Row, Protocol):
    """A row of one network that can be gone on with in another process, and whose masks can change."""

    def resumes(self) -> bool:
        """Whether :meth:`whole` gives all that the next iterations depend on."""

    def whole(self, step: Step) -> Snapshot:
        """Give the network as it is, with the optimiser's state whatever its job wants."""

    def put_back(self, best: Snapshot) -> None:
        """Take a network as the one that was kept last."""

    def gradient(self, step: Step) -> Params:
        """Give the gradient of the loss of a position's batch, in training mode, by every entry of the masked tensors.

        On the CPU; it leaves no trace: neither in the network nor in what is drawn later.
        """

    def remask(self, masks: Masks, step: Step) -> None:
        """Go on under other masks: what is dropped loses its value and moments, what is grown starts with zeros.

        What is kept stays as it is in every bit, and so does everything where the masks are those of before.
        """

    def moved(self) -> Params | None:
        """Give what the job accumulates so far, on the CPU."""


class Single(ABC):
    """A row of one network, for an engine that says what the network and its optimiser hold."""

    def __init__(self, job: TrainJob) -> None:
        """Set the job."""
        self.job = job

    @abstractmethod
    def values(self, step: Step) -> Snapshot:
        """Give the network as it is, without the optimiser."""

    @abstractmethod
    def slots(self) -> Mapping[str, Mapping[str, Tensor]] | None:
        """Give the optimiser's state; ``None`` where there is none yet."""

    def snapshot(self, place: int, step: Step) -> Snapshot:  # noqa: ARG002
        return replace(self.values(step), optimizer=self.slots() if self.job.with_optimizer else None)

    def resumes(self) -> bool:
        return True

    def whole(self, step: Step) -> Snapshot:
        return replace(self.values(step), optimizer=self.slots())

    def keep(self, places: Sequence[int], step: Step) -> None:  # noqa: ARG002
        self.kept = self.values(step)

    def put_back(self, best: Snapshot) -> None:
        self.kept = best

    def best(self, place: int) -> Snapshot:  # noqa: ARG002
        return self.kept

    def moved(self) -> Params | None:
        return None


@final
@dataclass(frozen=True)
class Progress:
    """A run in progress: gone on with from here, it ends in the bits of one that was never stopped.

    Everything random is drawn by position, so the position is all that there is to know of it.

    Attributes:
        now: the network, with the optimiser's state.
        best: the network at the least validation loss so far.
        saved: position -> snapshot, of the positions asked for that have been passed.
        curve: what validation has seen.
        masks: those of ``now``, after the change of that position; ``None`` where none change.
        history: the changes so far, as in :class:`~tombola.types.TrainOutcome`.
        moved: what the job has accumulated.
    """

    now: Snapshot
    best: Snapshot
    saved: Mapping[Step, Snapshot]
    curve: Curve
    masks: Masks | None = None
    history: tuple[tuple[Step, Mapping[str, int]], ...] = ()
    moved: Params | None = None


class Keeper(Protocol):
    """Who keeps a run in progress."""

    def due(self) -> bool:
        """Whether it is time to keep it; asked after every call of ``iterate``."""

    def keep(self, progress: Progress) -> None:
        """Keep it; also called when the run is interrupted."""
