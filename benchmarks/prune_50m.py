"""Prune 50 million weights by one global ranking: seconds, and the memory it takes beyond the model.

``python benchmarks/prune_50m.py --out benchmarks/results/NAME.json``: a transformer's weight matrices, two rounds of
magnitude pruning through ``Pruner``, ties broken by a generator as in a search. Peak memory is what the kernel says the
process held at most (Linux); the baseline is what it held when the model was there, so what is counted is scores, masks
and everything in between. The bound is three times the weights' bytes and, here, a minute.

``--elements N --dtype bfloat16`` prunes one vector of N weights instead: 2147483659 is the first prime above 2^31, and
takes 14 GB.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import Any, Final

import torch
from machine import heading
from torch import nn

from tombola.files import write_all
from tombola.models import kinds
from tombola.prune.allocation import Global
from tombola.prune.evidence import Evidence
from tombola.prune.masks import ones
from tombola.prune.pruner import imp
from tombola.prune.scope import choose

PART: Final = 1 << 22


class Vector(nn.Module):
    """One parameter of any number of entries, drawn from the normal distribution."""

    def __init__(self, elements: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(elements, dtype=dtype))
        for part in self.weight.detach().split(PART):
            part.copy_(torch.randn(part.numel()))


def transformer() -> nn.Module:
    """Sixteen encoder layers of width 512: 50.3 million weights in 64 matrices."""
    layer = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
    return nn.TransformerEncoder(layer, 16, enable_nested_tensor=False)


def main() -> None:
    """Prune, measure, then check the masks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--elements", type=int, help="one vector of so many weights")
    parser.add_argument("--dtype", default="float32", help="of that vector")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = os.getloadavg()
    torch.manual_seed(0)
    dtype = getattr(torch, arguments.dtype)
    model = Vector(arguments.elements, dtype) if arguments.elements else transformer().to(dtype)
    params = {name: value.detach() for name, value in model.named_parameters()}
    names = ("weight",) if arguments.elements else choose(params, kinds(model)).prunable
    report: dict[str, Any] = {
        "threads": arguments.threads,
        "model": type(model).__name__,
        "tensors": len(names),
        "weights": sum(params[name].numel() for name in names),
        "dtype": str(dtype),
        "weight_bytes": sum(params[name].nbytes for name in names),
    }
    before = _resident()
    report["rounds"] = _prune(params, names, arguments.rounds)
    report["peak_resident_bytes"] = _peak()
    report["peak_extra_bytes"] = _peak() - before
    report["peak_extra_over_weight_bytes"] = round((_peak() - before) / report["weight_bytes"], 3)
    report = {**heading(load), **report}
    write_all({arguments.out: (json.dumps(report, indent=1) + "\n").encode()})
    print(json.dumps(report, indent=1))


def _prune(params: dict[str, torch.Tensor], names: tuple[str, ...], rounds: int) -> list[dict[str, Any]]:
    pruner = imp("0.2", allocation=Global())
    masks = ones(params, names)
    alive = sum(params[name].numel() for name in names)
    rows = []
    for level in range(1, rounds + 1):
        began = time.perf_counter()
        found = pruner.prune(level, params, masks, Evidence(generator=torch.Generator().manual_seed(level)))
        seconds = time.perf_counter() - began
        asked = alive - (2 * alive + 5) // 10
        alive = sum(int(torch.count_nonzero(mask)) for mask in found.values())
        rows.append({
            "seconds": round(seconds, 2),
            "asked": asked,
            "kept": alive,
            "kept_exactly": alive == asked,
            "largest_are_kept": _ranked(params, masks, found),
        })  # fmt: skip
        masks = found
    return rows


def _ranked(params: dict[str, torch.Tensor], before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    """Whether no weight that went is larger than one that stayed; in parts, so that the check adds no memory."""
    least_kept, largest_gone = torch.inf, -torch.inf
    for name, mask in after.items():
        flat = (params[name].reshape(-1), before[name].reshape(-1), mask.reshape(-1))
        for value, was, stays in zip(*(tensor.split(PART) for tensor in flat), strict=True):
            size = value.abs()
            least_kept = min(least_kept, float(size.masked_fill(~stays, torch.inf).min()))
            largest_gone = max(largest_gone, float(size.masked_fill(stays | ~was, -torch.inf).max()))
    return largest_gone <= least_kept


def _resident() -> int:
    """Bytes this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    """Bytes this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
