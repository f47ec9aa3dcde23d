"""``check_criterion`` passes what holds the contract, and names each way to break it."""

# ruff: noqa: ARG005 - a faulty part takes what a sound one is given.

import random as python_random
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from tombola.errors import InvalidValue
from tombola.prune.evidence import Evidence, only_alive
from tombola.prune.masks import apply, check
from tombola.testing import check_criterion
from tombola.types import Masks, Params, Scores

Faulty = Callable[[Params, Masks, Evidence], Any]


def size(params: Params, masks: Masks, evidence: Evidence) -> dict[str, Tensor]:  # noqa: ARG001
    return {name: params[name].abs() for name in masks}


def sound(params: Params, masks: Masks, evidence: Evidence) -> dict[str, Tensor]:
    check(params, masks)
    return only_alive(size(params, masks, evidence), masks)


def sensitivity(params: Params, masks: Masks, evidence: Evidence) -> dict[str, Tensor]:
    """Score by the gradient, as a user would write it who has every field of the evidence."""
    check(params, masks)
    leaves = {name: value.detach().requires_grad_() for name, value in apply(params, masks).items()}
    forward, loss = evidence.require("forward_training"), evidence.require("loss")
    total = sum(loss(forward(leaves, x), y) for x, y in evidence.require("batches"))
    gradients = torch.autograd.grad(total, [leaves[name] for name in masks])
    return {name: (g * leaves[name]).detach().abs() for name, g in zip(masks, gradients, strict=True)}


