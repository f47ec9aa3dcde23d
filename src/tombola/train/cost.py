"""What training costs, in floating-point operations."""

from collections.abc import Mapping

from tombola.types import Masks

_FORWARDS_PER_ITERATION = 3
_OPERATIONS_PER_MULTIPLY_ADD = 2


def flops_per_example(macs: Mapping[str, int], masks: Masks | None = None) -> float:
    """Count the operations of training on one example: two per multiply-add, and backward counts as two forwards.

    Args:
        macs: weight name -> multiply-adds of one forward pass when dense.
        masks: with them, the effective count, in which each weight's share falls with its tensor's density.

    Example:
        >>> flops_per_example({"fc.weight": 1000})
        6000.0
    """
    dense = _FORWARDS_PER_ITERATION * _OPERATIONS_PER_MULTIPLY_ADD
    return float(sum(dense * count * _density(masks, name) for name, count in macs.items()))


def _density(masks: Masks | None, name: str) -> float:
    if masks is None or name not in masks:
        return 1.0
    return int(masks[name].sum()) / masks[name].numel()
