"""SynFlow: the weights that much passes through are kept, found step by step and without data."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from tombola.errors import ImpossibleDensity, InvalidScores, InvalidValue
from tombola.prune.criteria.gradients import differentiable, gradient, leaves, masked_values
from tombola.prune.evidence import Evidence
from tombola.prune.masks import check, kept, total
from tombola.prune.select import keep_top
from tombola.types import Masks, Params, Scores

STEPS: Final = 100
"""How often the network is scored."""

_EXPONENTS: Final = (0, 512, 960, -512, -960)
"""Powers of two by which both the input and the gradient of the output are divided until nothing overflows."""


def synflow(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight by the synaptic flow through it, :math:`s = \theta \, \partial R / \partial \theta`, in steps.

    Tanaka et al. (2020), Algorithm 1: :math:`R` is the sum of the outputs of the network with :math:`|\theta|` for
    :math:`\theta` at an input of ones. It is scored 100 times; after the i-th time the lowest of all tensors together
    go, so that the density is :math:`d (\rho / d)^{i / 100}`, from :math:`d` of the given masks to :math:`\rho` aimed
    at. What went does not come back. The last cut is left to whoever ranks the scores.

    Nothing is added on the way: biases and batch norm's running means, which are no part of the conservation that the
    method rests on (Theorem 1), are zero; buffers are taken by magnitude like parameters; a bias that is itself masked
    is scored like a weight. Where a unit has one way in and one way out, conservation makes their flows equal, and
    rounding ranks them: another processor may keep the other one.

    Args:
        params: name -> float tensor, any shape and device; every parameter of the network.
        masks: name -> bool tensor, same shape; a name that is absent stays dense.
        evidence: ``forward``, ``example`` (its shape alone is used) and ``density`` are required; ``buffers`` where the
            network has some; ``kinds`` tells biases, without it their name, which ends in ``bias``; ``generator``
            breaks ties.

    Returns:
        name -> float64 tensor of the parameter's shape, for the names in ``masks``; ``-inf`` where pruned. For those
        never cut, the last scores relative to the largest, in [0, 1] where activations do not decrease; below them
        those cut last, in the order of their scores then; at the bottom those cut first.

    Raises:
        MissingEvidence: naming the field.
        ImpossibleDensity: the density aimed at is not in (0, 1].
        InvalidValue: the example is not floating-point, so it cannot be ones.
        InvalidScores: the flow overflows or is not a number, even so scaled that only its ratios count.
        ShapeMismatch: a mask's shape differs from its parameter's.

    Example:
        >>> import torch
        >>> given = Evidence(
        ...     forward=lambda values, x: (x @ values["a"].T).relu() @ values["b"].T,
        ...     example=torch.zeros(1, 2),
        ...     density=0.5,
        ... )
        >>> w = {"a": torch.tensor([[1.0, -3.0], [2.0, 2.0]]), "b": torch.tensor([[-2.0, 1.0]])}
        >>> found = synflow(w, {name: torch.ones_like(v, dtype=torch.bool) for name, v in w.items()}, given)
        >>> {name: (score > 0).tolist() for name, score in found.items()}
        {'a': [[True, True], [False, False]], 'b': [[True, False]]}
    """
    check(params, masks)
    target = _target(evidence)
    found = {name: torch.full_like(mask, -torch.inf, dtype=torch.float64) for name, mask in masks.items()}
    alive = {name: mask.clone() for name, mask in masks.items()}
    size, start = total(masks), kept(masks)
    with differentiable():
        values = _by_magnitude(params, masks, evidence)
        for step in range(1 if target * size < start else STEPS, STEPS + 1):
            if not start:
                break
            flow = _flow(values, alive, evidence)
            flow /= float(flow.abs().max()) or 1.0
            density = start / size * (target * size / start) ** (step / STEPS)
            # The last time everything that is left gets its score.
            count = max(1, round(density * size)) if step < STEPS else 0
            stay = keep_top(flow, min(count, flow.numel()), evidence.generator)
            # Scores of one step lie within 1 of zero: those of two steps do not mix where the steps are 3 apart.
            _cut(flow + 3.0 * (step - STEPS), stay, alive, found, values)
    return found


