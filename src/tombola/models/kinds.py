"""What each parameter is, by the module that owns it."""

import re
from collections.abc import Iterator
from typing import Final

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

_NORM_NAME: Final = re.compile(r"Norm(\dd)?$")

_OWNERS: Final[tuple[tuple[str, tuple[type[nn.Module], ...]], ...]] = (
    ("embedding", (nn.Embedding, nn.EmbeddingBag)),
    ("attention", (nn.MultiheadAttention,)),
    ("recurrent", (nn.RNNBase, nn.RNNCellBase)),
    ("conv", (_ConvNd,)),
    ("linear", (nn.Linear, nn.Bilinear)),
    ("norm", (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)),
)
"""Kind -> the modules whose weights are of that kind. A tensor with several owners takes the first kind listed."""

_RANK: Final = {kind: rank for rank, kind in enumerate([kind for kind, _ in _OWNERS] + ["bias", "other"])}


def kinds(module: nn.Module) -> dict[str, str]:
    """Say what each parameter of a network is.

    Args:
        module: any network.

    Returns:
        parameter name -> ``"linear"``, ``"conv"``, ``"attention"``, ``"recurrent"``, ``"norm"``, ``"embedding"``,
        ``"bias"`` or ``"other"``, in the order of ``named_parameters``. The output projection of
        ``nn.MultiheadAttention`` is ``"attention"``; a user's own module counts as a norm when its class name ends in
        ``Norm``; a parameter that a user's own module holds is ``"other"``. A tied parameter appears once, under its
        first name; an embedding tied to a linear layer is ``"embedding"``.

    Example:
        >>> kinds(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
        {'0.weight': 'linear', '0.bias': 'bias', '1.weight': 'norm', '1.bias': 'bias'}
    """
    best: dict[int, str] = {}
    for owner, attribute, parameter, parent in owners(module):
        kind = _kind(owner, attribute, parent)
        before = best.get(id(parameter), "other")
        best[id(parameter)] = min(kind, before, key=_RANK.__getitem__)
    return {name: best[id(parameter)] for name, parameter in module.named_parameters()}


def tied_names(module: nn.Module) -> dict[str, str]:
    """Find the parameters that go by several names.

    Returns:
        further name -> first name, the one under which ``named_parameters`` lists it; empty without tied parameters.
        A state dict has all the names.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> net[1].weight = net[0].weight
        >>> tied_names(net)
        {'1.weight': '0.weight'}
    """
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    every = module.named_parameters(remove_duplicate=False)
    return {name: first[id(parameter)] for name, parameter in every if first[id(parameter)] != name}


def owners(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter, nn.Module | None]]:
    """Walk over every place that holds a parameter, tied ones as often as they are held.

    Yields:
        the module that holds it, the attribute's name there, the parameter, and the module's parent where that is
        ``nn.MultiheadAttention``.
    """
    attention = {id(child): part for part in module.modules() if isinstance(part, nn.MultiheadAttention)
                 for child in part.children()}  # fmt: skip
    for part in module.modules():
        for attribute, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
            yield part, attribute, parameter, attention.get(id(part))


def _kind(owner: nn.Module, attribute: str, parent: nn.Module | None) -> str:
    if "bias" in attribute:
        return "bias"
    for kind, types in _OWNERS:
        if isinstance(parent or owner, types):
            return kind
    return "norm" if _NORM_NAME.search(type(owner).__name__) else "other"
