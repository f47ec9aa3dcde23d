"""What is kept or pruned together: N of M neighbours, blocks, neurons, channels and heads.

A structure takes the places of an allocation's division and of the selection of single weights; the contract is
:class:`~tombola.prune.structure.base.Structure`. ``tests/prune/test_structure.py`` states the definitions.
"""

from tombola.prune.structure.base import Structure
from tombola.prune.structure.blocks import Blocks
from tombola.prune.structure.naming import named
from tombola.prune.structure.nm import NM
from tombola.prune.structure.places import Group, Slice, alive_units, product_masks, usable
from tombola.prune.structure.pooling import POOLS
from tombola.prune.structure.units import Units

__all__ = [
    "NM",
    "POOLS",
    "Blocks",
    "Group",
    "Slice",
    "Structure",
    "Units",
    "alive_units",
    "named",
    "product_masks",
    "usable",
]
