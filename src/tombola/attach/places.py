"""Where masks may be put: names, the modules that hold them, and what is refused."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune.masks import check
from tombola.types import Masks


def unwrap(model: nn.Module) -> nn.Module:
    """Give the user's own module inside ``DistributedDataParallel``, ``DataParallel`` and ``torch.compile``."""
    while True:
        if "_orig_mod" in model._modules and type(model).__name__ == "OptimizedModule":
            inner = model._modules["_orig_mod"]
        elif isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            inner = model.module
        else:
            return model
        assert isinstance(inner, nn.Module)
        model = inner


def holders(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Walk over every place that holds a parameter, tied ones as often as they are held."""
    for part in model.modules():
        for attribute, param in part._parameters.items():
            if param is not None:
                yield part, attribute, param


def resolve(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """Bring masks to the names of ``named_parameters``, on their parameters' devices.

    Returns:
        first name of the parameter -> mask.

    Raises:
        ShapeMismatch: a mask without a parameter, or of another shape.
        InvalidValue: a mask that is not bool; a parameter that cannot be masked in place; two masks for one parameter.
    """
    if not isinstance(masks, Mapping):
        raise InvalidValue(f"the masks are a {type(masks).__name__}; expected parameter name -> bool tensor.")
    if any(type(part).__name__ == "FullyShardedDataParallel" for part in model.modules()):
        raise InvalidValue("masks and FullyShardedDataParallel do not go together. Train with DistributedDataParallel.")
    every = dict(model.named_parameters(remove_duplicate=False))
    first = {id(param): name for name, param in model.named_parameters()}
    for name in masks:
        if name not in every:
            _refuse_computed(name, every)
        else:
            _refuse_kind(name, every[name])
    check(every, masks)
    found: dict[str, Tensor] = {}
    for name, mask in masks.items():
        canonical = first[id(every[name])]
        mask = mask.to(every[name].device)
        if canonical in found and not torch.equal(found[canonical], mask):
            raise InvalidValue(
                f"{name!r} and {canonical!r} are one tied parameter, and their masks differ. "
                f"One mask governs both: give it once, as {canonical!r}."
            )
        found[canonical] = mask
    return found


def _refuse_computed(name: str, every: Mapping[str, nn.Parameter]) -> None:
    """Say which parameter to mask where the name is that of a tensor computed from others."""
    path, _, attribute = name.rpartition(".")
    dot = path + "." if path else ""
    stem = f"{dot}parametrizations.{attribute}."
    near = [n for n in every if n.startswith(stem) or n in (f"{dot}{attribute}_{end}" for end in ("v", "g", "orig"))]
    if near:
        raise ShapeMismatch(
            f"{name!r} is no parameter: it is computed from {', '.join(near)}. Mask the one of its shape instead: "
            "under weight_norm and spectral_norm a zero there is a zero in the weight."
        )


def _refuse_kind(name: str, param: nn.Parameter) -> None:
    if isinstance(param, UninitializedParameter):
        raise InvalidValue(f"parameter {name!r} has no shape yet. Run one batch through the lazy module first.")
    if param.is_meta:
        raise InvalidValue(f"parameter {name!r} is on the meta device and has no values. Load the model first.")
    if type(param.data) is not Tensor:
        raise InvalidValue(
            f"parameter {name!r} is a {type(param.data).__name__}. Masks go on plain tensors: sharded (FSDP, "
            "tensor parallel) and quantised parameters are not supported. Train with DistributedDataParallel."
        )
    if not (param.is_floating_point() or param.is_complex()) or param.layout is not torch.strided:
        raise InvalidValue(
            f"parameter {name!r} is a {param.layout} tensor of {param.dtype}. Masks go on dense floating-point ones."
        )
