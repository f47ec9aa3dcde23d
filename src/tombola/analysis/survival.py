"""Survival: whether weights that began large are the ones that are kept."""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tombola.prune.masks import check
from tombola.types import Masks, Params

_DECILES: Final = 10


@final
@dataclass(frozen=True)
class Decile:
    """One tenth of a tensor's weights, by their initial magnitude.

    Attributes:
        size: weights in it; weights of equal magnitude are in one decile, so sizes may differ.
        survived: the fraction of them that is kept; ``None`` where there are none.
    """

    size: int
    survived: float | None


@final
@dataclass(frozen=True)
class Survival:
    """What the initial magnitude of a tensor's weights says about their survival.

    Attributes:
        auc: the probability that a kept weight began larger than a pruned one, ties counting half; .5 is no relation.
            ``None`` where all weights are kept, or none.
        deciles: ten of them, the smallest ``|w_0|`` first.
        mean_kept: mean ``|w_0|`` of the kept; ``None`` without any.
        mean_pruned: mean ``|w_0|`` of the pruned; ``None`` without any.
    """

    auc: float | None
    deciles: tuple[Decile, ...]
    mean_kept: float | None
    mean_pruned: float | None


def survival(theta_0: Params, masks: Masks) -> dict[str, Survival]:
    """Measure what the initial magnitude says about survival, tensor by tensor.

    Args:
        theta_0: name -> initial weights.
        masks: name -> bool tensor, same shape; the tensors wanted.

    Returns:
        name -> its survival.

    Raises:
        ShapeMismatch: a mask does not fit its weights.
        InvalidValue: a mask is not bool.

    Example:
        >>> w, kept = torch.tensor([0.1, -0.5, 0.5, 0.9]), torch.tensor([False, False, True, True])
        >>> survival({"w": w}, {"w": kept})["w"].auc
        0.875
    """
    check(theta_0, masks)
    found = {}
    for name, mask in masks.items():
        size, kept = theta_0[name].detach().double().abs().cpu(), mask.cpu()
        places = ranks(size)
        found[name] = Survival(auc(places, kept), _deciles(places, kept), _mean(size[kept]), _mean(size[~kept]))
    return found


def ranks(values: Tensor) -> NDArray[np.float64]:
    """Rank the entries of a tensor from 1, equal ones by their average rank.

    Args:
        values: float, any shape.

    Returns:
        shape ``[n]``, row-major.
    """
    from scipy.stats import rankdata

    return np.asarray(rankdata(values.detach().cpu().reshape(-1).numpy()), dtype=np.float64)


def auc(places: NDArray[np.float64], kept: Tensor) -> float | None:
    """Give the area under the ROC curve of a ranking for survival, exactly, by Mann & Whitney's (1947) rank sum.

    Args:
        places: ranks of the weights, as :func:`ranks` gives them, shape ``[n]``.
        kept: bool, n entries, on the CPU.

    Returns:
        a probability; ``None`` where all weights are kept, or none.
    """
    flags = kept.reshape(-1).numpy()
    alive = int(flags.sum())
    dead = flags.size - alive
    if not alive or not dead:
        return None
    return float((places[flags].sum() - alive * (alive + 1) / 2) / (alive * dead))


def _deciles(places: NDArray[np.float64], kept: Tensor) -> tuple[Decile, ...]:
    which = np.minimum((places - 0.5) * _DECILES / max(places.size, 1), _DECILES - 1).astype(np.int64)
    sizes = np.bincount(which, minlength=_DECILES)
    alive = np.bincount(which[kept.reshape(-1).numpy()], minlength=_DECILES)
    return tuple(Decile(int(n), float(k / n) if n else None) for n, k in zip(sizes, alive, strict=True))


def _mean(values: Tensor) -> float | None:
    return float(torch.mean(values)) if values.numel() else None
