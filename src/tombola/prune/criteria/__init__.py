"""One criterion per file, each with its paper and equation; the contract is :class:`~tombola.prune.evidence.Criterion`.

``tests/contract/test_criteria.py`` runs every entry of ``CRITERIA`` through the same checks.
"""

from typing import Final

from tombola.prune.criteria.magnitude import magnitude
from tombola.prune.criteria.random import random
from tombola.prune.evidence import Criterion

CRITERIA: Final[dict[str, Criterion]] = {"magnitude": magnitude, "random": random}

__all__ = ["CRITERIA", "magnitude", "random"]
