"""Where masks come from: those they were cut from, and a record of every cut from level 0 on.

The record is ``provenance["lineage"]``, a list with one entry per level that led here, the first of them level 0::

    {"level": 0, "kept": 266200, "total": 266200, "masks": "..."}

``masks`` is :func:`tombola.prune.masks.fingerprint`. Levels that these masks were not cut from are left out: where each
level is cut from the dense network, the record is level 0 and the ticket's own.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import torch

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune import masks as mask_tools
from tombola.types import Masks

_KEYS: Final = {"level", "kept", "total", "masks"}
_MOST: Final = 1 << 60
_NEXT: Final = "Give the levels as they were searched, or leave the lineage out."


def check_parent(masks: Masks, parent: Masks) -> None:
    """Raise unless ``parent`` can be the masks of the level before.

    Raises:
        ShapeMismatch: the two do not cover the same tensors of the same shapes.
        InvalidValue: a mask that is not bool, or a weight that is kept now and was pruned before.
    """
    if masks.keys() != parent.keys():
        odd = ", ".join(f"{name!r:.80}" for name in sorted(masks.keys() ^ parent.keys())[:6])
        raise ShapeMismatch(
            f"only one of the masks and the parent's masks covers {odd}. Both cover the same tensors; give the masks "
            "of the level before, all of them."
        )
    mask_tools.check(masks, parent)
    back = {name: n for name, mask in masks.items() if (n := int((mask & ~parent[name].to(mask.device)).sum()))}
    if back:
        name = next(iter(back))
        raise InvalidValue(
            f"the masks keep {sum(back.values())} weights that the parent's masks prune, {back[name]} of them in "
            f"{name!r:.80}. Masks are a subset of those of the level before; give those of this ticket's own parent."
        )


def check_lineage(about: Mapping[str, Any], masks: Masks, parent: Masks | None) -> None:
    """Raise if ``about["lineage"]`` is there and is not a record that ends with these masks.

    The first entry is level 0 and the numbers rise; the totals are equal and the counts never rise. The last entry is
    of ``masks``, and the one before it of ``parent``; without a parent it must be dense. A whole number under
    ``about["level"]`` must be that of the last entry.

    Raises:
        InvalidValue: saying what contradicts what.
    """
    if "lineage" not in about:
        return
    entries = about["lineage"]
    if not isinstance(entries, list) or not entries:
        raise InvalidValue(f"the lineage is {entries!r:.40}; it is a list with an entry for every level. {_NEXT}")
    for place, entry in enumerate(entries):
        _check_entry(place, entry)
    for before, after in pairwise(entries):
        if after["level"] <= before["level"] or after["total"] != before["total"] or after["kept"] > before["kept"]:
            raise InvalidValue(
                f"the lineage has {before['kept']} of {before['total']} weights at level {before['level']}, and next "
                f"{after['kept']} of {after['total']} at level {after['level']}. The level rises, the total stays and "
                f"the count never rises. {_NEXT}"
            )
    _check_end(entries[-1], masks, "these masks")
    claimed = about.get("level")
    if type(claimed) is int and claimed != entries[-1]["level"]:
        raise InvalidValue(
            f"the provenance says level {claimed}, and the lineage ends at level {entries[-1]['level']}. {_NEXT}"
        )
    if parent is not None and len(entries) == 1:
        raise InvalidValue(
            f"the lineage has one level, and there is a parent. A parent is of the level before. {_NEXT}"
        )
    if len(entries) > 1:
        dense = {name: torch.ones(mask.shape, dtype=torch.bool) for name, mask in masks.items()}
        whose = "the dense network's, which stand for a parent that is not given," if parent is None else "the parent's"
        _check_end(entries[-2], dense if parent is None else parent, f"{whose} masks")


def sentence(about: Mapping[str, Any], masks: Masks, parent: Masks | None) -> str:
    """Say what was found, after both checks."""
    found = []
    if parent is not None:
        kept = mask_tools.kept(masks)
        found.append(f"the mask is a subset of its parent's: {kept} of {mask_tools.kept(parent)} weights")
    if "lineage" in about:
        entries = about["lineage"]
        number = f"{len(entries)} level{'' if len(entries) == 1 else 's'} of which the last is this"
        found.append(f"{number}, and the kept counts never rise: {' to '.join(_ends(entries))} weights")
    return "; ".join(found) or "neither a parent nor a lineage is recorded, so there is nothing to compare"


def _ends(entries: list[dict[str, Any]]) -> list[str]:
    return [str(entry["kept"]) for entry in (entries[:1] + entries[-1:] if len(entries) > 1 else entries)]


def _check_entry(place: int, entry: object) -> None:
    good = (
        isinstance(entry, dict)
        and entry.keys() == _KEYS
        and all(type(entry[key]) is int for key in ("level", "kept", "total"))
        and (0 < entry["level"] <= _MOST if place else entry["level"] == 0)
        and 0 <= entry["kept"] <= entry["total"] <= _MOST
        and isinstance(entry["masks"], str)
        and re.fullmatch("[0-9a-f]{64}", entry["masks"]) is not None
    )
    if not good:
        raise InvalidValue(
            f"entry {place} of the lineage is {entry!r:.120}; expected a level, 0 for the first, with kept, total and "
            f"the fingerprint of its masks. {_NEXT}"
        )


def _check_end(entry: Mapping[str, Any], masks: Masks, whose: str) -> None:
    shown = mask_tools.kept(masks), mask_tools.total(masks), mask_tools.fingerprint(masks)
    if (entry["kept"], entry["total"], entry["masks"]) != shown:
        raise InvalidValue(
            f"level {entry['level']} of the lineage keeps {entry['kept']} of {entry['total']} weights with the "
            f"fingerprint {entry['masks']:.12}..., and {whose} keep {shown[0]} of {shown[1]} with {shown[2]:.12}... "
            f"They must be equal. {_NEXT}"
        )
