"""What a training iteration costs at each density: the sparse engine against eager and compiled PyTorch.

``python benchmarks/iteration.py --out benchmarks/results/NAME.json``: the same network, data and Adam for all. They
take turns, a few iterations each, so that a busy moment hits all of them; each turn begins with an iteration that is
not timed. For each the median and the least time of an iteration, the median of the paired ratios to ours and the ratio
of the least times. An iteration takes its batch out of the data set, as a training loop does.

The rivals: ``eager`` is the plain trainer's loop (fused Adam, masks on the gradients); ``compiled`` the same with
``torch.compile`` of the module (``--compile``; it needs a C++ compiler at run time). PyTorch does the dense work at
every density. ``floor`` is the larger of operations over the processor's peak and bytes over its bandwidth, both
measured here, in this run: two operations for each surviving weight and example forward, backward and (but in the first
layer) for the gradient of the inputs; the optimiser's seven passes over the survivors, and the batch.

``--crossover`` times one layer on the row and on the dense kernels instead, at densities between.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from machine import processor
from torch import Tensor, nn
from torch.nn import functional

import tombola
from tombola.files import write_all
from tombola.sparse import Rule, SparseNetwork, layers, read_chain
from tombola.sparse.kernels.library import kernels

MODELS: Final[dict[str, tuple[tuple[int, ...], int]]] = {
    "lenet-300-100": ((784, 300, 100, 10), 60),
    "mlp-3072-1024-1024-10": ((3072, 1024, 1024, 10), 128),
}
DENSITIES: Final = (1.0, 0.5, 0.2, 0.1, 0.036, 0.012)
EXAMPLES: Final = 20_000
LR: Final = 1e-4


def network(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between."""
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def random_masks(model: nn.Module, density: float) -> dict[str, Tensor]:
    """Masks of one density in every layer; the output layer is left at ten times it, as tickets have it."""
    weights = [(name, p) for name, p in model.named_parameters() if p.dim() > 1]
    last = weights[-1][0]
    return {n: torch.rand_like(p) < (min(1.0, 10 * density) if n == last else density) for n, p in weights}


class Ours:
    """The sparse engine, one block of iterations a turn."""

    def __init__(self, model: nn.Module, masks: dict[str, Tensor], x: Tensor, y: Tensor, batch: int) -> None:
        params = {name: p.detach() * masks.get(name, torch.tensor(1.0)) for name, p in model.named_parameters()}
        self.network = SparseNetwork(read_chain(model, x), params, masks, Rule("adam"), batch_size=batch)
        self.data = x, y

    def __call__(self, order: Tensor) -> None:
        """Train on these batches."""
        self.network.train(*self.data, order, [LR] * len(order))


