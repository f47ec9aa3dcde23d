"""The trained sparse network as plain safetensors, for anyone's loader."""

from collections.abc import Mapping
from typing import Any, Final

from tombola.errors import InvalidValue, UnknownName
from tombola.prune import masks as mask_tools
from tombola.ticket import canonical, container
from tombola.types import Masks, Params

NETWORK_KEY: Final = "network"
"""The metadata key of the JSON."""


def encode_network(
    params: Params, masks: Masks, buffers: Params, metadata: Mapping[str, Any], *, tied: Mapping[str, str] | None = None
) -> bytes:
    """Give the safetensors bytes of a trained sparse network, dense with zeros.

    It loads into the network's own class::

        state = safetensors.torch.load_file("network.safetensors")
        network.load_state_dict(state)

    Args:
        params: parameter name -> trained values.
        masks: parameter name -> bool tensor; a pruned entry is written as exactly +0.0.
        buffers: buffer name -> tensor.
        metadata: JSON, kept as one text under the key ``network``.
        tied: further name -> first name, from ``tombola.models.tied_names``; a state dict has both, and safetensors
            no sharing, so the values are written twice.

    Returns:
        The same bytes for the same arguments, in every process.

    Raises:
        ShapeMismatch: a mask without its parameter, or of another shape.
        InvalidValue: a name that is given twice, a dtype that safetensors has no name for, or metadata that are not
            JSON or too long.
        UnknownName: ``tied`` names a parameter that is not there.
    """
    try:
        text = canonical.dumps(dict(metadata))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(f"the metadata are not JSON: {error}. Use dicts, lists, text, finite numbers.") from error
    mask_tools.check(params, masks)
    values = mask_tools.apply(params, {name: mask.to(params[name].device) for name, mask in masks.items()})
    for further, first in (tied or {}).items():
        if first not in values:
            raise UnknownName.among("parameter", first, values)
        values[further] = values[first]
    twice = values.keys() & buffers.keys()
    if twice:
        raise InvalidValue(
            f"{sorted(twice)[0]!r} is both a parameter and a buffer; a state dict has each name once. Give it once."
        )
    return container.write({**values, **buffers}, NETWORK_KEY, text)
