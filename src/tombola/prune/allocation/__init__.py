"""One allocation rule per file: how many weights each tensor keeps.

The contract is :class:`~tombola.prune.allocation.base.Allocation`; ``tests/contract/test_allocations.py`` runs every
entry of ``ALLOCATIONS`` through the same checks.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final

from tombola.prune.allocation.base import Allocation
from tombola.prune.allocation.by_score import Global
from tombola.prune.allocation.erk import ERK
from tombola.prune.allocation.lamp import LAMP
from tombola.prune.allocation.layer_rates import LayerRates
from tombola.prune.allocation.uniform import Uniform

ALLOCATIONS: Final[dict[str, Callable[[Mapping[str, Fraction]], Allocation]]] = {
    "layer-rates": lambda multipliers: LayerRates(multipliers),
    "uniform": lambda _: Uniform(),
    "global": lambda _: Global(),
    "erk": lambda _: ERK(),
    "lamp": lambda _: LAMP(),
}
"""Name -> the rule, made from the model's layer multipliers (which only ``layer-rates`` uses)."""

__all__ = ["ALLOCATIONS", "ERK", "LAMP", "Allocation", "Global", "LayerRates", "Uniform"]
