"""Every criterion on a network of 23.5 million weights: seconds, and the memory it takes beyond the network.

``python benchmarks/criteria_25m.py --out benchmarks/results/NAME.json``: ResNet-50 for 32x32 images and 10 classes, at
its initial values moved a little, on random images; each criterion makes one mask of 10 % in a process of its own, on
one thread; LeCun's recursion, which is one of chains, on VGG-19. Peak memory is what the kernel says the process held
at most (Linux); the baseline is what it held when the network, its initial values and the examples were there. ``--only
NAME,NAME`` measures some of them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from machine import heading
from torch.nn.functional import cross_entropy

from tombola import models
from tombola.files import write_all
from tombola.prune.allocation import ALLOCATIONS
from tombola.prune.catalogue import CRITERIA as ABOUT
from tombola.prune.evidence import Evidence
from tombola.prune.masks import ones
from tombola.prune.scope import choose
from tombola.types import Seed

MODEL: Final = "resnet-50"
CHAIN: Final = "vgg-19"
"""For LeCun's recursion, which is defined for chains of layers alone; 20 million weights."""

SHAPE: Final = (3, 32, 32)
CLASSES: Final = 10
SECOND_ORDER: Final = ("obd", "obs")
EXAMPLES: Final = {"first": 100, "second": 10}
"""In batches of 10, one of each class."""


def measure(name: str) -> dict[str, Any]:
    """Make one mask by a criterion, in this process."""
    from tombola.prune.criteria import CRITERIA
    from tombola.prune.pruner import one_shot

    torch.set_num_threads(1)
    model = CHAIN if name.startswith("obd-lecun") else MODEL
    build = partial(models.build, model, SHAPE, CLASSES)
    init = models.initial(build, Seed(0))
    module = build()
    rng = torch.Generator().manual_seed(0)
    params = {n: v + 0.1 * v.std(correction=0) * torch.randn(v.shape, generator=rng) for n, v in init.params.items()}
    count = EXAMPLES["second" if name.startswith(SECOND_ORDER) else "first"]
    batches = [(torch.randn(CLASSES, *SHAPE, generator=rng), torch.arange(CLASSES)) for _ in range(count // CLASSES)]
    seen = models.view(module, replace(init, params=params))
    evidence = Evidence(
        theta_0=init.params,
        buffers=seen.buffers,
        kinds=seen.kinds,
        forward=seen.forward,
        forward_training=seen.forward_training,
        uses=seen.uses,
        stages=seen.stages,
        loss=cross_entropy,
        batches=batches,
        example=torch.zeros(1, *SHAPE),
        moved={n: params[n] - init.params[n] for n in params},
        generator=rng,
    )
    prunable = choose(params, models.kinds(module)).prunable
    pruner = replace(
        one_shot("0.1", criterion=CRITERIA[name].score, allocation=ALLOCATIONS[ABOUT[name].allocation or "global"]({})),
        min_keep=1,
    )
    before, began = _peak(), time.perf_counter()
    masks = pruner.prune(1, params, ones(params, prunable), evidence)
    seconds = time.perf_counter() - began
    weights = sum(params[n].numel() for n in prunable)
    return {
        "criterion": name,
        "model": model,
        "weights": weights,
        "examples": count if ABOUT[name].looks and name != "synflow" else 0,
        "kept": sum(int(mask.sum()) for mask in masks.values()),
        "seconds": round(seconds, 2),
        "extra_bytes": _peak() - before,
        "extra_over_weight_bytes": round((_peak() - before) / (4 * weights), 2),
        "peak_bytes": _peak(),
    }


def main() -> None:
    """Measure each criterion in a process of its own; one that fails is reported with its error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(ABOUT))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    load, rows = os.getloadavg(), []
    for name in arguments.only.split(","):
        words = [sys.executable, __file__, "--one", name]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        row = json.loads(done.stdout) if done.returncode == 0 else {"criterion": name, "failed": _last(done.stderr)}
        print(row, flush=True)
        rows.append(row)
        report = {**heading(load), "threads": 1, "criteria": rows}
        if arguments.out:
            write_all({arguments.out: (json.dumps(report, indent=1) + "\n").encode()})


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["killed"])[-1][:300]


if __name__ == "__main__":
    main()