def synaptic_flow(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    r"""Score each weight by the synaptic flow through it, once.

    Tanaka et al. (2020), section 4 and Theorem 1: without biases, and with activations that are linear on either side
    of zero, the scores of a layer sum to :math:`R`, and those into a hidden unit to as much as those out of it.

    Args:
        params: name -> float tensor, any shape and device; every parameter of the network.
        masks: name -> bool tensor, same shape; a name that is absent stays dense.
        evidence: as :func:`synflow` takes it, without the density.

    Returns:
        name -> float64 tensor of the parameter's shape, for the names in ``masks``; ``-inf`` where pruned. Divided by a
        power of two common to all where they would overflow.

    Raises:
        MissingEvidence: naming the field.
        InvalidValue: the example is not floating-point, so it cannot be ones.
        InvalidScores: the flow overflows or is not a number, even so scaled that only its ratios count.
        ShapeMismatch: a mask's shape differs from its parameter's.
    """
    check(params, masks)
    found = {name: torch.full_like(mask, -torch.inf, dtype=torch.float64) for name, mask in masks.items()}
    with differentiable():
        values = _by_magnitude(params, masks, evidence)
        flow = _flow(values, masks, evidence)
    _cut(flow, torch.zeros_like(flow, dtype=torch.bool), dict(masks), found, values)
    return found


def _target(evidence: Evidence) -> float:
    """Give the density aimed at, checked."""
    density: float = evidence.require("density")
    if not 0 < density <= 1:
        raise ImpossibleDensity(
            f"synflow steps down to a density, and evidence.density is {density}. Pass the fraction to keep, above 0 "
            "and at most 1."
        )
    return density


def _by_magnitude(params: Params, masks: Masks, evidence: Evidence) -> dict[str, Tensor]:
    """Give the network without signs and without anything that is added: float64, private to the caller."""
    kinds = evidence.kinds or {}
    added = {
        name
        for name in params
        if name not in masks
        and (kinds.get(name) == "bias" or (name.endswith("bias") and kinds.get(name, "norm") == "norm"))
    } | {name for name in evidence.buffers or {} if name.endswith("running_mean")}
    values = masked_values(params, masks, evidence.buffers, torch.float64)
    return {name: torch.zeros_like(value) if name in added else value.abs() for name, value in values.items()}


def _flow(values: Params, alive: Masks, evidence: Evidence) -> Tensor:
    """Give the flow through every weight that is left, in the order of the tensors, shape ``[n]``.

    The network takes a multiple of its input to that multiple of its outputs, so that another scale of the input, or of
    the gradient of the output, multiplies all flows by one factor, residual connections or not. Powers of two change no
    other bit. Rescaling the layers instead would be right for a chain only.
    """
    forward = evidence.require("forward")
    example: Tensor = evidence.require("example")
    if not example.is_floating_point():
        raise InvalidValue(
            f"synflow sends ones through the network, and the example holds {example.dtype}. It is for networks whose "
            "inputs are numbers, not indices; use another criterion, such as magnitude."
        )
    device = next(iter(alive.values())).device if alive else example.device
    flow = torch.zeros(0, dtype=torch.float64, device=device)
    seen = False
    for exponent in _EXPONENTS:
        scale = 2.0**-exponent
        at = leaves(values, alive)
        ones = torch.full(example.shape, scale, dtype=torch.float64, device=device)
        g = gradient((forward({**values, **at}, ones) * scale).sum(), list(at.values()))
        parts = [(leaf.detach() * part)[alive[name]] for (name, leaf), part in zip(at.items(), g, strict=True)]
        tried = torch.cat(parts) if parts else flow
        if bool(tried.isfinite().all()):
            if not seen:
                flow, seen = tried, True
            if not tried.numel() or bool(tried.any()):
                return tried
    if not seen:
        raise InvalidScores(
            "the synaptic flow is not finite at any scale of the input: the network multiplies it by more than float64 "
            "holds, or its parameters are not finite. Look at the weights, or use another criterion, such as magnitude."
        )
    # Nothing passes: a layer has no weights left, or too few that meet.
    return flow


def _cut(
    scores: Tensor, stay: Tensor, alive: dict[str, Tensor], found: Mapping[str, Tensor], values: Mapping[str, Tensor]
) -> None:
    """Take the weights that do not stay out of ``alive`` and of ``values``, and put their scores into ``found``.

    Args:
        scores: shape ``[n]``, of the weights that are left, in the order of the tensors.
        stay: bool, same shape.
        alive, found, values: name -> what is left, final scores, magnitudes; changed.
    """
    first = 0
    for name, mask in alive.items():
        here = slice(first, first := first + int(torch.count_nonzero(mask)))
        left = torch.zeros_like(mask).masked_scatter_(mask, stay[here])
        gone = mask & ~left
        found[name].masked_scatter_(gone, scores[here][~stay[here]])
        values[name].masked_fill_(gone, 0.0)
        alive[name] = left
