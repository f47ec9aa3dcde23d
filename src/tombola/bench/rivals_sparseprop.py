"""SparseProp's sparse linear layers: Nikdan et al. (2023), "SparseProp: Efficient Sparse Backpropagation"."""

import importlib
from importlib.util import find_spec
from typing import Final

from tombola.bench.loop import Masks, TorchLoop, factors, linear_layers, started
from tombola.bench.workload import Workload

SPARSE_BELOW: Final = 0.2
"""The density below which SparseProp's own ``swap_modules_with_sparse`` considers its layers."""


def why_not() -> str | None:
    """Say why it does not run here."""
    if find_spec("sparseprop") is None:
        return (
            "SparseProp is not installed: pip install pybind11 setuptools, then "
            "pip install --no-build-isolation --no-deps sparseprop"
        )
    return None


def why_not_at(work: Workload, masks: Masks) -> str | None:
    """Say why it has nothing to do at a density."""
    return None if _sparse(work, masks) else "no hidden layer is more than 80 % sparse, below which it swaps none"


def loop(work: Workload, masks: Masks) -> TorchLoop:
    """Make the loop: its layers where a hidden layer is sparse enough, the plain loop's for the rest."""
    network = started(work, masks)
    kind = importlib.import_module("sparseprop.modules").SparseLinear
    swapped = _sparse(work, masks)
    for name, layer in linear_layers(network):
        if name in swapped:
            setattr(network, name, kind.from_dense(layer))
    rest = {name: mask for name, mask in masks.items() if name.rpartition(".")[0] not in swapped}
    return TorchLoop(work, network, held=factors(network, rest))


def _sparse(work: Workload, masks: Masks) -> list[str]:
    hidden = [name for name, _ in linear_layers(work.build())][:-1]
    density = {name: float(masks[f"{name}.weight"].float().mean()) for name in hidden if f"{name}.weight" in masks}
    return [name for name, value in density.items() if value < SPARSE_BELOW]
