"""What identifies a network's definition, so that two definitions are not taken for one."""

import hashlib

from torch import nn

from tombola.models.sources import sources


def identity(name: str, module: nn.Module) -> str:
    """Give 64 hexadecimal digits: equal for equal names, printed forms, parameters, buffers and source files.

    Args:
        name: the network's name, or ``package.module:factory``; of the latter the user's own code that makes and runs
            it counts as well, see :func:`tombola.models.sources`.
        module: the network.
    """
    total = hashlib.sha256(f"{name}\n{module}\n".encode())
    for kind, tensors in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
        for tensor, value in tensors:
            total.update(f"{kind} {tensor} {value.dtype} {tuple(value.shape)}\n".encode())
    if ":" in name:
        for source, content in sorted(sources(name, module).items()):
            total.update(f"source {source} {content}\n".encode())
    return total.hexdigest()
