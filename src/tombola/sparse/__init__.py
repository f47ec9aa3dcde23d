"""Running sparse: networks whose training costs as much as they have weights left.

``chain`` reads a feed-forward network off its module and says why it cannot; ``layers`` drops what no output depends on
and lays out what is left; ``network`` trains and evaluates it in compiled code (``kernels``).
Imported here: torch, numpy, ``tombola.errors``, ``tombola.types``. Proved by ``tests/sparse`` (each kernel against its
plain reference, on every level that runs here) and ``tests/train/test_sparse_engine.py`` (against the plain trainer).
"""

from tombola.sparse.chain import Chain, read_chain, why_not
from tombola.sparse.network import LOSSES, Rule, SparseNetwork

__all__ = ["LOSSES", "Chain", "Rule", "SparseNetwork", "read_chain", "why_not"]
