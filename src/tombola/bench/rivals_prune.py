"""PyTorch's own masks: ``torch.nn.utils.prune`` multiplies weight and mask before every forward pass."""

from torch.nn.utils import prune

from tombola.bench.loop import Masks, TorchLoop, started
from tombola.bench.workload import Workload


def loop(work: Workload, masks: Masks) -> TorchLoop:
    """Make the loop; the product's derivative masks the gradients."""
    network = started(work, masks)
    for name, mask in masks.items():
        path, _, attribute = name.rpartition(".")
        prune.custom_from_mask(network.get_submodule(path), attribute, mask)
    return TorchLoop(work, network)