class Torch:
    """The plain trainer's loop, eager or compiled."""

    def __init__(self, model: nn.Module, masks: dict[str, Tensor], x: Tensor, y: Tensor, compiled: bool) -> None:
        self.x, self.y = x, y
        params = dict(model.named_parameters())
        self.masked = [params[name] for name in masks]
        self.factors = [mask.float() for mask in masks.values()]
        with torch.no_grad():
            for p, factor in zip(self.masked, self.factors, strict=True):
                p.mul_(factor)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
        self.forward: Callable[[Tensor], Tensor] = torch.compile(model) if compiled else model

    def __call__(self, order: Tensor) -> None:
        """Train on these batches."""
        for batch in order:
            x, y = self.x.index_select(0, batch), self.y.index_select(0, batch)
            loss = functional.cross_entropy(self.forward(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            if self.masked:
                torch._foreach_mul_([p.grad for p in self.masked if p.grad is not None], self.factors)
            self.optimizer.step()


def measure(
    name: str, density: float, *, turns: int, compiled: bool, peak: float, bandwidth: float
) -> Iterator[dict[str, Any]]:
    """Time one network at one density."""
    widths, batch = MODELS[name]
    torch.manual_seed(0)
    x, y = torch.randn(EXAMPLES, widths[0]), torch.randint(widths[-1], (EXAMPLES,))
    masks = random_masks(network(widths), density) if density < 1 else {}
    ways: dict[str, Callable[[Tensor], None]] = {
        "ours": Ours(network(widths), masks, x, y, batch),
        "eager": Torch(network(widths), masks, x, y, False),
    }
    if compiled:
        ways["compiled"] = Torch(network(widths), masks, x, y, True)
    long = widths[0] > 1000
    turn = {"ours": 3 if long else 20, "eager": 1 if long else 5, "compiled": 1 if long else 5}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(turns + 2):
        for way in list(ways) if number % 2 else list(ways)[::-1]:
            order = torch.randint(EXAMPLES, (turn[way] + 1, batch))
            ways[way](order[:1])
            began = time.perf_counter()
            ways[way](order[1:])
            if number > 1:
                times[way].append((time.perf_counter() - began) / turn[way])
    floor = floor_seconds(widths, batch, masks, peak, bandwidth)
    for way, seconds in times.items():
        pairs = [theirs / ours for theirs, ours in zip(seconds, times["ours"], strict=True)]
        yield {
            "model": name,
            "rival": way,
            "density": density,
            "batch": batch,
            "threads": 1,
            "turns": turns,
            "milliseconds": round(1e3 * statistics.median(seconds), 4),
            "least_milliseconds": round(1e3 * min(seconds), 4),
            "ratio": round(statistics.median(pairs), 2),
            "ratio_of_least": round(min(seconds) / min(times["ours"]), 2),
            "floor_milliseconds": round(1e3 * floor, 4),
        }


def floor_seconds(
    widths: tuple[int, ...], batch: int, masks: dict[str, Tensor], peak: float, bandwidth: float
) -> float:
    """Give the least time that operations and bytes allow."""
    shapes = list(pairwise(widths))
    kept = [int(m.sum()) for m in masks.values()] if masks else [a * b for a, b in shapes]
    operations = sum(2 * batch * count * (2 if number == 0 else 3) for number, count in enumerate(kept))
    moved = 4 * (7 * sum(kept) + batch * widths[0])
    return max(operations / peak, moved / bandwidth)


def peak_and_bandwidth(widths: tuple[int, ...]) -> tuple[float, float]:
    """Measure what one thread does: multiply-adds in registers (operations a second), and a copy (bytes a second).

    The copy is as large as the optimiser's state of this network, so that it runs from the cache that the state is in.
    """
    size = 3 * sum(a * b for a, b in pairwise(widths))
    source, target = np.ones(size, np.float32), np.ones(size, np.float32)
    copies, products, level = [], [], kernels()
    # Short ones and many, for the machine is seldom quiet for long.
    for _ in range(500):
        began = time.perf_counter()
        np.copyto(target, source)
        copies.append(time.perf_counter() - began)
        began = time.perf_counter()
        operations = level.peak(10_000)
        products.append((time.perf_counter() - began) / operations)
    return 1 / min(products), 2 * source.nbytes / min(copies)


def crossover() -> Iterator[dict[str, Any]]:
    """Time iterations with every layer on the row kernels, and with every layer on the dense ones."""
    for name, (widths, batch) in MODELS.items():
        x, y = torch.randn(EXAMPLES, widths[0]), torch.randint(widths[-1], (EXAMPLES,))
        for density in (0.4, 0.5, 0.6, 0.7, 0.8):
            masks = random_masks(network(widths), density)
            ways = {}
            for way, threshold in (("rows", 2.0), ("dense", 0.0)):
                layers.DENSE_FROM = threshold  # type: ignore[misc]
                ways[way] = Ours(network(widths), masks, x, y, batch)
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(20):
                for way, run in ways.items():
                    order = torch.randint(EXAMPLES, (4, batch))
                    run(order[:1])
                    began = time.perf_counter()
                    run(order[1:])
                    times[way].append((time.perf_counter() - began) / 3)
            least = {way: round(1e3 * min(seconds), 4) for way, seconds in times.items()}
            yield {"model": name, "density": density, "least_milliseconds": least}


def main() -> None:
    """Time everything; a partial file is written after each density."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--densities", nargs="+", type=float, default=list(DENSITIES))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--crossover", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load = [round(one, 2) for one in os.getloadavg()]
    rows: list[dict[str, Any]] = []
    machine: dict[str, Any] = {}
    if arguments.crossover:
        for row in crossover():
            print(row, flush=True)
        return
    for name in arguments.models:
        peak, bandwidth = peak_and_bandwidth(MODELS[name][0])
        machine[name] = {"peak_gflops": round(peak / 1e9, 1), "copy_gigabytes_a_second": round(bandwidth / 1e9, 1)}
        print(machine[name], flush=True)
        for density in arguments.densities:
            for row in measure(
                name, density, turns=arguments.turns, compiled=arguments.compile, peak=peak, bandwidth=bandwidth
            ):
                rows.append(row)
                print(row, flush=True)
            report = {
                "tombola": tombola.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "processor": processor(),
                "cores": os.cpu_count(),
                "kernels": kernels().level,
                "load_average_before": load,
                "load_average_after": [round(one, 2) for one in os.getloadavg()],
                "machine": machine,
                "rows": rows,
            }
            if arguments.out:
                write_all({arguments.out: (json.dumps(report, indent=1) + "\n").encode()})


if __name__ == "__main__":
    main()
