"""The sparse engine: training costs as much as there are weights left. For feed-forward networks, on the CPU."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import torch
from torch import Tensor, nn

from tombola.data import Split
from tombola.errors import InvalidValue
from tombola.prune.rewinding import masked
from tombola.seeds import derive, generator
from tombola.sparse import Rule, SparseNetwork, read_chain, why_not
from tombola.stats.early_stop import early_stop
from tombola.train.order import BatchOrder
from tombola.train.plain import Unwatched, Watcher, buffers, load
from tombola.train.recipe import Recipe
from tombola.types import Curve, RunResult, Seed, Snapshot, Step, TrainJob, TrainOutcome

__all__ = ["SparseTrainer", "why_not"]

_SECONDS_A_CALL: Final = 0.1
_FLOATS_A_CALL: Final = 1 << 23
_ITERATIONS_A_CALL: Final = 1000

# Building a module draws from torch's one global generator, and reading it watches whether anything is drawn.
_BUILDING: Final = threading.Lock()


@final
@dataclass
class SparseTrainer:
    """Trains one network after another on compiled kernels that touch the surviving weights alone.

    What :class:`~tombola.train.plain.PlainTrainer` does, for the networks of which :func:`why_not` says nothing: the
    same batches, dropout masks, evaluation grid and ends, the same values but for the rounding of sums taken in another
    order, and the same bits on every run of one machine. Threads may train at once. It asks the watcher whether to stop
    before the first iteration and every tenth of a second.

    Attributes:
        build: makes the module; called once per job.
        splits: seed -> the data, on the CPU.
        recipe: how to train.
        device: ``cpu``.
        watcher: told of every evaluation.
    """

    build: Callable[[], nn.Module]
    splits: Callable[[Seed], Split]
    recipe: Recipe
    device: str = "cpu"
    watcher: Watcher = field(default_factory=Unwatched)

    def __post_init__(self) -> None:
        if self.device != "cpu":
            raise InvalidValue(f"the sparse engine runs on the CPU; the device is {self.device}. Use the plain engine.")

    def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        """Train every job in turn.

        Raises:
            InvalidValue: the network is not one for this engine.
            ShapeMismatch: a job's tensors do not fit the module.
            DataTooSmall: the batch is larger than the training split.
        """
        return [self.train_one(job, number) for number, job in enumerate(jobs)]

    def train_one(self, job: TrainJob, number: int = 0) -> TrainOutcome:
        """Train one job; ``number`` is what the watcher is told."""
        return _Run(self, job, number).outcome()


@final
class _Run:
    """One job in progress."""

    def __init__(self, trainer: SparseTrainer, job: TrainJob, number: int) -> None:
        self.recipe, self.job, self.number, self.watcher = trainer.recipe, job, number, trainer.watcher
        if not job.start.step <= job.stop:
            raise InvalidValue(f"a job starts at step {job.start.step} and stops at {job.stop}; it must not run back.")
        start = masked(job.start, job.masks)
        with _BUILDING, torch.random.fork_rng(devices=[]):
            self.split = split = trainer.splits(job.seed)
            torch.default_generator.manual_seed(derive(job.seed, "init"))
            model = trainer.build()
            load(model, start)
            chain = read_chain(model, split.val_x)
        self.train_data = _flat(split.train_x), split.train_y.contiguous()
        self.val_data = _flat(split.val_x), split.val_y.contiguous()
        self.order = _Order(len(split.train_y), self.recipe.batch_size, job.seed)
        params = {name: p.detach() for name, p in model.named_parameters()}
        self.buffers = {name: value.detach().clone() for name, value in buffers(model).items()}
        self.network = SparseNetwork(chain, params, job.masks, _rule(self.recipe), batch_size=self.recipe.batch_size)
        self.most = self.cap = max(1, min(_ITERATIONS_A_CALL, _FLOATS_A_CALL // max(1, self.network.dropout_floats)))
        if start.optimizer is not None:
            self.network.load_optimizer(start.optimizer)

    def outcome(self) -> TrainOutcome:
        """Train to the end and read the test split once for each of the two snapshots."""
        began = time.perf_counter()
        result, sentence = self._train()
        end = self._snapshot(self.step, with_optimizer=self.job.with_optimizer)
        steps, losses, accuracies = zip(*self.seen, strict=True) if self.seen else ((), (), ())
        finished = result is RunResult.FINISHED
        argmin, censored = early_stop(steps, losses) if finished else (None, False)
        return TrainOutcome(
            result=result,
            sentence=sentence,
            end=end,
            best=self.best,
            saved=self.saved,
            curve=Curve(steps, losses, accuracies),
            early_stop_iteration=argmin,
            censored=censored,
            test_accuracy=self._test(end) if finished else None,
            test_accuracy_at_early_stop=self._test(self.best) if finished else None,
            iterations=self.step - self.job.start.step,
            seconds=time.perf_counter() - began,
        )

    def _train(self) -> tuple[RunResult, str]:
        """Go from one position at which something is kept or looked at to the next."""
        job = self.job
        self.step = job.start.step
        self.seen: list[tuple[Step, float, float]] = []
        self.best = self._snapshot(self.step, with_optimizer=False)
        self.saved: dict[Step, Snapshot] = {}
        self._save_if_asked()
        lowest = math.inf
        while self.step < job.stop:
            if self.watcher.stop():
                return RunResult.INTERRUPTED, f"interrupted at iteration {self.step} of {job.stop}"
            looked_at = self._next_look()
            self.step += self._iterate(looked_at)
            self._save_if_asked()
            if self.step < looked_at or (self.step % self.recipe.eval_every and self.step != job.stop):
                continue
            loss, accuracy = self.network.evaluate(*self.val_data)
            self.seen.append((self.step, loss, accuracy))
            self.watcher.evaluated(self.number, self.step, loss, accuracy)
            if not math.isfinite(loss):
                return RunResult.DIVERGED, f"diverged: the validation loss is {loss} at iteration {self.step}"
            if loss < lowest:
                lowest, self.best = loss, self._snapshot(self.step, with_optimizer=False)
        return RunResult.FINISHED, f"trained to iteration {job.stop}"

    def _next_look(self) -> Step:
        every = self.recipe.eval_every
        grid = (self.step // every + 1) * every
        return min([grid, self.job.stop, *(at for at in self.job.save_at if at > self.step)])

    def _iterate(self, until: Step) -> int:
        """Make iterations, at most to a position; give how many were made."""
        asked = min(until - self.step, self.most)
        steps = range(self.step, self.step + asked)
        drawn = [self._draw(step) for step in steps] if self.network.dropout_floats else []
        made = self.network.train(
            *self.train_data,
            self.order.between(steps.start, steps.stop),
            [self.recipe.lr_at(step) for step in steps],
            dropout=[torch.stack(masks) for masks in zip(*drawn, strict=True)],
            seconds=_SECONDS_A_CALL,
        )
        # What was prepared and not used is prepared again: a slow network is asked for less.
        self.most = min(self.cap, 2 * (made if made < asked else self.most))
        return made

    def _draw(self, step: Step) -> list[Tensor]:
        # Seeded by position, as in the plain loop, so that a rewound run draws what its dense run drew there.
        return self.network.draw_dropout(generator(self.job.seed, "dropout", step))

    def _save_if_asked(self) -> None:
        if self.step in self.job.save_at:
            self.saved[self.step] = self._snapshot(self.step, with_optimizer=self.job.with_optimizer)

    def _snapshot(self, step: Step, *, with_optimizer: bool) -> Snapshot:
        return Snapshot(
            step=step,
            params=self.network.params(),
            buffers={name: value.clone() for name, value in self.buffers.items()},
            optimizer=self.network.optimizer() if with_optimizer else None,
        )

    def _test(self, snapshot: Snapshot) -> float:
        self.network.load_params(snapshot.params)
        return self.network.evaluate(_flat(self.split.test_x), self.split.test_y.contiguous())[1]


@final
class _Order:
    """The batches of :class:`BatchOrder`, many at a time."""

    def __init__(self, examples: int, batch_size: int, seed: Seed) -> None:
        BatchOrder(examples, batch_size, seed)
        self._examples, self._batch = examples, batch_size
        # Batches as large as the data are its epochs.
        self._epochs = BatchOrder(examples, examples, seed)
        self._held: dict[int, Tensor] = {}

    def between(self, first: Step, last: Step) -> Tensor:
        """Give the example numbers of steps ``first .. last - 1``: int64, shape ``[last - first, batch_size]``."""
        begin, end = first * self._batch, last * self._batch
        epochs = range(begin // self._examples, (end - 1) // self._examples + 1)
        self._held = {e: self._held[e] if e in self._held else self._epochs.at(e) for e in epochs}
        offset = begin - epochs.start * self._examples
        return torch.cat(list(self._held.values()))[offset : offset + end - begin].reshape(-1, self._batch)


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1).contiguous()


def _rule(recipe: Recipe) -> Rule:
    if recipe.optimizer != "sgd":
        return Rule(recipe.optimizer, weight_decay=recipe.weight_decay)
    kind = "nesterov" if recipe.nesterov else "momentum" if recipe.momentum else "sgd"
    return Rule(kind, recipe.momentum, recipe.weight_decay)
