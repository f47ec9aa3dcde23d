"""What identifies a network's definition, so that two definitions are not taken for one."""

import hashlib
import inspect
import sys
from pathlib import Path

from torch import nn


def identity(name: str, module: nn.Module) -> str:
    """Give 64 hexadecimal digits: equal for equal names, printed forms, parameters, buffers and source files.

    Args:
        name: the network's name, or ``package.module:factory``; of the latter the file it stands in counts as well.
        module: the network.
    """
    total = hashlib.sha256(f"{name}\n{module}\n".encode())
    for kind, tensors in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
        for tensor, value in tensors:
            total.update(f"{kind} {tensor} {value.dtype} {tuple(value.shape)}\n".encode())
    if ":" in name:
        total.update(_source(name.partition(":")[0]))
    return total.hexdigest()


def _source(module: str) -> bytes:
    file = inspect.getsourcefile(sys.modules[module]) if module in sys.modules else None
    return Path(file).read_bytes() if file and Path(file).is_file() else b""
