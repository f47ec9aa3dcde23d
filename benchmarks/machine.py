"""What a result was measured on: the first lines of every file that a script here writes."""

import os
import platform
from collections.abc import Sequence
from typing import Any

import torch

import tombola
from tombola.bench.report import processor, rounded

__all__ = ["heading", "processor"]


def heading(load: Sequence[float] | None = None, device: str = "cpu") -> dict[str, Any]:
    """Give versions, processor and cores.

    Args:
        load: the load averages before, where speed is what was measured; those of now are given beside them.
        device: ``cpu`` or ``cuda[:n]``.
    """
    averages = {} if load is None else {"before": rounded(load), "after": rounded(os.getloadavg())}
    return {
        "tombola": tombola.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor(device),
        "cores": os.cpu_count(),
        **{f"load_average_{when}": values for when, values in averages.items()},
    }
