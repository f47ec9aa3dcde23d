"""What a criterion may look at besides the weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol, final

import torch
from torch import Tensor

from tombola.errors import InvalidScores, MissingEvidence, ShapeMismatch, TombolaError
from tombola.prune.layers import Stage, Use
from tombola.types import Masks, Params, Scores

_PART: Final = 1 << 14


@final
@dataclass(frozen=True)
class Evidence:
    """Everything beyond ``params`` and ``masks``; a field that was not given is ``None``.

    The three passes are pure functions ``(values, inputs) -> ...``: ``values`` are parameters or buffers by name, and a
    name that is absent is as the network that ``params`` belong to has it. They take any floating-point dtype that all
    of their values share.

    Attributes:
        theta_0: the initial parameters.
        theta_k: the parameters that survivors rewind to.
        buffers: the network's buffers (batch-norm statistics, ...) with ``params``.
        kinds: name -> what the parameter is: ``linear``, ``conv``, ``norm``, ``bias``, ...
        forward: gives the outputs in evaluation mode: batch norm uses its running statistics.
        forward_training: gives the outputs as in training, but for dropout: batch norm uses the batch's statistics.
        uses: gives the outputs of ``forward`` and every use of a linear or convolutional weight on the way to them.
        stages: the network as a chain of linear and convolutional layers, activations and pooling, where it is one.
        loss: ``(outputs, targets) -> scalar``, the training loss, a mean over the examples.
        batches: pairs of inputs and targets from the training split, the classes in equal number.
        example: one input, shape ``[1, ...]``.
        moved: name -> ``-sum_t lr_t g_t w_t`` over the training that ended in ``params``.
        generator: a CPU generator for random scores.
        density: the density aimed at, of the tensors in ``masks`` together.
    """

    theta_0: Params | None = None
    theta_k: Params | None = None
    buffers: Params | None = None
    kinds: Mapping[str, str] | None = None
    forward: Callable[[Params, Tensor], Tensor] | None = None
    forward_training: Callable[[Params, Tensor], Tensor] | None = None
    uses: Callable[[Params, Tensor], tuple[Tensor, Sequence[Use]]] | None = None
    stages: Sequence[Stage] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    batches: Sequence[tuple[Tensor, Tensor]] | None = None
    example: Tensor | None = None
    moved: Params | None = None
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
    """Set the scores of pruned entries to ``-inf``, so that pruning is monotone whatever the criterion says.

    Scores of which that is true already are not copied.
    """
    return {
        name: score.masked_fill(~masks[name], -torch.inf) if _any(_revived, score, masks[name]) else score
        for name, score in scores.items()
    }


def scored(criterion: Criterion, params: Params, masks: Masks, evidence: Evidence) -> dict[str, Tensor]:
    """Ask a criterion for scores, and hold it to its contract.

    Args:
        criterion: ours or the user's own.
        params: what it scores.
        masks: name -> bool tensor.
        evidence: what else it may look at.

    Returns:
        name -> score, for the names in ``masks`` and in their order; ``-inf`` where pruned, whatever the criterion
        says. Scores for other names are left out: those tensors stay dense.

    Raises:
        InvalidScores: a name without scores, scores that are not floating-point tensors or lie on another device than
            their mask, or NaN for a weight that is left.
        ShapeMismatch: scores of another shape than their mask.
    """
    before = _versions(params), _versions(masks)
    try:
        scores = criterion(params, masks, evidence)
    except TombolaError:
        raise
    except Exception as error:
        raise InvalidScores(
            f"the criterion failed with {type(error).__name__}: {error}. It is called as (params, masks, evidence) and "
            "gives name -> scores."
        ) from error
    if (_versions(params), _versions(masks)) != before:
        raise InvalidScores(
            "the criterion writes to the weights or masks that it is given, in place, and they are trained on. Let it "
            "make new tensors (abs, not abs_)."
        )
    if not isinstance(scores, Mapping):
        raise InvalidScores(f"the criterion gave a {type(scores).__name__}. A criterion gives name -> tensor.")
    for name, mask in masks.items():
        score = scores.get(name)
        if not isinstance(score, Tensor) or not score.is_floating_point():
            what = f"a tensor of {score.dtype}" if isinstance(score, Tensor) else f"a {type(score).__name__}"
            raise InvalidScores(
                f"the criterion gave {'no scores' if score is None else what} for {name!r}. "
                "A criterion scores every masked tensor with a floating-point tensor."
            )
        if score.shape != mask.shape:
            raise ShapeMismatch(
                f"the criterion gave {name!r} scores of shape {tuple(score.shape)}, and its mask has "
                f"{tuple(mask.shape)}. There is one score for each weight."
            )
        if score.device != mask.device:
            raise InvalidScores(
                f"the criterion gave {name!r} scores on {score.device}, and its mask is on {mask.device}. "
                "Scores stay where the weights are."
            )
        if _any(_is_nan, score, mask):
            raise InvalidScores(
                f"the criterion gave NaN for weights of {name!r}, and NaN has no rank. A run that diverged must not "
                "make a mask; look at the loss, or lower the learning rate."
            )
    return only_alive({name: scores[name].detach() for name in masks}, masks)


def _versions(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Count the writes to each tensor; those made under ``torch.inference_mode`` keep no count."""
    return {name: -1 if value.is_inference() else value._version for name, value in tensors.items()}


def _is_nan(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.isnan() & mask


def _revived(scores: Tensor, mask: Tensor) -> Tensor:
    return (scores != -torch.inf) & ~mask


def _any(test: Callable[[Tensor, Tensor], Tensor], scores: Tensor, mask: Tensor) -> bool:
    """Say whether a test holds of any score and mask; a part at a time, for the sake of memory."""
    parts = zip(scores.reshape(-1).split(_PART), mask.reshape(-1).split(_PART), strict=True)
    return any(bool(test(*part).any()) for part in parts)
