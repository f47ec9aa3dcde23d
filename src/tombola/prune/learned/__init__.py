"""Scores that are learned while the weights stay as they were drawn: one rule per file, each with its paper.

May import tensors and the rest of this science; who trains them is not its business. Proof: tests/prune/learned.
"""

from tombola.prune.learned.gem import GemMiner
from tombola.prune.learned.popup import Popup
from tombola.prune.learned.supermask import Supermask

__all__ = ["GemMiner", "Popup", "Supermask"]
