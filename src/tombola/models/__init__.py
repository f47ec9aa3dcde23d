"""Networks: the papers' own, yours by dotted path, and what is worth knowing about any of them.

Lives here: the registry, one file per family, the start values of a family (``initial``), what a state dict holds
besides parameters, the view that criteria look through, and counts by parameter name.
Imported here: torch, ``tombola.types``, ``tombola.errors``, ``tombola.seeds``.
Proved by: ``tests/models`` (exact parameter counts, the Glorot variance, start values equal bit for bit).
"""

from tombola.models.counting import Counts, count_params
from tombola.models.factory import call_factory, from_path, importable
from tombola.models.groups import groups
from tombola.models.identity import identity
from tombola.models.kinds import kinds, tied_names
from tombola.models.macs import macs
from tombola.models.registry import ModelEntry, build, layer_multipliers, registry
from tombola.models.sources import changed, sources
from tombola.models.start import DRAWING, initial
from tombola.models.state import state_buffers, unseen_state
from tombola.models.view import View, view

__all__ = [
    "DRAWING",
    "Counts",
    "ModelEntry",
    "View",
    "build",
    "call_factory",
    "changed",
    "count_params",
    "from_path",
    "groups",
    "identity",
    "importable",
    "initial",
    "kinds",
    "layer_multipliers",
    "macs",
    "registry",
    "sources",
    "state_buffers",
    "tied_names",
    "unseen_state",
    "view",
]
