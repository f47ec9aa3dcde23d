"""What every allocation is: a plan from sizes alone, and a placement that may look at the scores."""

from typing import Protocol

import torch

from tombola.prune.counting import Counts, Cut, Shapes
from tombola.types import Masks, Scores


class Allocation(Protocol):
    """How many weights to keep in each tensor.

    The plan needs no scores, so the size of every level is known before anything is trained: gates are fixed up front
    and an impossible density is refused before the first iteration. Rules that divide the total by score (global,
    LAMP) plan the total and divide it when the scores are there.
    """

    @property
    def name(self) -> str:
        """What records call it."""
        ...

    def plan(self, shapes: Shapes, alive: Counts, cut: Cut, /) -> dict[str, int]:
        """Divide the cut among the tensors by their sizes.

        Args:
            shapes: name -> shape of each prunable tensor.
            alive: name -> weights left there.
            cut: what the schedule asks.

        Returns:
            name -> how many to keep.
        """
        ...

    def place(
        self, scores: Scores, masks: Masks, planned: Counts, generator: torch.Generator | None, /
    ) -> dict[str, int]:
        """Divide the planned total among the tensors, looking at the scores.

        Args:
            scores: name -> score, ``-inf`` where pruned.
            masks: the masks so far.
            planned: what :meth:`plan` said.
            generator: breaks ties between equal scores; ``None`` breaks them by position.

        Returns:
            name -> how many to keep; the same sum as ``planned``.
        """
        ...


class BySize:
    """Shared by the allocations whose plan is final, whatever the scores."""

    def place(
        self,
        scores: Scores,  # noqa: ARG002
        masks: Masks,  # noqa: ARG002
        planned: Counts,
        generator: torch.Generator | None,  # noqa: ARG002
        /,
    ) -> dict[str, int]:
        """Keep to the plan."""
        return dict(planned)
