"""Densities: where in the network the survivors are."""

from dataclasses import dataclass
from typing import final

from tombola.prune.masks import kept, per_layer, total
from tombola.types import Masks


@final
@dataclass(frozen=True)
class LayerDensity:
    """How much of one tensor a mask keeps.

    Attributes:
        kept: weights kept.
        size: weights there are.
        density: the fraction kept; 1 for an empty tensor.
        share: the fraction of all survivors that are here; 0 where nothing survives.
        relative: the tensor's density over that of the whole mask, above 1 where the mask spares the tensor; ``None``
            where nothing survives.
    """

    kept: int
    size: int
    density: float
    share: float
    relative: float | None


def densities(masks: Masks) -> dict[str, LayerDensity]:
    """Say how much of each tensor a mask keeps.

    Args:
        masks: name -> bool tensor.

    Returns:
        name -> its density, in the masks' order.

    Example:
        >>> import torch
        >>> densities({"a": torch.tensor([True, False]), "b": torch.tensor([True, True])})["a"].density
        0.5
    """
    whole, alive = total(masks), kept(masks)
    found = {}
    for name, (count, size) in per_layer(masks).items():
        density = count / size if size else 1.0
        relative = density * whole / alive if alive else None
        found[name] = LayerDensity(count, size, density, count / alive if alive else 0.0, relative)
    return found
