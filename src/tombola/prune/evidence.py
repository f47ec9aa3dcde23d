"""What a criterion may look at besides the weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from tombola.errors import MissingEvidence
from tombola.types import Masks, Params, Scores


@dataclass(frozen=True)
class Evidence:
    """Everything beyond ``params`` and ``masks``; a field that was not given is ``None``.

    Attributes:
        theta_0: the initial parameters.
        theta_k: the parameters that survivors rewind to.
        forward: ``(params, inputs) -> outputs``, pure.
        loss: ``(outputs, targets) -> scalar``, the training loss.
        batches: pairs of inputs and targets from the training split.
        generator: a CPU generator for random scores.
        density: the density aimed at.
    """

    theta_0: Params | None = None
    theta_k: Params | None = None
    forward: Callable[[Params, Tensor], Tensor] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    batches: Sequence[tuple[Tensor, Tensor]] | None = None
    generator: torch.Generator | None = None
    density: float | None = None

    def require(self, name: str) -> Any:
        """Give a field, or say that it is missing.

        Raises:
            MissingEvidence: the field is ``None``.
        """
        value = getattr(self, name)
        if value is None:
            given = [f.name for f in fields(self) if getattr(self, f.name) is not None]
            raise MissingEvidence(
                f"the criterion needs {name!r}, and the evidence holds {', '.join(given) or 'nothing'}. "
                f"Pass Evidence({name}=...)."
            )
        return value


class Criterion(Protocol):
    """Scores every maskable weight; larger is kept longer, a pruned entry scores ``-inf``."""

    def __call__(self, params: Params, masks: Masks, evidence: Evidence, /) -> Scores: ...


def only_alive(scores: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """Set the scores of pruned entries to ``-inf``, so that pruning is monotone whatever the criterion says."""
    return {name: score.masked_fill(~masks[name], -torch.inf) for name, score in scores.items()}
