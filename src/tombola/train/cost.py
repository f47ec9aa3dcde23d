"""What training costs, in floating-point operations."""

from collections.abc import Mapping

from tombola.types import Masks, TrainJob, TrainOutcome

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


def flops_of_run(macs: Mapping[str, int], job: TrainJob, outcome: TrainOutcome) -> float:
    """Count the operations of a run that the surviving weights need, for one example an iteration.

    Where masks change in training, each stretch counts with its own; and where a change asks for the gradient of all
    weights, one more forward pass, one backward to the activations and one to all weights, as Evci et al. (2020),
    appendix H, count it.

    Args:
        macs: weight name -> multiply-adds of one forward pass when dense.
        job: what was trained.
        outcome: what came of it.
    """
    sizes = {name: mask.numel() for name, mask in job.masks.items()}
    kept = {name: int(mask.sum()) for name, mask in job.masks.items()}
    at, found = job.start.step, 0.0
    for step, after in (*outcome.history, (job.start.step + outcome.iterations, None)):
        sparse = sum(count * (kept[name] / sizes[name] if name in sizes else 1.0) for name, count in macs.items())
        found += (step - at) * _FORWARDS_PER_ITERATION * _OPERATIONS_PER_MULTIPLY_ADD * sparse
        if after is not None:
            if job.updates is not None and job.updates.wants_gradient(step):
                found += _OPERATIONS_PER_MULTIPLY_ADD * (2 * sparse + sum(macs.values()))
            at, kept = step, dict(after)
    return found


def _density(masks: Masks | None, name: str) -> float:
    if masks is None or name not in masks:
        return 1.0
    return int(masks[name].sum()) / masks[name].numel()
