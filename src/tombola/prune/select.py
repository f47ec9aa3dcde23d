"""From scores and exact counts to masks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tombola.errors import ImpossibleDensity, InvalidScores
from tombola.types import Scores


def select(scores: Scores, counts: Mapping[str, int], generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Keep exactly the asked number of best-scoring weights in each tensor.

    Args:
        scores: name -> float tensor; pruned entries are ``-inf``.
        counts: name -> how many to keep, from 0 to the number of entries that are not ``-inf``.
        generator: a CPU generator that breaks ties between equal scores; ``None`` breaks them by position. Either way
            the choice is deterministic and the same on every device.

    Returns:
        name -> bool tensor of the score's shape.

    Raises:
        InvalidScores: a score is NaN.
        ImpossibleDensity: more are asked for than are left.
    """
    return {
        name: keep_top(score.reshape(-1), counts[name], generator, name).reshape(score.shape)
        for name, score in scores.items()
    }


def keep_top(scores: Tensor, count: int, generator: torch.Generator | None = None, name: str = "all") -> Tensor:
    """Mark the ``count`` largest of a vector of scores, exactly, ties included.

    Args:
        scores: float, shape ``[n]``.
        count: how many to mark.
        generator: breaks ties; ``None`` prefers earlier entries.
        name: for the errors.

    Returns:
        bool, shape ``[n]``, with exactly ``count`` true entries.

    Example:
        >>> keep_top(torch.tensor([1.0, 1.0, 1.0, 0.0]), 2)
        tensor([ True,  True, False, False])
    """
    if bool(scores.isnan().any()):
        raise InvalidScores(
            f"{int(scores.isnan().sum())} of the {scores.numel()} scores of {name!r} are NaN, and NaN has no rank. "
            "A run that diverged must not make a mask; look at the loss, or lower the learning rate."
        )
    left = int((scores > -torch.inf).sum())
    if not 0 <= count <= left:
        raise ImpossibleDensity(
            f"asked to keep {count} weights of {name!r}, which has {left} of {scores.numel()} left."
        )
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    # The count-th largest value; only the entries equal to it are in doubt. On the CPU kthvalue takes a third of a
    # sort's time; on CUDA it raises under torch.use_deterministic_algorithms.
    if scores.device.type == "cpu":
        threshold = scores.kthvalue(scores.numel() - count + 1).values
    else:
        threshold = scores.sort().values[-count]
    keep = scores > threshold
    tied = (scores == threshold).nonzero().reshape(-1)
    missing = count - int(keep.sum())
    if generator is not None and missing < tied.numel():
        tied = tied[torch.randperm(tied.numel(), generator=generator).to(tied.device)]
    keep[tied[:missing]] = True
    return keep
