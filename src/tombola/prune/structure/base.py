"""What every structure is: counts that are known before training, and masks that have exactly these."""

from typing import Protocol

import torch
from torch import Tensor

from tombola.prune.allocation.base import Allocation
from tombola.prune.counting import Counts, Cut, Shapes
from tombola.types import Masks, Scores


class Structure(Protocol):
    """Which weights are kept or pruned together."""

    @property
    def name(self) -> str:
        """What records call it, such as ``2:4``, ``block:4x4`` or ``neurons``."""
        ...

    def plan(self, shapes: Shapes, planned_before: Counts, cut: Cut, allocation: Allocation, /) -> dict[str, int]:
        """Say how many weights each tensor keeps at the next level: exactly what :meth:`choose` will keep.

        Args:
            shapes: name -> shape of each prunable tensor.
            planned_before: name -> weights that the level before keeps; the sizes before the first cut.
            cut: what the schedule asks. Whole units rarely meet it exactly.
            allocation: divides the cut among the tensors, by their sizes alone: a division by score would not be known
                before training, so of such an allocation the plan stands.

        Returns:
            name -> how many weights to keep, at most ``planned_before``.
        """
        ...

    def choose(
        self, scores: Scores, masks: Masks, planned: Counts, generator: torch.Generator | None, /
    ) -> dict[str, Tensor]:
        """Make masks inside ``masks`` with exactly the planned counts.

        Args:
            scores: name -> one score per weight, ``-inf`` where pruned; pooled here.
            masks: the masks so far, made by this structure; or dense ones.
            planned: what :meth:`plan` said.
            generator: breaks ties between equal scores; ``None`` breaks them by position.

        Returns:
            name -> bool tensor.
        """
        ...
