"""Operations counted as they are made."""

from typing import Any, final

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@final
class FlopCount(TorchDispatchMode):
    """Counts the operations of matrix products and convolutions, by torch's own formulas, while it is entered.

    ``FlopCounterMode`` follows modules besides, by hooks that fail where a gradient is taken to the input of one.

    Attributes:
        flops: how many so far; a multiply-add is two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        rule = flop_registry.get(func._overloadpacket)
        if rule is not None:
            self.flops += float(rule(*args, **(kwargs or {}), out_val=found))
        return found
