"""From scores and exact counts to masks."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tombola.errors import ImpossibleDensity, InvalidScores
from tombola.prune.ranking import Pool
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
    pool = Pool([scores])
    _check(pool, count, name)
    found = torch.zeros_like(scores, dtype=torch.bool)
    if count:
        (marks,) = pool.best(count, generator)
        first = 0
        for chunk in marks:
            found[first : first + chunk.numel()] = chunk
            first += chunk.numel()
    return found


def count_top(scores: Sequence[Tensor], count: int, generator: torch.Generator | None = None) -> list[int]:
    """Say how many of the ``count`` largest scores of several vectors are in each; as :func:`keep_top` on all in one.

    Args:
        scores: float, of any lengths and dtypes; without any, ``count`` is 0.
        count: how many there are together.
        generator: breaks ties; ``None`` prefers earlier entries of earlier vectors.
    """
    pool = Pool(scores)
    _check(pool, count, "all")
    if not count:
        return [0] * len(scores)
    return [sum(int(torch.count_nonzero(chunk)) for chunk in marks) for marks in pool.best(count, generator)]


def _check(pool: Pool, count: int, name: str) -> None:
    """Raise unless the scores have a rank and there are enough of them."""
    if nans := pool.nans():
        raise InvalidScores(
            f"{nans} of the {pool.size()} scores of {name!r} are NaN, and NaN has no rank. "
            "A run that diverged must not make a mask; look at the loss, or lower the learning rate."
        )
    left = pool.left()
    if not 0 <= count <= left:
        raise ImpossibleDensity(f"asked to keep {count} weights of {name!r}, which has {left} of {pool.size()} left.")
