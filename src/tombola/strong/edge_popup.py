"""Strong tickets by learning: the mask of a random network is trained, and its weights are left as they were drawn."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import nn

from tombola import models
from tombola.errors import Diverged, InvalidValue, UnknownName
from tombola.prune.masks import counts, density, ones
from tombola.seeds import generator
from tombola.stats.comparison import mean_interval
from tombola.ticket import Ticket
from tombola.ticket.canonical import digest
from tombola.types import Masks, RunResult, ScoreRule, Seed, Snapshot, TrainFn, TrainJob, TrainOutcome

INITS: Final = ("signed-constant", "kaiming-normal")
"""How the weights are drawn: Ramanujan et al. (2020), section 3.1."""


@final
@dataclass(frozen=True)
class Learned:
    """One random network, and the subnetwork that was found in it.

    Attributes:
        seed: of the network and of the scores.
        weights: the random network, never trained.
        masks: over its weights; they are what the scores chose at the end.
        scales: name -> what the tensor's weights are multiplied by beside the mask; empty where by nothing.
        digest: of the random weights that the training was given, and that are the ticket's.
        run: the training of the scores; in its snapshots they stand in the weights' place.
        accuracy: on the test split, a fraction.
    """

    seed: Seed
    weights: Snapshot
    masks: Masks
    scales: Mapping[str, float]
    digest: str
    run: TrainOutcome
    accuracy: float

    @property
    def density(self) -> float:
        """The share of the weights that is in."""
        return density(self.masks)

    def ticket(self, about: Mapping[str, Any]) -> Ticket:
        """Give the subnetwork as a ticket: its start values are the random weights, and they are its last."""
        scales = {"scales": dict(self.scales)} if self.scales else {}
        reported = {"test_accuracy": self.accuracy, "trained": False}
        return Ticket(self.weights.params, self.masks, self.weights.buffers, {**about, **scales, "untrained": reported})


def random_network(
    build: Callable[[], nn.Module], seed: Seed, init: str, share: float
) -> tuple[Snapshot, tuple[str, ...]]:
    """Draw a random network for a subnetwork of a density.

    Ramanujan et al. (2020), section 3.1: weights of a standard deviation of sqrt(2 / (k fan-in)), the fan-in that is
    left; normal, or a sign times that. Biases are 0, as the authors' networks have none; batch norm is left as it is
    built, which for torch's own is 1 and 0.

    Args:
        build: makes the module.
        seed: of the draw.
        init: one of ``INITS``.
        share: k, in (0, 1].

    Returns:
        the network at step 0, and the names of its weights: every parameter of two axes and more.

    Raises:
        UnknownName: no such init.
        InvalidValue: no parameter has two axes.
    """
    if init not in INITS:
        raise UnknownName.among("init", init, INITS)
    built = models.initial(build, seed)
    names = tuple(name for name, value in built.params.items() if value.dim() > 1)
    if not names:
        raise InvalidValue("the network has no weight of two axes or more, so there is nothing to choose from.")
    rng = generator(seed, "init", "random", init)
    params = {}
    for name, value in built.params.items():
        if name in names:
            drawn = torch.randn(value.shape, generator=rng, dtype=torch.float32)
            deviation = math.sqrt(2 / (share * value[0].numel()))
            params[name] = (drawn.sign() if init == "signed-constant" else drawn) * deviation
        else:
            params[name] = torch.zeros_like(value) if name.endswith("bias") else value
    return Snapshot(0, params, built.buffers), names


def learn(
    build: Callable[[], nn.Module],
    trainer: AbstractContextManager[TrainFn],
    seeds: Sequence[Seed],
    rule: ScoreRule,
    iterations: int,
    *,
    init: str = "signed-constant",
    share: float = 1.0,
) -> list[Learned]:
    """Learn which weights of random networks are in.

    Args:
        build: makes the module.
        trainer: gives the training routine of the plain engine.
        seeds: one for each network.
        rule: of the scores: :class:`~tombola.prune.learned.Popup` or :class:`~tombola.prune.learned.Supermask`.
        iterations: of each training.
        init: as for :func:`random_network`.
        share: the density that the initialisation allows for.

    Raises:
        Diverged: a run did.
        KeyboardInterrupt: one was interrupted.
        InvalidValue: the weights were changed, which is a fault of the trainer.
    """
    drawn = [random_network(build, seed, init, share) for seed in seeds]
    before = [digest(network.params, "") for network, _ in drawn]
    jobs = [
        TrainJob(
            network, ones(network.params, names), seed, iterations, with_optimizer=False, name="scores", scores=rule
        )
        for seed, (network, names) in zip(seeds, drawn, strict=True)
    ]
    with trainer as train:
        runs = train(jobs)
    return [_found(job, run, rule, was) for job, run, was in zip(jobs, runs, before, strict=True)]


def _found(job: TrainJob, run: TrainOutcome, rule: ScoreRule, before: str) -> Learned:
    if run.result is RunResult.INTERRUPTED:
        raise KeyboardInterrupt(run.sentence)
    if run.result is RunResult.DIVERGED or run.test_accuracy is None:
        raise Diverged(f"the scores of replicate {job.seed.replicate} {run.sentence}. Lower their learning rate.")
    after = digest(job.start.params, "")
    if after != before:
        raise InvalidValue("the random weights are not what they were before the training of the scores.")
    alive = {name: mask.to(torch.float32) for name, mask in job.masks.items()}
    with torch.no_grad():
        factors = rule.factors({name: run.end.params[name] for name in job.masks}, alive, None)
    scales = {name: float(factor.max()) for name, factor in factors.items()}
    return Learned(
        seed=job.seed,
        weights=job.start,
        masks={name: factor != 0 for name, factor in factors.items()},
        scales=scales if any(value != 1 for value in scales.values()) else {},
        digest=after,
        run=run,
        accuracy=run.test_accuracy,
    )


def summary(found: Sequence[Learned], rule: ScoreRule, init: str) -> dict[str, Any]:
    """Give what was found as plain values: the keys of ``result.json``."""
    accuracies = [one.accuracy for one in found]
    interval = None
    if len(found) > 1:
        interval = mean_interval(accuracies, 0.05)
    first = found[0]
    kept = counts(first.masks)
    return {
        "rule": dict(rule.describe()),
        "init": init,
        "replicates": len(found),
        "test_accuracy": accuracies,
        "mean": sum(accuracies) / len(found),
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "density": [one.density for one in found],
        "layers": {name: {"kept": kept[name], "total": mask.numel()} for name, mask in first.masks.items()},
        "weights_digest": [one.digest for one in found],
        "seconds": sum(one.run.seconds for one in found),
        "curve": {name: list(values) for name, values in vars(first.run.curve).items()},
    }
