"""Masks on your module, for training loops that are not ours.

``attach(model, masks)`` holds a mask through any loop that ends in a ``torch.optim`` step; :class:`Attached` changes it
and takes it off again. ``masked_call`` is the pure reference: masks inside the graph. ``conformance`` binds the two.
Imported here: torch, ``tombola.prune`` and below. Proved by ``tests/attach``: cases, many beside the stock tool that
fails them, and training equal bit for bit to the reference.
"""

import sys
from types import ModuleType
from typing import final

from tombola.attach.handle import Attached, attach, attached
from tombola.attach.reference import masked_call
from tombola.errors import RanksDiffer

__all__ = ["Attached", "RanksDiffer", "attach", "attached", "masked_call"]


@final
class _Room(ModuleType):
    """This room under its public name: ``tombola.attach(model, masks)`` is :func:`attach`."""

    __call__ = staticmethod(attach)


sys.modules[__name__].__class__ = _Room
