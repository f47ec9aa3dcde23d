"""Networks, masks and the stock tools that the attached masks are compared with."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from tombola.types import Masks


def mlp() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def conv() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def half(model: nn.Module, seed: int = 0, density: float = 0.5) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {n: torch.rand(p.shape, generator=draw) < density for n, p in model.named_parameters() if p.dim() > 1}


def batch(features: int = 6, size: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(size, features, generator=draw), torch.randint(3, (size,), generator=draw)


def backward(model: nn.Module, data: tuple[Tensor, Tensor] | None = None, scale: float = 1.0) -> None:
    x, y = data or batch()
    (scale * nn.functional.cross_entropy(model(x), y)).backward()


def revived(model: nn.Module, masks: Masks) -> int:
    """Count pruned weights that are not zero, read as a user reads them."""
    found = 0
    for name, mask in masks.items():
        path, _, attribute = name.rpartition(".")
        found += int((getattr(model.get_submodule(path), attribute)[~mask] != 0).sum())
    return found


def graded(model: nn.Module, masks: Masks) -> int:
    """Count pruned weights that have a gradient."""
    return sum(int((model.get_parameter(n).grad[~m] != 0).sum()) for n, m in masks.items())


def stock(model: nn.Module, masks: Masks) -> nn.Module:
    """What ``torch.nn.utils.prune`` does."""
    for name, mask in masks.items():
        path, _, attribute = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(path), attribute, mask)
    return model


def gradient_hooks(model: nn.Module, masks: Masks) -> list[object]:
    """Masks weights once and gradients by hooks on tensors; closes over the parameters."""
    held = []
    for name, mask in masks.items():
        param = model.get_parameter(name)
        param.data[~mask] = 0
        held.append(param.register_hook(lambda g, mask=mask: g * mask))
    return held


def product_before_forward(model: nn.Module, masks: Masks) -> object:
    """Multiplies the weights by the mask before every forward pass, and does nothing else."""

    def mask_all(module: nn.Module, _: object) -> None:
        with torch.no_grad():
            for name, mask in masks.items():
                module.get_parameter(name).data.mul_(mask)

    mask_all(model, None)
    return model.register_forward_pre_hook(mask_all)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, *, after: Callable[[], None] | None = None,
          clip: float | None = None) -> None:  # fmt: skip
    for step in range(steps):
        data = batch(seed=step)

        def closure(data: tuple[Tensor, Tensor] = data) -> Tensor:
            optimizer.zero_grad()
            x, y = data
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            return loss

        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        if after is not None:
            after()


def params_of(model: nn.Module) -> Iterable[nn.Parameter]:
    return list(model.parameters())