def looking(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    return only_alive(sensitivity(params, masks, evidence), masks)


def share(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    """The same as a share of the sum: 0 / 0 where the network is cut in two."""
    found = sensitivity(params, masks, evidence)
    total = sum(score.double().sum() for score in found.values())
    return only_alive({name: score / total for name, score in found.items()}, masks)


def with_side_effect(effect: Callable[[Params, Masks, Evidence], Any]) -> Faulty:
    def criterion(params: Params, masks: Masks, evidence: Evidence) -> Scores:
        scores = sound(params, masks, evidence)
        effect(params, masks, evidence)
        return scores

    return criterion


def backward(params: Params, masks: Masks, evidence: Evidence) -> None:  # noqa: ARG001
    """Take the gradient with respect to what is given, as if it were a network's own."""
    for value in params.values():
        value.requires_grad_()
    evidence.require("forward")(params, evidence.require("example")).sum().backward()
    for value in params.values():
        value.requires_grad_(False)


def turning(params: Params, masks: Masks, evidence: Evidence) -> Scores:
    """Prefer the small once something is pruned, what is pruned included."""
    scores = sound(params, masks, evidence)
    whole = all(bool(mask.all()) for mask in masks.values())
    return scores if whole else {name: -score for name, score in size(params, masks, evidence).items()}


def unready(params: Params, masks: Masks, evidence: Evidence) -> Scores:  # noqa: ARG001
    """numpy has no bfloat16."""
    check(params, masks)
    return only_alive({name: torch.from_numpy(numpy.abs(params[name].numpy())) for name in masks}, masks)


CHANCE = torch.Generator().manual_seed(0)

FAULTS: dict[str, Faulty] = {
    "pruned weights of 0.weight do not score -inf": lambda p, m, e: (check(p, m), size(p, m, e))[1],
    "gave a list, not name -> tensor": lambda p, m, e: list(sound(p, m, e).values()),
    "no scores for 2.weight": lambda p, m, e: {n: s for n, s in sound(p, m, e).items() if n != "2.weight"},
    "the scores of 0.weight are a list": lambda p, m, e: {n: s.tolist() for n, s in sound(p, m, e).items()},
    "have shape": lambda p, m, e: {n: s.reshape(-1) for n, s in sound(p, m, e).items()},
    "not floating point": lambda p, m, e: {n: s.long() for n, s in size(p, m, e).items()},
    "are on meta": lambda p, m, e: {n: s.to("meta") for n, s in sound(p, m, e).items()},
    "score NaN or Inf": lambda p, m, e: only_alive({n: s / 0 for n, s in size(p, m, e).items()}, m),
    "score NaN .a tensor of one weight, which cuts the network": share,
    r"two calls with equal evidence score 0.weight differently": lambda p, m, e: only_alive(
        {n: s + torch.rand(s.shape, generator=CHANCE) for n, s in size(p, m, e).items()}, m
    ),
    "weights come back": turning,
    "failed with TypeError.*bfloat16": unready,
    "draws from torch's global generator": with_side_effect(lambda *_: torch.rand(1)),
    "draws from Python's global generator": with_side_effect(lambda *_: python_random.random()),
    "draws from numpy's global generator": with_side_effect(lambda *_: numpy.random.rand()),
    "leaves grad mode changed": with_side_effect(lambda *_: torch.set_grad_enabled(False)),
    "leaves the default dtype changed": with_side_effect(lambda *_: torch.set_default_dtype(torch.float64)),
    "leaves the number of threads changed": with_side_effect(
        lambda *_: torch.set_num_threads(torch.get_num_threads() + 1)
    ),
    "writes to the weights of 0.weight": with_side_effect(lambda p, m, e: p["0.weight"].zero_()),
    "the criterion writes to the weights or masks": with_side_effect(lambda p, m, e: p["0.weight"].add_(0)),
    "writes to the mask of 0.weight": with_side_effect(lambda p, m, e: m["0.weight"].logical_not_()),
    r"writes to evidence.theta_0\['0.weight'\]": with_side_effect(lambda p, m, e: e.theta_0["0.weight"].zero_()),
    r"writes to evidence.theta_k\['0.weight'\]": with_side_effect(lambda p, m, e: e.theta_k["0.weight"].zero_()),
    r"writes to evidence.moved\['0.weight'\]": with_side_effect(lambda p, m, e: e.moved["0.weight"].zero_()),
    r"writes to evidence.buffers\['1.running_mean'\]": with_side_effect(
        lambda p, m, e: [value.zero_() for value in e.buffers.values()]
    ),
    r"writes to evidence.batches\[0\]\[0\]": with_side_effect(lambda p, m, e: e.batches[0][0].zero_()),
    r"writes to evidence.batches\[0\]\[1\]": with_side_effect(lambda p, m, e: e.batches[0][1].zero_()),
    "writes to evidence.example": with_side_effect(lambda p, m, e: e.example.add_(1)),
    "leaves requires_grad on the weights of 0.weight": with_side_effect(lambda p, m, e: p["0.weight"].requires_grad_()),
    "leaves a gradient in the weights of 0.weight": with_side_effect(backward),
    "adds or removes names": with_side_effect(lambda p, m, e: p.pop("0.bias", None)),
    "must raise ShapeMismatch.*raises RuntimeError": lambda p, m, e: {
        n: s.masked_fill(~m[n], -torch.inf) for n, s in size(p, m, e).items()
    },
    "must raise ShapeMismatch": lambda p, m, e: {
        n: s.masked_fill(~m[n], -torch.inf) if s.shape == m[n].shape else s for n, s in size(p, m, e).items()
    },
}


@pytest.mark.parametrize("criterion", [sound, looking], ids=["weights", "data"])
def test_what_holds_the_contract_passes(criterion: Any) -> None:
    check_criterion(criterion)


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_fault_is_named(sentence: str) -> None:
    world = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads(), python_random.getstate()
    with pytest.raises(AssertionError, match=sentence):
        check_criterion(FAULTS[sentence])
    after = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads(), python_random.getstate()
    assert after == world, "a faulty part does not disturb what runs after the check"


def test_a_dtype_that_a_criterion_does_not_take_can_be_left_out() -> None:
    check_criterion(unready, dtypes=(torch.float32, torch.float64, torch.float16))


def test_everything_that_a_criterion_may_ask_for_is_there() -> None:
    seen: list[Evidence] = []

    def ask(params: Params, masks: Masks, evidence: Evidence) -> Scores:
        seen.append(evidence)
        return sound(params, masks, evidence)

    check_criterion(ask)
    for evidence in seen:
        missing = [name for name, value in vars(evidence).items() if value is None]
        assert not missing
        assert evidence.theta_0 is not None
        inputs, targets = (evidence.batches or ())[0]
        forward, uses, stages = evidence.forward, evidence.uses, evidence.stages
        assert forward is not None
        assert uses is not None
        outputs = forward({}, inputs)
        assert outputs.shape[0] == len(targets) == len(inputs)
        torch.testing.assert_close(uses({}, inputs)[0], outputs)
        for stage in stages or ():
            inputs = stage.apply({}, inputs)
        torch.testing.assert_close(inputs, outputs, rtol=0.05, atol=0.05)
        assert 0 < (evidence.density or 0) <= 1


def test_a_criterion_that_refuses_a_network_does_not_hold_for_any() -> None:
    def choosy(params: Params, masks: Masks, evidence: Evidence) -> Scores:
        if any(kind == "conv" for kind in evidence.require("kinds").values()):
            raise InvalidValue("no convolutions.")
        return sound(params, masks, evidence)

    with pytest.raises(AssertionError, match="failed with InvalidValue: no convolutions"):
        check_criterion(choosy)
