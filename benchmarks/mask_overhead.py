"""What masks cost a training step: attached masks against none, against a product by hand, and against the stock tool.

``python benchmarks/mask_overhead.py --pairs 60 --out benchmarks/results/NAME.json``: equal networks take turns of ten
steps, so that a busy moment hits all of them; the first step of a turn, which finds the caches full of another
network, is not timed. For each way the median time of a step, the median of the paired ratios to the unmasked step, and
the ratio of the fast ends (the 5th percentiles), which other work on the machine distorts least. The bound is
a ratio of 1.10.

``by hand`` multiplies the gradients by the masks after the backward pass and does nothing else: the floor of what holds
a mask, with no protection of the weights and no hook. Attached masks add a pass over the weights before the forward
pass, which is what makes NaN in a pruned entry harmless.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import heading
from torch import Tensor, nn
from torch.nn.utils import prune

from tombola.attach import attach
from tombola.files import write_all

DENSITY = 0.2
TURN = 10


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
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = os.getloadavg()
    rows: list[dict[str, Any]] = []
    for network in NETWORKS:
        for rule in RULES:
            rows.append(_one(network, rule, arguments.pairs, arguments.device))
            report = {
                **heading(load, arguments.device),
                "threads": arguments.threads,
                "device": arguments.device,
                "density": DENSITY,
                "pairs": arguments.pairs,
                "steps_a_turn": TURN,
                "rows": rows,
            }
            write_all({arguments.out: (json.dumps(report, indent=1) + "\n").encode()})
            print(rows[-1], flush=True)


def _one(network: str, rule: str, pairs: int, device: str) -> dict[str, Any]:
    steps = {}
    for way in ("none", "by hand", "attached", "stock"):
        torch.manual_seed(0)
        model, x = NETWORKS[network]()
        model, x = model.to(device), x.to(device)
        masks = {n: torch.rand_like(p) < DENSITY for n, p in model.named_parameters() if p.dim() > 1}
        held: list[tuple[nn.Parameter, Tensor]] = []
        if way == "attached":
            attach(model, masks)
        elif way == "by hand":
            held = [(model.get_parameter(name), mask.float()) for name, mask in masks.items()]
            for param, mask in held:
                param.data.mul_(mask)
        elif way == "stock":
            for name, mask in masks.items():
                prune.custom_from_mask(model.get_submodule(name.rpartition(".")[0]), "weight", mask)
        steps[way] = _step(model, RULES[rule](model.parameters()), x, held)
    times: dict[str, list[float]] = {way: [] for way in steps}
    for _ in range(5):
        for step in steps.values():
            step()
    for number in range(pairs):
        # Each turn starts with another, so that none is always the one after a cold cache.
        ways = list(steps) if number % 2 else list(steps)[::-1]
        for way in ways:
            times[way].append(_timed(steps[way], device))
    masked = [way for way in steps if way != "none"]
    fast = {way: statistics.quantiles(seconds, n=20)[0] for way, seconds in times.items()}
    ratios = {way: statistics.median(a / b for a, b in zip(times[way], times["none"], strict=True)) for way in masked}
    return {
        "network": network,
        "optimizer": rule,
        "milliseconds": {way: round(1e3 * statistics.median(seconds), 4) for way, seconds in times.items()},
        "milliseconds_fast": {way: round(1e3 * seconds, 4) for way, seconds in fast.items()},
        "ratio": {way: round(value, 4) for way, value in ratios.items()},
        "ratio_fast": {way: round(fast[way] / fast["none"], 4) for way in masked},
    }


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, held: list[tuple[nn.Parameter, Tensor]]
) -> Callable[[], None]:
    # Random labels: a loss that reaches zero makes moments that are denormal numbers, which take ten times as long.
    target = torch.randint(10, (len(x),), device=x.device)

    factors = tuple(mask for _, mask in held)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()
        if held:
            torch._foreach_mul_([param.grad for param, _ in held if param.grad is not None], factors)
        optimizer.step()

    return step


def _timed(step: Callable[[], None], device: str) -> float:
    """Give the mean time of the steps of one turn."""
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(TURN):
        step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / TURN


if __name__ == "__main__":
    main()
