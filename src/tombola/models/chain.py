"""A module as a chain of stages, where it is one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.prune.layers import Stage
from tombola.types import Params

Settle = Callable[[Params, Tensor, Iterable[str]], tuple[dict[str, Tensor], Tensor]]
"""``(values, inputs, names) -> (what these names are worth, the inputs in their dtype)``."""

# Exact types only: a class of the user's own may do anything in its forward.
_KINDS: Final[Mapping[type[nn.Module], str]] = {
    nn.Linear: "linear",
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), "conv"),
    **dict.fromkeys(
        (
            nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
            nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Tanhshrink,
            nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
        ),
        "activation",
    ),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), "max"),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), "max"),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), "average"),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), "average"),
    **dict.fromkeys((nn.Flatten, nn.Unflatten), "reshape"),
}  # fmt: skip

_IDLE: Final = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
"""What does nothing in evaluation mode."""


def chain(module: nn.Module, settle: Settle, tied: Mapping[str, str]) -> Sequence[Stage] | None:
    """Read a module in evaluation mode as a chain of stages.

    Args:
        module: only an ``nn.Sequential``, nested or not, or a single layer can be a chain.
        settle: gives what a stage's parameters and buffers are worth.
        tied: further name -> first name.

    Returns:
        The stages in their order; ``None`` where a part is not of the kinds of :class:`~tombola.prune.layers.Stage`,
        carries a hook, or is batch norm without running statistics.
    """
    parts = _flat(module, "")
    if parts is None:
        return None
    return tuple(_stage(name, part, settle, tied) for name, part in parts if type(part) not in _IDLE)


def _flat(module: nn.Module, name: str) -> list[tuple[str, nn.Module]] | None:
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    if type(module) is not nn.Sequential:
        known = type(module) in _KINDS or type(module) in _IDLE
        changing = isinstance(module, _BatchNorm) and module.running_mean is None
        return [(name, module)] if known and not changing and not getattr(module, "return_indices", False) else None
    found: list[tuple[str, nn.Module]] = []
    for child, part in module._modules.items():
        inner = _flat(part, f"{name}.{child}".lstrip(".")) if part is not None else []
        if inner is None:
            return None
        found += inner
    return found


def _stage(name: str, part: nn.Module, settle: Settle, tied: Mapping[str, str]) -> Stage:
    kind = _KINDS[type(part)]
    full = {local: f"{name}.{local}".lstrip(".") for local, _ in (*part.named_parameters(), *part.named_buffers())}
    full = {local: tied.get(one, one) for local, one in full.items()}

    def apply(values: Params, inputs: Tensor) -> Tensor:
        found, inputs = settle(values, inputs, full.values())
        outputs: Tensor = functional_call(part, {local: found[one] for local, one in full.items()}, (inputs,))
        return outputs

    weighted = kind in {"linear", "conv"}
    return Stage(kind, apply, full["weight"] if weighted else None, full.get("bias") if weighted else None)
