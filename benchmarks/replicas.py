"""What a stack of replicates costs: R networks in one stack against the same networks one after another.

``python benchmarks/replicas.py --pairs 7 --out benchmarks/results/NAME.json``: the two trainers take turns with the
same jobs (masks of density 0.2, Adam, batch 60, an order of their own each), so that a busy moment hits both. The time
is that of the whole call over its iterations, so it has the building, two evaluations and the test in it, as a search
pays them. A row has the median and the least time of an iteration of all R networks, and how many times faster the
stack is: the median of the paired ratios, and the ratio of the least times.
"""

import argparse
import json
import os
import platform
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from machine import processor
from torch import nn

import tombola
from tombola import models
from tombola.data import Split
from tombola.files import write_all
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import Recipe
from tombola.train.replicas import ReplicaTrainer
from tombola.types import Seed, TrainFn, TrainJob

BATCH = 60
DENSITY = 0.2
MODELS = {"64-300-100-10": (64,), "lenet-300-100": (1, 28, 28)}
REPLICAS = (1, 2, 4, 8, 16)


def main() -> None:
    """Time every network at every number of replicates; a partial file is written after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1, help="both trainers use one on the CPU whatever is given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = [round(one, 2) for one in os.getloadavg()]
    rows: list[dict[str, Any]] = []
    for model in MODELS:
        for replicas in REPLICAS:
            rows.append(_one(model, replicas, arguments.pairs, arguments.iterations, arguments.device))
            report = {
                "tombola": tombola.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "processor": processor(arguments.device),
                "cores": os.cpu_count(),
                "threads": arguments.threads,
                "load_average_before": load,
                "load_average_after": [round(one, 2) for one in os.getloadavg()],
                "device": arguments.device,
                "density": DENSITY,
                "pairs": arguments.pairs,
                "iterations": arguments.iterations,
                "rows": rows,
            }
            write_all({arguments.out: (json.dumps(report, indent=1) + "\n").encode()})
            print(rows[-1], flush=True)


def _one(model: str, replicas: int, pairs: int, iterations: int, device: str) -> dict[str, Any]:
    split, build = _data(MODELS[model]), partial(models.build, "lenet-300-100", MODELS[model], 10)
    recipe = Recipe(iterations=iterations, batch_size=BATCH, eval_every=max(1, iterations // 2))
    trainers: dict[str, TrainFn] = {
        "replicas": ReplicaTrainer(build, lambda _: split, recipe, device, at_once=replicas),
        "plain": PlainTrainer(build, lambda _: split, recipe, device),
    }
    jobs = [_job(build, Seed(0, number), iterations) for number in range(replicas)]
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for train in trainers.values():
        train(jobs[:2])
    for number in range(pairs):
        # Each turn starts with another, so that none is always the one after a cold cache.
        for name in list(trainers) if number % 2 else list(trainers)[::-1]:
            began = time.perf_counter()
            trainers[name](jobs)
            times[name].append(1e3 * (time.perf_counter() - began) / iterations)
    paired = zip(times["plain"], times["replicas"], strict=True)
    return {
        "benchmark": "replicas",
        "model": model,
        "rival": "plain",
        "replicas": replicas,
        "batch": BATCH,
        "threads": 1 if device.startswith("cpu") else torch.get_num_threads(),
        "milliseconds": {name: round(statistics.median(found), 4) for name, found in times.items()},
        "milliseconds_fast": {name: round(min(found), 4) for name, found in times.items()},
        "ratio": round(statistics.median(a / b for a, b in paired), 4),
        "ratio_fast": round(min(times["plain"]) / min(times["replicas"]), 4),
    }


def _data(shape: tuple[int, ...]) -> Split:
    # Random labels: a loss that reaches zero makes moments that are denormal numbers, which take ten times as long.
    draw = torch.Generator().manual_seed(0)
    parts = ((torch.rand(n, *shape, generator=draw), torch.randint(10, (n,), generator=draw)) for n in (988, 270, 539))
    return Split(*(tensor for part in parts for tensor in part))


def _job(build: partial[nn.Module], seed: Seed, iterations: int) -> TrainJob:
    start = models.initial(build, seed)
    draw = torch.Generator().manual_seed(seed.replicate)
    masks = {n: torch.rand(v.shape, generator=draw) < DENSITY for n, v in start.params.items() if v.dim() > 1}
    return TrainJob(start, masks, seed, iterations)


if __name__ == "__main__":
    main()
