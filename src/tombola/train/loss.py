"""The losses that a recipe may ask for, of logits and labels."""

import torch
from torch import Tensor
from torch.nn import functional


def mean_loss(kind: str, logits: Tensor, y: Tensor) -> Tensor:
    """Give the loss that is trained on, a mean over the examples; ``mse`` is one over the classes as well.

    Args:
        kind: one of :data:`~tombola.train.recipe.LOSSES`.
        logits: ``[..., classes]``.
        y: int64 ``[...]``.
    """
    if kind == "mse":
        return functional.mse_loss(logits, one_hot(logits, y))
    return functional.cross_entropy(logits, y)


def sum_loss(kind: str, logits: Tensor, y: Tensor) -> Tensor:
    """Give the same summed over the examples: of a mean over chunks the chunks' sums are added."""
    if kind == "mse":
        return functional.mse_loss(logits, one_hot(logits, y), reduction="sum") / logits.shape[-1]
    return functional.cross_entropy(logits, y, reduction="sum")


def one_hot(logits: Tensor, y: Tensor) -> Tensor:
    """Give 1 at the label and 0 elsewhere, in the logits' shape and dtype."""
    # torch's one_hot looks at the labels' values, which a stack under torch.func and a CUDA graph do not allow.
    return torch.zeros_like(logits).scatter(-1, y.unsqueeze(-1), 1)
