"""What a search of a user's own loop keeps for its analysis: initial and trained weights, and the masks at the gates.

A search with our own trainers keeps nothing: every run is in its store.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from tombola.analysis.family import Observed
from tombola.errors import InvalidResults, TombolaError
from tombola.prune.masks import pack, unpack
from tombola.ticket import container

FILE: Final = "networks.safetensors"
SCHEMA: Final = 1
RUNS: Final = 2
"""Dense runs of a family that are kept: two tell what another data order changes."""

_KEY: Final = "tombola-networks"


def encode(families: Mapping[int, Observed]) -> bytes:
    """Give the safetensors bytes of what was observed."""
    tensors: dict[str, Tensor] = {}
    about: dict[str, Any] = {"schema": SCHEMA, "families": []}
    for r, one in sorted(families.items()):
        parts = {"theta_0": one.theta_0, **{f"end {k}": end for k, end in enumerate(one.ends)}}
        tensors |= {f"{r}/{part}/{name}": value for part, of in parts.items() for name, value in of.items()}
        for level, masks in one.masks.items():
            tensors |= {f"{r}/mask {level}/{name}": pack(mask.cpu()) for name, mask in masks.items()}
        about["families"].append({
            "replicate": r,
            "names": list(one.theta_0),
            "prunable": list(one.prunable),
            "ends": len(one.ends),
            "levels": sorted(one.masks),
        })  # fmt: skip
    return container.write(tensors, _KEY, json.dumps(about))


def decode(data: bytes, where: str) -> dict[int, Observed]:
    """Undo :func:`encode`.

    Raises:
        InvalidResults: not such bytes.
    """
    try:
        length = container.header_size(data[:8], len(data), where)
        metadata, _ = container.read_header(data[8 : 8 + length], len(data) - 8 - length, where)
        about = json.loads(metadata[_KEY])
        if about["schema"] != SCHEMA:
            raise ValueError(f"its schema is {about['schema']!r:.20}, and this version reads {SCHEMA}")
        tensors = container.read_tensors(data, where)
        return {one["replicate"]: _family(one, tensors) for one in about["families"]}
    except (TombolaError, ValueError, KeyError, TypeError, RecursionError, RuntimeError) as error:
        raise InvalidResults(
            f"{where} does not hold the networks of a search ({error}). Save the finding again: Finding.save(folder)."
        ) from error


def _family(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Observed:
    r, names, prunable = about["replicate"], about["names"], about["prunable"]
    theta_0 = {name: tensors[f"{r}/theta_0/{name}"] for name in names}
    return Observed(
        replicate=r,
        theta_0=theta_0,
        ends=tuple({name: tensors[f"{r}/end {k}/{name}"] for name in names} for k in range(about["ends"])),
        prunable=tuple(prunable),
        masks={
            level: {n: unpack(tensors[f"{r}/mask {level}/{n}"], tuple(theta_0[n].shape)) for n in prunable}
            for level in about["levels"]
        },
    )
