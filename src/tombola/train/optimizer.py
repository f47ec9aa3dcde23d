"""The recipe's optimiser, and its state by parameter name."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tombola.errors import ShapeMismatch
from tombola.train.recipe import Recipe


def make_optimizer(recipe: Recipe, params: dict[str, nn.Parameter], device: torch.device) -> torch.optim.Optimizer:
    """Make the recipe's optimiser over all parameters, fused where torch has it."""
    fused = device.type in ("cpu", "cuda") and all(p.is_floating_point() for p in params.values())
    values = list(params.values())
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            values,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=fused,
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(values, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused)


def load_slots(
    optimizer: torch.optim.Optimizer,
    params: Mapping[str, nn.Parameter],
    saved: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Put saved moments back; they are copied, for the optimiser changes its own in place.

    Raises:
        ShapeMismatch: a name or a shape fits no parameter.
    """
    for name, slots in saved.items():
        if name not in params or any(value.dim() and value.shape != params[name].shape for value in slots.values()):
            raise ShapeMismatch(f"the saved optimiser state of {name!r} fits no parameter. It is another model's.")
    state = {
        number: {slot: value.clone() for slot, value in saved[name].items()}
        for number, name in enumerate(params)
        if name in saved
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def slots_of(optimizer: torch.optim.Optimizer, params: Mapping[str, nn.Parameter]) -> dict[str, dict[str, Tensor]]:
    """Copy what the optimiser holds of each parameter to the CPU; a parameter that it has not stepped is left out."""
    return {
        name: {
            slot: value.detach().cpu().clone()
            for slot, value in optimizer.state[p].items()
            if isinstance(value, Tensor)
        }
        for name, p in params.items()
        if p in optimizer.state
    }
