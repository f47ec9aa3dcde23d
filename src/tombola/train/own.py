"""A user's own training loop as a trainer: one network at a time, masks attached, whatever the loop does inside."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, SupportsFloat, final

import numpy
import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from tombola.attach import attach
from tombola.errors import InvalidValue
from tombola.prune.rewinding import masked
from tombola.seeds import derive
from tombola.stats.early_stop import early_stop
from tombola.train.plain import load
from tombola.train.ranks import agreed, check_start
from tombola.train.record import Lost, Record, number, snapshot_of
from tombola.train.run import check_fixed
from tombola.train.watch import Unwatched, Watcher
from tombola.types import Curve, Masks, RunResult, Seed, Snapshot, Step, TrainJob, TrainOutcome


class TrainLoop(Protocol):
    """A user's training loop: trains the module it is given, in place.

    ``seed`` decides the data order and everything else that is random; it is the same for the dense run, the ticket
    and the controls of a family. ``iterations`` is how many to train. It may return the network's final score.
    """

    def __call__(self, model: nn.Module, /, *, seed: int, iterations: int, record: Record) -> SupportsFloat | None: ...


EvaluateFn = Callable[[nn.Module], SupportsFloat]
"""Network -> its score on the test split, larger is better; called on finished networks only, in evaluation mode."""


@final
@dataclass
class OwnTrainer:
    """Trains one network after another through a loop that is not ours.

    Each run gets a new module with the job's values in it and its masks attached, and global generators (torch, numpy,
    Python) seeded by the run; the caller's are left as they were.

    Attributes:
        build: makes the module; called once per job.
        train: the loop.
        evaluate: the score of a finished network; ``None`` where the loop returns it.
        watcher: told of every report.
        check: raises for a score that cannot be one; called with every finite score.
    """

    build: Callable[[], nn.Module]
    train: TrainLoop
    evaluate: EvaluateFn | None = None
    watcher: Watcher = field(default_factory=Unwatched)
    check: Callable[[float], object] = lambda _: None

    def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        """Train every job in turn.

        Raises:
            InvalidValue: the loop or the score breaks its contract, or brings pruned weights back; or a job changes its
                masks or accumulates how weights moved, which takes an engine of ours.
            RanksDiffer: the processes of a distributed run were given different masks or start values.
            KeyboardInterrupt: the watcher wants to stop; seen at the loop's next report.
        """
        return [self.train_one(job, number) for number, job in enumerate(jobs)]

    def train_one(self, job: TrainJob, number: int = 0) -> TrainOutcome:
        """Train one job; ``number`` is what the watcher is told."""
        try:
            check_fixed(job, "a training loop of your own")
            if job.fraction != 1:
                raise InvalidValue(
                    f"the run {job.name!r} is to see {job.fraction:g} of the examples, and a loop of your own draws "
                    "them. Give it less data, or leave round-data out."
                )
            with _own_generators():
                return _Run(self, job, number).outcome()
        except Exception as error:
            error.add_note(f"(in the run {job.name!r} of family {job.seed.replicate}, from iteration "
                           f"{job.start.step} to {job.stop})")  # fmt: skip
            raise


@final
class _Run:
    """One job in progress."""

    def __init__(self, trainer: OwnTrainer, job: TrainJob, number: int) -> None:
        self.trainer, self.job, self.number = trainer, job, number
        self.stopped = job.stop
        check_start(job)
        _seed_everything(derive(job.seed, "init"))
        self.model = trainer.build()
        load(self.model, masked(job.start, job.masks))
        self.steps = _StepsSeen(self.model)
        self.record = Record(job, self.model, self._heard, lambda: self.steps.count > 0)

    def outcome(self) -> TrainOutcome:
        began = time.perf_counter()
        returned, lost = self._train()
        end = snapshot_of(self.model, self.job.stop, self.job.masks)
        if lost is None and not all(bool(torch.isfinite(value).all()) for value in end.params.values()):
            lost = f"diverged: the weights are not finite after iteration {self.job.stop}"
        score = early = None
        if lost is None:
            score, early, lost = self._scores(end, returned)
        outcome = self._assemble(end, returned, score, early, lost)
        self.trainer.watcher.evaluated(self.number, self.job.stop, math.nan, math.nan)
        return agreed(
            replace(
                outcome,
                seconds=time.perf_counter() - began,
                optimizer_steps=self.steps.count or None,
                rate_fell=self.steps.rate_fell,
            )
        )

    def _train(self) -> tuple[float | None, str | None]:
        """Run the loop under the masks; give what it returned, and how it was lost if it was."""
        job, record = self.job, self.record
        self.model.train()
        seed = loop_seed(job.seed)
        _seed_everything(seed)
        with attach(self.model, job.masks), self.steps:
            try:
                returned = self.trainer.train(
                    self.model, seed=seed, iterations=job.stop - job.start.step, record=record
                )
            except Lost as error:
                # It went no further than it said.
                self.stopped = max((step for step, _, _ in record.seen), default=job.stop)
                return None, str(error)
            _check_zeros(self.model, job.masks)
        if record.lost is not None:
            return None, record.lost
        self._check_trained()
        missing = sorted(set(job.save_at) - set(record.saved) - {job.start.step})
        if missing:
            heard = ", ".join(str(step) for step, _, _ in record.seen[:4]) or "none"
            raise InvalidValue(
                f"the search rewinds to step {missing[0]} and needs the network there; the loop reported {heard}. "
                f"Call record({missing[0]}) after that iteration, or record.checkpoint({missing[0]}, state_dict)."
            )
        if returned is None:
            return None, None
        return number(returned, "what the training loop returns (its score, or nothing)"), None

    def _check_trained(self) -> None:
        params = dict(self.model.named_parameters())
        start = masked(self.job.start, self.job.masks).params
        now = {name: params[name].detach().cpu() for name in start if name in params}
        if all(value.dtype == start[name].dtype and torch.equal(value, start[name]) for name, value in now.items()):
            raise InvalidValue(
                "the training loop left the network as it was: every parameter has the value that it started with. A "
                "loop trains the module that it is given, in place; not a copy of it."
            )

    def _scores(self, end: Snapshot, returned: float | None) -> tuple[float | None, float | None, str | None]:
        """Score the network after the last iteration and at the early stop; or say why there is no score."""
        if self.trainer.evaluate is None:
            if returned is None:
                raise InvalidValue(
                    "the training loop returned nothing and there is no evaluate, so the network has no score. Let "
                    "the loop return it, or give evaluate(model)."
                )
            lost = None if math.isfinite(returned) else f"diverged: the loop returned a score of {returned}"
            if lost is None:
                self.trainer.check(returned)
            return returned, None, lost
        score = self._evaluate(end)
        if not math.isfinite(score):
            return None, None, f"diverged: the score is {score} after iteration {self.job.stop}"
        best = self.record.best
        if best is None:
            return score, None, None
        early = score if _same(best, end) else self._evaluate(best)
        if not math.isfinite(early):
            return None, None, f"diverged: the score is {early} at the early stop, iteration {best.step}"
        return score, early, None

    def _evaluate(self, snapshot: Snapshot) -> float:
        assert self.trainer.evaluate is not None
        load(self.model, snapshot)
        self.model.eval()
        # One seed for every run of the study: a score on a random subset is then a score on one subset.
        _seed_everything(derive(Seed(self.job.seed.root), "split"))
        score = number(self.trainer.evaluate(self.model), "what evaluate returns (the network's score)")
        if math.isfinite(score):
            self.trainer.check(score)
        return score

    def _assemble(
        self, end: Snapshot, returned: float | None, score: float | None, early: float | None, lost: str | None
    ) -> TrainOutcome:
        job, record = self.job, self.record
        seen = list(record.seen)
        if self.trainer.evaluate is not None and returned is not None and not any(math.isfinite(a) for _, _, a in seen):
            # What a loop returns beside evaluate is its own validation of the network it leaves.
            seen.append((job.stop, math.nan, returned))
        with_loss = [(step, loss) for step, loss, _ in seen if math.isfinite(loss)]
        argmin, censored = None, False
        if with_loss and lost is None:
            argmin, censored = early_stop([step for step, _ in with_loss], [loss for _, loss in with_loss])
        columns = tuple(zip(*seen, strict=True)) or ((), (), ())
        return TrainOutcome(
            result=RunResult.FINISHED if lost is None else RunResult.DIVERGED,
            sentence=lost or f"trained to iteration {job.stop}",
            end=end,
            best=record.best or end,
            saved=record.saved,
            curve=Curve(*columns),
            early_stop_iteration=argmin,
            censored=censored,
            test_accuracy=score,
            test_accuracy_at_early_stop=early,
            iterations=self.stopped - job.start.step,
            seconds=0.0,
        )

    def _heard(self, step: Step, loss: float, accuracy: float) -> None:
        if self.trainer.watcher.stop():
            raise KeyboardInterrupt(f"{self.job.name}: interrupted at iteration {step} of {self.job.stop}")
        self.trainer.watcher.evaluated(self.number, step, loss, accuracy)


def loop_seed(seed: Seed) -> int:
    """Give the seed that a loop gets: 31 bits, which every library's generator takes."""
    return derive(seed, "order") >> 32


