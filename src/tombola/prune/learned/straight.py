"""The straight-through estimator: a step forward, the identity backward."""

from torch import Tensor


def through(hard: Tensor, soft: Tensor) -> Tensor:
    """Give the values of one tensor with the gradient of another.

    Bengio et al. (2013), section 4.

    Args:
        hard: float, any shape; no gradient reaches it.
        soft: the same shape and dtype.

    Example:
        >>> import torch
        >>> score = torch.tensor([0.2, 0.7], requires_grad=True)
        >>> through(score.round(), score).sum().backward()
        >>> score.grad
        tensor([1., 1.])
    """
    return hard.detach() + (soft - soft.detach())
