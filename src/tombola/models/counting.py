"""How many parameters a network has, and how many of them are alive."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tombola.errors import ShapeMismatch, UnknownName
from tombola.types import Masks, Params


class Counts(NamedTuple):
    """How many parameters there are.

    Attributes:
        alive: entries that are not pruned.
        total: entries.
    """

    alive: int
    total: int


def count_params(network: nn.Module | Params, masks: Masks | None = None) -> Counts:
    """Count the parameters of a network and those that are alive; a tied parameter counts once.

    Args:
        network: a module, or its parameters by name.
        masks: parameter name -> bool tensor of the same shape. An entry is alive where its mask says so, and everywhere
            in a tensor without a mask. Without ``masks``, an entry of a tensor of two or more axes is alive when it is
            not zero (or, under ``torch.nn.utils.prune``, when that mask says so), and vectors are alive as a whole:
            biases and norms start at zero and are not pruned.

    Raises:
        UnknownName: a mask for a parameter that is not there.
        ShapeMismatch: a mask's shape differs from its parameter's.

    Example:
        >>> count_params({"w": torch.tensor([[0.0, 2.0]]), "b": torch.zeros(1)})
        Counts(alive=2, total=3)
    """
    params = dict(network.named_parameters()) if isinstance(network, nn.Module) else network
    total = sum(value.numel() for value in params.values())
    if masks is None:
        masks = _torch_masks(network) if isinstance(network, nn.Module) else {}
        zeros = {name: value != 0 for name, value in params.items() if value.dim() > 1}
        masks = {**zeros, **{name: mask for name, mask in masks.items() if name in params}}
    for name, mask in masks.items():
        if name not in params:
            raise UnknownName.among("parameter", name, params)
        if mask.shape != params[name].shape:
            raise ShapeMismatch(
                f"mask {name!r} has shape {tuple(mask.shape)}, its parameter has {tuple(params[name].shape)}. A mask "
                "matches its parameter's shape; build the model that these masks were found on."
            )
    pruned = sum(mask.numel() - int(torch.count_nonzero(mask)) for mask in masks.values())
    return Counts(total - pruned, total)


def _torch_masks(module: nn.Module) -> Mapping[str, Tensor]:
    """Masks of ``torch.nn.utils.prune``, whose parameters are called ``<name>_orig``."""
    found = {}
    for name, buffer in module.named_buffers():
        if name.endswith("_mask"):
            found[f"{name.removesuffix('_mask')}_orig"] = buffer
    return found
