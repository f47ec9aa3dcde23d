"""What the processor allows: operations over its peak, bytes over its bandwidth, both measured."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np

from tombola.sparse.kernels.library import kernels

_FLOAT: Final = 4
_MEASUREMENTS: Final = 500
_MULTIPLY_ADDS: Final = 10_000


@final
@dataclass(frozen=True)
class Machine:
    """One thread of the processor.

    Attributes:
        peak: operations a second, of multiply-adds in registers at the level of the kernels.
        bandwidth: bytes a second, read and written, of a copy.
    """

    peak: float
    bandwidth: float

    def iteration(self, kept: Sequence[int], batch: int, features: int) -> float:
        """Give the least seconds of a training iteration with Adam.

        Two operations for each surviving weight and example forward, for the gradient of the weights and (but in the
        first layer) for that of the inputs; the optimiser's seven passes over the survivors (it reads a gradient, and
        reads and writes a weight and two moments), and the batch.

        Args:
            kept: surviving weights of each linear layer, in order.
            batch: examples.
            features: of one example.
        """
        operations = sum(2 * batch * count * (2 if number == 0 else 3) for number, count in enumerate(kept))
        moved = _FLOAT * (7 * sum(kept) + batch * features)
        return max(operations / self.peak, moved / self.bandwidth)

    def evaluation(self, kept: Sequence[int], examples: int, features: int) -> float:
        """Give the least seconds of an evaluation: one forward pass, and the examples."""
        return max(2 * examples * sum(kept) / self.peak, _FLOAT * examples * features / self.bandwidth)

    def as_json(self) -> dict[str, Any]:
        """Give both in their usual units."""
        return {
            "peak_gflops": round(self.peak / 1e9, 1),
            "copy_gigabytes_a_second": round(self.bandwidth / 1e9, 1),
        }


def measured(weights: int) -> Machine:
    """Measure one thread.

    Args:
        weights: of the network: the copy is as large as weights and moments, so that it runs from the cache that they
            are in.
    """
    source, target = np.ones(3 * weights, np.float32), np.ones(3 * weights, np.float32)
    copies, products, level = [], [], kernels()
    # Short ones and many, for a machine is seldom quiet for long.
    for _ in range(_MEASUREMENTS):
        began = time.perf_counter()
        np.copyto(target, source)
        copies.append(time.perf_counter() - began)
        began = time.perf_counter()
        operations = level.peak(_MULTIPLY_ADDS)
        products.append((time.perf_counter() - began) / operations)
    return Machine(1 / min(products), 2 * source.nbytes / min(copies))