def _check_zeros(model: nn.Module, masks: Masks) -> None:
    """Refuse a run in which pruned weights came back: the network that was trained is not the ticket."""
    params = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in params:
            raise InvalidValue(
                f"the parameter {name!r} is gone after training. A loop trains the module that it is given, in place; "
                "it may wrap it, not rebuild it."
            )
        alive = int((params[name].detach()[~mask.to(params[name].device)] != 0).sum())
        if alive:
            raise InvalidValue(
                f"{alive} pruned weights of {name!r} are not zero after training. Masks hold through every "
                "torch.optim optimiser; after each step of another, or after writing to weights by hand, call "
                "tombola.attach.attached(model).reapply(), and do not detach the masks."
            )


def _same(first: Snapshot, second: Snapshot) -> bool:
    return all(
        torch.equal(value, other[name])
        for mine, other in ((first.params, second.params), (first.buffers, second.buffers))
        for name, value in mine.items()
    )


@final
class _StepsSeen:
    """Counts the steps of optimisers that hold a network's parameters, and looks at their learning rates."""

    def __init__(self, model: nn.Module) -> None:
        self.count = 0
        self._ids = {id(param) for param in model.parameters()}
        self._rates: dict[int, tuple[float, float]] = {}
        """Per parameter the highest rate and the last, whichever optimiser had it."""
        self.rate_fell = False
        """Whether a learning rate was lower at the last step than at its highest."""

    def __enter__(self) -> "_StepsSeen":
        self._handle = register_optimizer_step_post_hook(self._after_step)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()
        self.rate_fell = any(last < 0.99 * highest for highest, last in self._rates.values())

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG002
        seen = False
        for group in optimizer.param_groups:
            rate = float(group.get("lr", 0.0))
            for key in map(id, group["params"]):
                if key in self._ids:
                    seen = True
                    self._rates[key] = max(self._rates.get(key, (0.0, 0.0))[0], rate), rate
        self.count += seen


def _seed_everything(number: int) -> None:
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    random.seed(number)
    numpy.random.seed(number % 2**32)


@contextmanager
def _own_generators() -> Iterator[None]:
    """Leave the caller's generators as they were."""
    ours, theirs = random.getstate(), numpy.random.get_state()
    in_use: Callable[[], bool] = torch.cuda.is_initialized
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if in_use() else ()):
            yield
    finally:
        random.setstate(ours)
        numpy.random.set_state(theirs)
