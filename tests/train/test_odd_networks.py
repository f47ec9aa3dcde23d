"""Networks at the edges train in every engine, and as in the plain loop: the same losses to 1e-5, the same choices.

Widths of one, a batch of one, one iteration, layers that a mask has emptied, units without inputs or outputs, and
networks in which nothing is left to train.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tombola import models
from tombola.data import Split
from tombola.sparse.kernels.library import available
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import LOSSES, Recipe
from tombola.train.replicas import ReplicaTrainer
from tombola.train.sparse import SparseTrainer
from tombola.types import Masks, RunResult, Seed, Snapshot, TrainJob, TrainOutcome

TRAINERS = {"plain": PlainTrainer, "sparse": SparseTrainer, "replicas": ReplicaTrainer}
ENGINES = [
    pytest.param("sparse", marks=pytest.mark.skipif(not available(), reason="the compiled kernels are not here")),
    "replicas",
]

MakeMasks = Callable[[Snapshot], Masks]


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU, bias: bool = True) -> nn.Module:
    parts: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        parts += [nn.Linear(inputs, outputs, bias=bias), activation()]
    return nn.Sequential(*parts[:-1])


def data(features: tuple[int, ...], classes: int, train: int = 50, others: int = 23) -> Split:
    draw = torch.Generator().manual_seed(1)

    def part(n: int) -> tuple[Tensor, Tensor]:
        return torch.randn(n, *features, generator=draw), torch.randint(classes, (n,), generator=draw)

    return Split(*part(train), *part(others), *part(others))


def no_masks(_: Snapshot) -> Masks:
    return {}


def weights(start: Snapshot) -> list[str]:
    return [name for name, value in start.params.items() if value.dim() > 1]


def random_masks(start: Snapshot, density: float = 0.4) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(5)
    return {name: torch.rand(start.params[name].shape, generator=draw) < density for name in weights(start)}


def nothing_left(start: Snapshot) -> Masks:
    return {name: torch.zeros_like(mask) for name, mask in random_masks(start).items()}


def nothing_left_of_anything(start: Snapshot) -> Masks:
    return {name: torch.zeros_like(value, dtype=torch.bool) for name, value in start.params.items()}


def emptied(number: int, start: Snapshot) -> Masks:
    """One layer has lost all inputs, and all outputs of the layer before with them."""
    masks = random_masks(start)
    return {**masks, weights(start)[number]: torch.zeros_like(masks[weights(start)[number]])}


def dead_units(start: Snapshot) -> Masks:
    """In every layer a unit without inputs, one without outputs and one with neither; an unused input too."""
    masks = random_masks(start, 0.6)
    for mask in masks.values():
        mask[1], mask[3], mask[:, 2], mask[:, 3] = False, False, False, False
    return masks


def biases_too(start: Snapshot) -> Masks:
    masks = random_masks(start)
    return masks | {name: torch.arange(len(value)) % 2 == 0 for name, value in start.params.items() if value.dim() == 1}


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    split: Split
    masks: MakeMasks = no_masks
    how: dict[str, Any] = field(default_factory=dict)


FOUR = partial(mlp, 7, 9, 5, 4)
OF_FOUR = data((7,), 4)
NO_BIAS = partial(mlp, 7, 9, 5, 4, bias=False)
WIDE = partial(mlp, 3072, 1024, 1024, 10)
OF_WIDE = data((3, 32, 32), 10, 40, 8)
TWO_STEPS = {"iterations": 2, "eval_every": 1, "batch_size": 16, "lr": 1e-3}

CASES = {
    "wide, dense": Case(WIDE, OF_WIDE, how=TWO_STEPS),
    "wide, pruned": Case(WIDE, OF_WIDE, partial(random_masks, density=0.05), how=TWO_STEPS),
    "batch of one": Case(FOUR, OF_FOUR, random_masks, {"batch_size": 1}),
    "batch of one, dense": Case(FOUR, OF_FOUR, how={"batch_size": 1}),
    "batch of all": Case(FOUR, OF_FOUR, random_masks, {"batch_size": 50}),
    "one example": Case(FOUR, data((7,), 4, train=1), random_masks, {"batch_size": 1}),
    "one to validate and one to test": Case(FOUR, data((7,), 4, others=1), random_masks),
    "one iteration": Case(FOUR, OF_FOUR, random_masks, {"iterations": 1, "eval_every": 1}),
    "one layer": Case(partial(mlp, 7, 4), OF_FOUR, random_masks),
    "odd widths": Case(partial(mlp, 13, 17, 31, 3), data((13,), 3), random_masks),
    "just above a vector": Case(partial(mlp, 17, 33, 65, 3), data((17,), 3)),
    "one unit in each layer": Case(partial(mlp, 7, 1, 1, 4, activation=nn.Tanh), OF_FOUR),
    "one input": Case(partial(mlp, 1, 8, 4), data((1,), 4)),
    "one input, pruned": Case(partial(mlp, 1, 8, 4), data((1,), 4), random_masks),
    "one output": Case(partial(mlp, 7, 8, 1), data((7,), 1), random_masks),
    "one of everything": Case(partial(mlp, 1, 1), data((1,), 1, train=1, others=1), how={"batch_size": 1}),
    "deep": Case(partial(mlp, 7, *[3] * 9, 4, activation=nn.Tanh), OF_FOUR),
    "deep, pruned": Case(partial(mlp, 7, *[3] * 9, 4, activation=nn.Tanh), OF_FOUR, partial(random_masks, density=0.8)),
    "images": Case(partial(mlp, 28, 6, 4), data((1, 4, 7), 4), random_masks),
    "first layer emptied": Case(FOUR, OF_FOUR, partial(emptied, 0)),
    "second layer emptied": Case(FOUR, OF_FOUR, partial(emptied, 1)),
    "last layer emptied": Case(FOUR, OF_FOUR, partial(emptied, 2)),
    "last layer emptied, no bias": Case(NO_BIAS, OF_FOUR, partial(emptied, 2)),
    "dead units": Case(FOUR, OF_FOUR, dead_units),
    "dead units, no bias": Case(NO_BIAS, OF_FOUR, dead_units),
    "dead units, sigmoid": Case(partial(mlp, 7, 9, 5, 4, activation=nn.Sigmoid), OF_FOUR, dead_units),
    "masks on biases": Case(FOUR, OF_FOUR, biases_too),
    "density 0": Case(FOUR, OF_FOUR, nothing_left),
    "density 0, no bias": Case(NO_BIAS, OF_FOUR, nothing_left),
    "density 0, biases too": Case(FOUR, OF_FOUR, nothing_left_of_anything),
}
RULES: dict[str, dict[str, Any]] = {
    "adam": {"weight_decay": 1e-2},
    "momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2},
}


def close(ours: TrainOutcome, theirs: TrainOutcome) -> None:
    assert theirs.result is RunResult.FINISHED
    assert (ours.sentence, ours.iterations, ours.curve.steps) == (
        theirs.sentence,
        theirs.iterations,
        theirs.curve.steps,
    )
    assert ours.curve.loss == pytest.approx(theirs.curve.loss, rel=1e-5, abs=1e-7)
    assert ours.curve.accuracy == theirs.curve.accuracy
    assert ours.test_accuracy == theirs.test_accuracy
    for at in (0, theirs.end.step):
        assert list(ours.saved[at].params) == list(theirs.saved[at].params)
        for name, value in theirs.saved[at].params.items():
            # Of the whole tensor: under Adam the sign of a gradient that is rounding alone moves a weight by the rate.
            assert float((ours.saved[at].params[name] - value).norm()) <= 1e-4 * float(value.norm()) + 1e-6


WAYS = [("adam", loss) for loss in LOSSES] + [("momentum", "cross-entropy")]


@pytest.mark.parametrize(
    ("name", "rule", "loss"),
    [(name, *way) for name in CASES for way in WAYS if way == WAYS[0] or not name.startswith("wide,")],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_it_trains_as_in_the_plain_loop(engine: str, name: str, rule: str, loss: str) -> None:
    """One job alone, and (but for the wide ones) three together: other orders, and one of them dense."""
    case = CASES[name]
    settings = {"iterations": 12, "batch_size": 8, "lr": 0.01, "eval_every": 3, **RULES[rule], **case.how}
    how = Recipe(**settings, loss=loss)
    start = models.initial(case.build, Seed(2))
    job = TrainJob(start, case.masks(start), Seed(2), how.iterations, (0, how.iterations))
    jobs = [job, replace(job, seed=Seed(2, 0, 1)), replace(job, masks={})][: 1 if case.build is WIDE else 3]
    plain = PlainTrainer(case.build, lambda _: case.split, how)(jobs)
    train = TRAINERS[engine](case.build, lambda _: case.split, how)
    alone = [0] if len(jobs) > 1 else []
    numbers = [*range(len(jobs)), *alone]
    for number, ours in zip(numbers, [*train(jobs), *train([jobs[n] for n in alone])], strict=True):
        close(ours, plain[number])
        for weight, mask in jobs[number].masks.items():
            assert not bool(ours.end.params[weight][~mask].any())


@pytest.mark.parametrize("engine", ["plain", *ENGINES])
def test_one_class_has_no_loss_and_no_gradient(engine: str) -> None:
    case = CASES["one output"]
    start = models.initial(case.build, Seed(2))
    how = Recipe(iterations=6, batch_size=8, eval_every=2, optimizer="sgd", lr=0.1)
    (run,) = TRAINERS[engine](case.build, lambda _: case.split, how)([TrainJob(start, {}, Seed(2), 6)])
    assert run.curve.loss == (0.0, 0.0, 0.0)
    assert run.curve.accuracy == (1.0, 1.0, 1.0)
    assert all(torch.equal(run.end.params[name], value) for name, value in start.params.items())
    assert (run.early_stop_iteration, run.censored) == (2, False)


@pytest.mark.parametrize("engine", ["plain", *ENGINES])
def test_with_nothing_left_every_class_is_as_likely(engine: str) -> None:
    """At density 0, without biases, the logits are 0: the loss is ln C throughout."""
    start = models.initial(NO_BIAS, Seed(2))
    how = Recipe(iterations=6, batch_size=8, eval_every=2, lr=0.1, weight_decay=0.1)
    job = TrainJob(start, nothing_left(start), Seed(2), 6)
    (run,) = TRAINERS[engine](NO_BIAS, lambda _: OF_FOUR, how)([job])
    assert run.curve.loss == pytest.approx([math.log(4)] * 3, rel=1e-6)
    assert not any(bool(value.any()) for value in run.end.params.values())


@pytest.mark.parametrize("engine", ["plain", *ENGINES])
def test_with_the_first_layer_emptied_every_example_is_alike(engine: str) -> None:
    """No input is seen, so the network learns how frequent the classes are and nothing else."""
    start = models.initial(FOUR, Seed(2))
    how = Recipe(iterations=60, batch_size=50, eval_every=20, lr=0.05)
    job = TrainJob(start, emptied(0, start), Seed(2), 60)
    (run,) = TRAINERS[engine](FOUR, lambda _: OF_FOUR, how)([job])
    of_class = torch.bincount(OF_FOUR.val_y, minlength=4) / len(OF_FOUR.val_y)
    assert all(min(abs(accuracy - float(share)) for share in of_class) < 1e-6 for accuracy in run.curve.accuracy)
