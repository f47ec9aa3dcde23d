"""What masks cost a training step: attached masks against none, and against the stock tool.

``python benchmarks/mask_overhead.py --pairs 200 --out benchmarks/results/NAME.json``: masked and unmasked steps of two
equal networks take turns, so that a busy moment hits both; medians of the step times and of the paired ratios. The
acceptance bound (A49) is a ratio of 1.10.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import processor
from torch import Tensor, nn
from torch.nn.utils import prune

import tombola
from tombola.attach import attach
from tombola.files import write_all

DENSITY = 0.2


def lenet() -> tuple[nn.Module, Tensor]:
    """LeNet-300-100, batch 60: overhead of the interpreter."""
    net = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    return net, torch.randn(60, 784)


def wide() -> tuple[nn.Module, Tensor]:
    """Three layers of 1000, batch 64: few operations per weight, the worst case."""
    net = nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(1000, 1000), nn.ReLU())), nn.Linear(1000, 10))
    return net, torch.randn(64, 1000)


def conv() -> tuple[nn.Module, Tensor]:
    """A small convolutional network, batch 60."""
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 10))  # fmt: skip
    return net, torch.randn(60, 3, 32, 32)


NETWORKS = {"lenet": lenet, "wide": wide, "conv": conv}
RULES: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9),
    "adam": lambda params: torch.optim.Adam(params, lr=1e-3),
    "adam fused": lambda params: torch.optim.Adam(params, lr=1e-3, fused=True),
}


def main() -> None:
    """Time every network under every rule; a partial file is written after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, Any]] = []
    for network in NETWORKS:
        for rule in RULES:
            rows.append(_one(network, rule, arguments.pairs, arguments.device))
            report = {
                "tombola": tombola.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "processor": processor(arguments.device),
                "cores": os.cpu_count(),
                "threads": arguments.threads,
                "device": arguments.device,
                "density": DENSITY,
                "pairs": arguments.pairs,
                "rows": rows,
            }
            write_all({arguments.out: (json.dumps(report, indent=1) + "\n").encode()})
            print(rows[-1], flush=True)


def _one(network: str, rule: str, pairs: int, device: str) -> dict[str, Any]:
    steps = {}
    for way in ("none", "attached", "stock"):
        torch.manual_seed(0)
        model, x = NETWORKS[network]()
        model, x = model.to(device), x.to(device)
        masks = {n: torch.rand_like(p) < DENSITY for n, p in model.named_parameters() if p.dim() > 1}
        if way == "attached":
            attach(model, masks)
        elif way == "stock":
            for name, mask in masks.items():
                prune.custom_from_mask(model.get_submodule(name.rpartition(".")[0]), "weight", mask)
        steps[way] = _step(model, RULES[rule](model.parameters()), x)
    times: dict[str, list[float]] = {way: [] for way in steps}
    for _ in range(5):
        for step in steps.values():
            step()
    for number in range(pairs):
        # Each turn starts with another, so that none is always the one after a cold cache.
        ways = list(steps) if number % 2 else list(steps)[::-1]
        for way in ways:
            times[way].append(_timed(steps[way], device))
    median = {way: statistics.median(seconds) for way, seconds in times.items()}
    ratios = {
        way: statistics.median(a / b for a, b in zip(times[way], times["none"], strict=True))
        for way in ("attached", "stock")
    }
    return {
        "network": network,
        "optimizer": rule,
        "milliseconds": {way: round(1e3 * value, 4) for way, value in median.items()},
        "ratio": {way: round(value, 4) for way, value in ratios.items()},
    }


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Callable[[], None]:
    # Random labels: a loss that reaches zero makes moments that are denormal numbers, which take ten times as long.
    target = torch.randint(10, (len(x),), device=x.device)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()
        optimizer.step()

    return step


def _timed(step: Callable[[], None], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
