"""Which tensors and which JSON a ticket's file holds.

Tensors: ``mask/<name>``, the mask's packed bits; ``start/<name>``, the surviving values in row-major order of the mask,
or the whole tensor where there is no mask; ``buffer/<name>``. JSON, schema 1::

    {"digest": "...", "schema": 1, "provenance": {...}, "tensors": {
        "start": {name: {"dtype": "float32", "shape": [...], "kept": n or null}}, "buffer": {name: {"dtype", "shape"}}}}

``kept`` is null for a parameter without a mask. The digest is that of ``canonical.digest`` over the tensors and the
canonical JSON without the digest.
"""

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from tombola.prune import masks as mask_tools
from tombola.ticket import canonical
from tombola.types import Masks, Params

SCHEMA: Final = 1
"""The version of the layout above."""

KEY: Final = "ticket"
"""The one metadata key. With several, safetensors writes them in an order that changes from process to process."""


def pack(start: Params, masks: Masks, buffers: Params) -> dict[str, Tensor]:
    """Give the file's tensors.

    Args:
        start: parameter name -> float tensor.
        masks: parameter name -> bool tensor of the same shape.
        buffers: buffer name -> tensor.
    """
    tensors = {f"buffer/{name}": value for name, value in buffers.items()}
    for name, value in start.items():
        if name in masks:
            tensors[f"mask/{name}"] = mask_tools.pack(masks[name])
            tensors[f"start/{name}"] = value[masks[name]]
        else:
            tensors[f"start/{name}"] = value
    return tensors


def describe(start: Params, masks: Masks, buffers: Params) -> dict[str, Any]:
    """Give the JSON part that says what the tensors are; the arguments are those of :func:`pack`."""
    kept = mask_tools.counts(masks)
    return {
        "start": {name: {**_outline(value), "kept": kept.get(name)} for name, value in start.items()},
        "buffer": {name: _outline(value) for name, value in buffers.items()},
    }


def seal(tensors: Mapping[str, Tensor], described: Mapping[str, Any], provenance: Mapping[str, Any]) -> tuple[str, str]:
    """Give the digest, and the file's JSON with the digest in it."""
    body = {"schema": SCHEMA, "tensors": described, "provenance": provenance}
    digest = canonical.digest(tensors, canonical.dumps(body))
    return digest, canonical.dumps({**body, "digest": digest})


def _outline(value: Tensor) -> dict[str, Any]:
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
