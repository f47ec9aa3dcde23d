"""One criterion per file, each with its paper and equation; the contract is :class:`~tombola.prune.evidence.Criterion`.

``tests/contract/test_criteria.py`` runs every entry of ``CRITERIA`` through the same checks.
"""

from typing import Final

from tombola.prune.criteria.known import Known
from tombola.prune.criteria.magnitude import magnitude
from tombola.prune.criteria.random import random

CRITERIA: Final[dict[str, Known]] = {
    "magnitude": Known(magnitude, "the size of the trained weight", "Han et al. (2015), section 3"),
    "random": Known(random, "a draw: what any other has to beat", "Frankle & Carbin (2019), figure 1"),
}

__all__ = ["CRITERIA", "Known", "magnitude", "random"]
