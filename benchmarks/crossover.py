"""From which density a layer is faster on the dense kernels: iterations with every layer on one kind or the other.

``python benchmarks/crossover.py --turns 20``: prints, for each network and density, the least milliseconds of an
iteration with all layers on the row kernels and with all on the dense ones. ``tombola.sparse.layers.DENSE_FROM`` rests
on it.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch

from tombola.bench.iteration import timed
from tombola.bench.loop import Ours
from tombola.bench.turns import alternate
from tombola.bench.workload import workload
from tombola.sparse import layers

MODELS: Final = ("lenet-300-100", "mlp-3072-1024-1024-10")
DENSITIES: Final = (0.4, 0.5, 0.6, 0.7, 0.8)
THRESHOLDS: Final = {"rows": 2.0, "dense": 0.0}
LENGTH: Final = 3


def main() -> None:
    """Time both kinds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for row in crossover(arguments.turns):
        print(row, flush=True)


def crossover(turns: int) -> Iterator[dict[str, Any]]:
    """Give a row for each network and density; masks of one density in every layer."""
    for name in MODELS:
        work = workload(name)
        start = work.start()
        for density in DENSITIES:
            masks = {n: torch.rand(start.params[n].shape) < density for n in work.weights(start)}
            ways: dict[str, Callable[[], float]] = {}
            for kind, threshold in THRESHOLDS.items():
                layers.DENSE_FROM = threshold  # type: ignore[misc]
                ways[kind] = timed(Ours(work, masks), work, LENGTH)
            least = {kind: round(1e3 * min(seconds), 4) for kind, seconds in alternate(ways, turns).items()}
            yield {"model": name, "density": density, "least_milliseconds": least}


if __name__ == "__main__":
    main()
