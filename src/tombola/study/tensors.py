"""Snapshots as bytes: what a mask prunes takes no room."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tombola.errors import CorruptStore, TombolaError
from tombola.prune.masks import pack, unpack
from tombola.ticket import canonical, container
from tombola.types import Masks, Snapshot

_KEY = "snapshots"


def write(snapshots: Mapping[str, Snapshot], masks: Masks) -> bytes:
    """Give the safetensors bytes of named snapshots of one network; every bit of every tensor comes back.

    Args:
        snapshots: name -> snapshot; the parameters may be empty.
        masks: where they are zero; packed once for all. An entry that the mask prunes and that is not +0 is kept by
            keeping its tensor whole.
    """
    tensors: dict[str, Tensor] = {f"mask/{name}": pack(mask.cpu()) for name, mask in masks.items()}
    about: dict[str, Any] = {"masks": {name: list(mask.shape) for name, mask in masks.items()}, "snapshots": {}}
    for label, one in snapshots.items():
        fields = {"params": one.params, "buffers": one.buffers}
        slots = {f"{name}/{slot}": value for name, of in (one.optimizer or {}).items() for slot, value in of.items()}
        # Lists, for the order of names is part of a snapshot and canonical JSON sorts its keys.
        about["snapshots"][label] = {
            "step": one.step,
            "params": list(one.params),
            "buffers": list(one.buffers),
            "optimizer": None if one.optimizer is None else [[name, list(of)] for name, of in one.optimizer.items()],
            "cut": [],
        }
        for kind, values in {**fields, "optimizer": slots}.items():
            for name, value in values.items():
                mask = masks.get(name if kind == "params" else name.rpartition("/")[0])
                at = f"{label}/{kind}/{name}"
                held = value.detach().cpu()
                if kind != "buffers" and mask is not None and _zero_outside(held, mask.cpu()):
                    about["snapshots"][label]["cut"].append(f"{kind}/{name}")
                    held = held[mask.cpu()]
                tensors[at] = held
    return container.write(tensors, _KEY, canonical.dumps(about))


def read(data: bytes, where: str) -> dict[str, Snapshot]:
    """Undo :func:`write`.

    Raises:
        CorruptStore: not such bytes.
    """
    try:
        length = container.header_size(data[:8], len(data), where)
        metadata, _ = container.read_header(data[8 : 8 + length], len(data) - 8 - length, where)
        about = canonical.loads(metadata[_KEY])
        tensors = container.read_tensors(data, where)
        masks = {name: unpack(tensors[f"mask/{name}"], tuple(shape)) for name, shape in about["masks"].items()}
        return {label: _snapshot(label, one, tensors, masks) for label, one in about["snapshots"].items()}
    except (TombolaError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise CorruptStore(f"{where} does not hold the snapshots of a network ({error}). It is redone.") from error


def _snapshot(label: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor], masks: Masks) -> Snapshot:
    cut = set(about["cut"])

    def of(kind: str, name: str, owner: str) -> Tensor:
        value = tensors[f"{label}/{kind}/{name}"]
        if f"{kind}/{name}" not in cut:
            return value
        return torch.zeros(masks[owner].shape, dtype=value.dtype).masked_scatter_(masks[owner], value)

    return Snapshot(
        step=about["step"],
        params={name: of("params", name, name) for name in about["params"]},
        buffers={name: of("buffers", name, name) for name in about["buffers"]},
        optimizer=None
        if about["optimizer"] is None
        else {
            name: {slot: of("optimizer", f"{name}/{slot}", name) for slot in slots}
            for name, slots in about["optimizer"]
        },
    )


def _zero_outside(value: Tensor, mask: Tensor) -> bool:
    """Whether everything that the mask prunes is +0, so that it need not be kept."""
    if value.shape != mask.shape:
        return False
    pruned = value[~mask]
    return not bool(pruned.any() or torch.signbit(pruned).any())
