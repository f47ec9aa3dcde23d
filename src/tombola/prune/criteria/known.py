"""A criterion known by name: what it is, whose, and what it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

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
        what: one line about it, for ``--help``.
        source: its paper and the place in it.
        allocation: the paper's division among the layers, a key of ``ALLOCATIONS``; ``None`` for the network's own.
        moved: it needs what training accumulates: :attr:`~tombola.prune.evidence.Evidence.moved`.
        compensate: changes the survivors to make up for the deleted.
    """

    score: Criterion
    what: str
    source: str
    allocation: str | None = None
    moved: bool = False
    compensate: Compensate | None = None
