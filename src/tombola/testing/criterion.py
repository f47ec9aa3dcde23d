"""What a criterion must do, checked on small networks."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from tombola.errors import InvalidScores, ShapeMismatch
from tombola.prune.evidence import Criterion, Evidence, scored
from tombola.prune.masks import counts, nested
from tombola.prune.select import select
from tombola.testing.subjects import HALF, SUBJECTS, Case, case, tensors_of
from tombola.testing.world import left_alone
from tombola.types import Masks, Params, Scores

DTYPES: Final = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_WHO: Final = "the criterion"
_REFUSAL: Final = (
    "a mask of another shape than its weights must raise ShapeMismatch; begin with tombola.prune.masks.check"
)


def check_criterion(criterion: Criterion, *, dtypes: Sequence[torch.dtype] = DTYPES) -> None:
    """Hold a criterion to its contract.

    One floating-point score for every masked weight, of the mask's shape and on its device; finite where the weight is
    left, ``-inf`` where it is pruned, so that masks nest; equal bits from equal evidence; nothing that it is given
    written to, no gradient left on it, no generator of the process drawn from, no setting of torch changed; a mask of
    another shape refused. Tried with all of the weights left, half of them and none, on linear layers with masked
    biases, on convolutions with batch norm, on a network that a pruned tensor of a single weight cuts in two, and on
    weights many of which are equal or zero.

    Args:
        criterion: ``(params, masks, evidence) -> scores``; the evidence has every field.
        dtypes: of the weights, the buffers and the inputs. The first is tried on everything, the others on the first
            two networks with half of the weights left. Scores may have any floating-point dtype, and half precision
            is best scored in float32.

    Raises:
        AssertionError: with a sentence naming what broke.

    Example:
        >>> from tombola.prune.criteria import CRITERIA
        >>> check_criterion(CRITERIA["magnitude"].score)
    """
    for subject in SUBJECTS:
        for left in (1.0, HALF, 0.0):
            where = f"({subject.name}; {dtypes[0]}, {left:.0%} of the weights left)"
            tried = case(subject, dtypes[0], left)
            scores = _check_scores(_call(criterion, tried, where), tried, where)
            if left:
                _check_same(criterion, tried, scores, where)
            if left == 1:
                _check_nested(criterion, tried, scores, where)
    for dtype in dtypes[1:]:
        for subject in SUBJECTS[:2]:
            where = f"({subject.name}; {dtype}, {HALF:.0%} of the weights left)"
            tried = case(subject, dtype, HALF)
            _check_scores(_call(criterion, tried, where), tried, where)
    _check_refusal(criterion, case(SUBJECTS[0], dtypes[0], 1.0))


def _call(criterion: Criterion, tried: Case, where: str) -> Any:
    """Ask for scores, and see that nothing is disturbed."""
    evidence = tried.evidence(tried.masks)
    given = _given(tried, evidence)
    before = {name: value.detach().clone() for name, value in given.items()}
    with left_alone(_WHO, where):
        raw = _asked(criterion, tried.params, tried.masks, evidence, where)
    after = _given(tried, evidence)
    assert list(after) == list(before), f"the criterion adds or removes names in what it is given {where}"
    for name, value in after.items():
        assert torch.equal(value, before[name]), f"the criterion writes to {name} {where}; let it make new tensors"
        assert not value.requires_grad, f"the criterion leaves requires_grad on {name} {where}; let it detach a copy"
        assert value.grad is None, f"the criterion leaves a gradient in {name} {where}; use torch.autograd.grad"
    return raw


def _asked(criterion: Criterion, params: Params, masks: Masks, evidence: Evidence, where: str) -> Any:
    try:
        return criterion(params, masks, evidence)
    except Exception as error:
        raise AssertionError(f"the criterion failed with {type(error).__name__}: {error} {where}") from error


def _given(tried: Case, evidence: Evidence) -> dict[str, Tensor]:
    return {
        **{f"the weights of {name}": value for name, value in tried.params.items()},
        **{f"the mask of {name}": value for name, value in tried.masks.items()},
        **tensors_of(evidence),
    }


def _check_scores(raw: Any, tried: Case, where: str) -> Scores:
    assert isinstance(raw, Mapping), f"the criterion gave a {type(raw).__name__}, not name -> tensor {where}"
    missing = [name for name in tried.masks if name not in raw]
    assert not missing, f"the criterion gave no scores for {', '.join(missing)} {where}"
    for name, mask in tried.masks.items():
        score = raw[name]
        assert isinstance(score, Tensor), f"the scores of {name} are a {type(score).__name__} {where}"
        assert score.shape == mask.shape, f"the scores of {name} have shape {tuple(score.shape)} {where}"
        assert score.is_floating_point(), f"the scores of {name} are {score.dtype}, not floating point {where}"
        assert score.device == mask.device, f"the scores of {name} are on {score.device} {where}"
        assert bool((score[~mask] == -torch.inf).all()), f"pruned weights of {name} do not score -inf {where}"
        assert bool(score[mask].isfinite().all()), f"weights of {name} that are left score NaN or Inf {where}"
    return raw


def _check_same(criterion: Criterion, tried: Case, scores: Scores, where: str) -> None:
    """Ask once more, as a search does."""
    try:
        again = scored(criterion, tried.params, tried.masks, tried.evidence(tried.masks))
    except InvalidScores as error:
        raise AssertionError(f"{error} {where}") from error
    for name in tried.masks:
        assert torch.equal(scores[name], again[name]), f"two calls with equal evidence score {name} differently {where}"


def _check_nested(criterion: Criterion, tried: Case, scores: Scores, where: str) -> None:
    """Prune half of the weights by the criterion's scores, and half of what is left by its next."""
    once = _halved(scores, tried.masks)
    again = _asked(criterion, tried.params, once, tried.evidence(once), where)
    assert all(not bool(again[name][mask].isnan().any()) for name, mask in once.items()), (
        f"pruned once by its scores, weights that are left score NaN {where}"
    )
    assert nested(_halved(again, once), once), f"pruned twice by its scores, weights come back {where}"


def _halved(scores: Scores, masks: Masks) -> dict[str, Tensor]:
    keep = {name: count // 2 for name, count in counts(masks).items()}
    return select({name: scores[name].detach().nan_to_num(nan=-torch.inf) for name in masks}, keep)


def _check_refusal(criterion: Criterion, tried: Case) -> None:
    name = next(name for name, mask in tried.masks.items() if mask.dim() == 2)
    masks = {**tried.masks, name: tried.masks[name].T}
    try:
        criterion(tried.params, masks, tried.evidence(tried.masks))
    except ShapeMismatch:
        return
    except Exception as error:
        raise AssertionError(f"{_REFUSAL}, and it raises {type(error).__name__}") from error
    raise AssertionError(_REFUSAL)
