"""What a state dict holds besides parameters."""

from torch import Tensor, nn


def state_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Give the buffers that the module's state dict has, by name; a buffer that is not persistent is none of them.

    Example:
        >>> sorted(state_buffers(nn.BatchNorm1d(4)))
        ['num_batches_tracked', 'running_mean', 'running_var']
    """
    state = module.state_dict(keep_vars=True)
    return {name: value for name, value in module.named_buffers() if name in state}
