"""A criterion known by name, and what it does besides scoring."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

from tombola.prune.catalogue import About
from tombola.prune.evidence import Criterion, Evidence
from tombola.types import Masks, Params

Compensate = Callable[[Params, Masks, Masks, Evidence], dict[str, Tensor]]
"""``(params, masks before the cut, masks after it, evidence) -> params``: what the survivors become when the others
are deleted. Only where survivors keep their trained weights; a ticket restarts from its initial ones."""


@final
@dataclass(frozen=True)
class Known:
    """A criterion known by name.

    Attributes:
        score: the criterion.
        about: what it is and what it needs.
        compensate: changes the survivors to make up for the deleted.
    """

    score: Criterion
    about: About
    compensate: Compensate | None = None
