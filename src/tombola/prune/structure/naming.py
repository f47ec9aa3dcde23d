"""Structures by name."""

import re
from collections.abc import Callable, Sequence
from typing import Final

from tombola.errors import InvalidValue
from tombola.prune.structure.base import Structure
from tombola.prune.structure.blocks import Blocks
from tombola.prune.structure.nm import NM
from tombola.prune.structure.places import Group
from tombola.prune.structure.units import Units

UNITS: Final = ("neurons", "heads")
"""What a network is searched for: the kinds of unit that go by a name."""


def named(text: str, find: Callable[[str], Sequence[Group]] | None = None, pool: str = "sum") -> Structure | None:
    """Give a structure by name.

    Args:
        text: ``none``, ``N:M``, ``block:RxC``, ``neurons`` or ``heads``.
        find: gives the groups of a kind of unit of the network; called for ``neurons`` and ``heads`` only.
        pool: one of ``POOLS``; of no use to ``N:M``, which ranks single weights.

    Returns:
        The structure; ``None`` for ``none``.

    Raises:
        InvalidValue: no such structure, or units without a way to find them.
        UnknownName: no such pool.

    Example:
        >>> named("2:4"), named("block:4x8")
        (NM(keep=2, of=4), Blocks(rows=4, columns=8, pool='sum'))
    """
    if text == "none":
        return None
    if text in UNITS:
        if find is None:
            raise InvalidValue(f"the structure {text!r} needs the network's groups of units, and none were given.")
        return Units(tuple(find(text)), name=text, pool=pool)
    if found := re.fullmatch(r"(\d{1,4}):(\d{1,4})", text):
        return NM(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"block:(\d{1,6})x(\d{1,6})", text):
        return Blocks(int(found[1]), int(found[2]), pool)
    raise InvalidValue(
        f"no structure is called {text!r}. Write none, N:M such as 2:4, block:RxC such as block:4x4, neurons or heads."
    )
