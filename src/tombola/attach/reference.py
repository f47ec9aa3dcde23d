"""The reference: masks inside the graph, nothing attached to anything."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tombola.errors import InvalidValue
from tombola.types import Masks


def masked_call(model: nn.Module, masks: Masks, params: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """Call a module with other parameters, of which the pruned entries count as zero.

    A pure function of ``masks`` and ``params``: it composes with ``torch.func.vmap`` (stacked masks too), ``grad`` and
    ``torch.compile``. The gradient of a pruned entry is zero, and what is stored there, NaN included, has no effect.

    Args:
        model: any module; its own parameters are not used where ``params`` names others, and never changed.
        masks: name -> bool tensor.
        params: name -> tensor, parameters and buffers; tied parameters under their first name.
        args: positional arguments of the model.
        kwargs: keyword arguments of the model.

    Returns:
        What the model returns.

    Raises:
        InvalidValue: a mask belongs to none of ``params``.

    Example:
        >>> net = nn.Linear(2, 1, bias=False)
        >>> keep = {"weight": torch.tensor([[True, False]])}
        >>> masked_call(net, keep, {"weight": torch.tensor([[2.0, torch.nan]])}, torch.ones(1, 2))
        tensor([[2.]])
    """
    unknown = [name for name in masks if name not in params]
    if unknown:
        raise InvalidValue(
            f"masks were given for {', '.join(map(repr, unknown))}, and the parameters are {', '.join(params)}. "
            "Give every masked parameter, under the name that named_parameters has for it."
        )
    effective = {
        name: torch.where(masks[name], value, torch.zeros((), dtype=value.dtype, device=value.device))
        if name in masks
        else value
        for name, value in params.items()
    }
    return functional_call(model, effective, args, kwargs)
