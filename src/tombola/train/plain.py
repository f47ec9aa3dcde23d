"""The plain PyTorch loop: what a good researcher would write, and the reference for every other engine."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.data import Split
from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune.rewinding import masked
from tombola.seeds import derive
from tombola.stats.early_stop import early_stop
from tombola.train.order import BatchOrder
from tombola.train.recipe import Recipe
from tombola.types import Curve, RunResult, Seed, Snapshot, Step, TrainJob, TrainOutcome

_EVALUATION_CHUNK = 500


class Watcher(Protocol):
    """Who watches a run: told of every evaluation, asked before every iteration whether to stop."""

    def evaluated(self, job: int, step: Step, loss: float, accuracy: float) -> None: ...

    def stop(self) -> bool: ...


@final
class Unwatched:
    """Nobody watches."""

    def evaluated(self, job: int, step: Step, loss: float, accuracy: float) -> None:
        """Do nothing."""

    def stop(self) -> bool:
        """Go on."""
        return False


@final
@dataclass
class PlainTrainer:
    """Trains one network after another in eager PyTorch.

    Cross-entropy on a classification split held in memory. One intra-op thread on the CPU, so that results do not
    depend on how many cores there are. A pruned weight starts at zero and its gradient is zeroed before the optimiser
    sees it, so momentum, Adam's moments and weight decay leave it at zero. The caller's random state and thread count
    are left as they were.

    Attributes:
        build: makes the module; called once per job.
        splits: seed -> the data, on the CPU.
        recipe: how to train.
        device: ``cpu`` or ``cuda[:n]``.
        watcher: told of every evaluation.
    """

    build: Callable[[], nn.Module]
    splits: Callable[[Seed], Split]
    recipe: Recipe
    device: str = "cpu"
    watcher: Watcher = field(default_factory=Unwatched)

    def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        """Train every job in turn.

        Raises:
            ShapeMismatch: a job's tensors do not fit the module.
            DataTooSmall: the batch is larger than the training split.
        """
        return [self.train_one(job, number) for number, job in enumerate(jobs)]

    def train_one(self, job: TrainJob, number: int = 0) -> TrainOutcome:
        """Train one job; ``number`` is what the watcher is told."""
        with _one_thread(self.device), torch.random.fork_rng(devices=_cuda(self.device)):
            return _Run(self, job, number).outcome()


@final
class _Run:
    """One job in progress."""

    def __init__(self, trainer: PlainTrainer, job: TrainJob, number: int) -> None:
        self.recipe, self.job, self.number, self.watcher = trainer.recipe, job, number, trainer.watcher
        if not job.start.step <= job.stop:
            raise InvalidValue(f"a job starts at step {job.start.step} and stops at {job.stop}; it must not run back.")
        self.device = torch.device(trainer.device)
        self.split = split = trainer.splits(job.seed)
        self.train_x, self.train_y = split.train_x.to(self.device), split.train_y.to(self.device)
        self.val = split.val_x.to(self.device), split.val_y.to(self.device)
        self.order = BatchOrder(len(self.train_y), self.recipe.batch_size, job.seed)
        # What a network draws when it is built and keeps outside its state dict is drawn as it was for theta_0.
        _seed_global(derive(job.seed, "init"), self.device)
        self.model = trainer.build().to(self.device)
        self.params = dict(self.model.named_parameters())
        start = masked(job.start, job.masks)
        load(self.model, start)
        self.masked = [self.params[name] for name in job.masks]
        self.factors = [mask.to(self.device, self.params[name].dtype) for name, mask in job.masks.items()]
        self.optimizer = make_optimizer(self.recipe, self.params, self.device)
        if start.optimizer is not None:
            _load_state(self.optimizer, self.params, start.optimizer)
        self.lr_moves = self.recipe.schedule != "constant" or self.recipe.warmup > 0

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
        """Go through the iterations, keeping what was asked for and what validation saw."""
        job = self.job
        self.step = job.start.step
        self.seen: list[tuple[Step, float, float]] = []
        self.best = self._snapshot(self.step, with_optimizer=False)
        self.saved: dict[Step, Snapshot] = {}
        self._save_if_asked()
        lowest = math.inf
        self.model.train()
        while self.step < job.stop:
            if self.watcher.stop():
                return RunResult.INTERRUPTED, f"interrupted at iteration {self.step} of {job.stop}"
            self._iterate(self.step)
            self.step += 1
            self._save_if_asked()
            if self.step % self.recipe.eval_every and self.step != job.stop:
                continue
            loss, accuracy = evaluate(self.model, *self.val)
            self.seen.append((self.step, loss, accuracy))
            self.watcher.evaluated(self.number, self.step, loss, accuracy)
            if not math.isfinite(loss):
                return RunResult.DIVERGED, f"diverged: the validation loss is {loss} at iteration {self.step}"
            if loss < lowest:
                lowest, self.best = loss, self._snapshot(self.step, with_optimizer=False)
        return RunResult.FINISHED, f"trained to iteration {job.stop}"

    def _iterate(self, step: Step) -> None:
        # Dropout and anything else that draws is seeded by position, so that a rewound run draws what its dense run
        # drew there.
        _seed_global(derive(self.job.seed, "dropout", step), self.device)
        if self.lr_moves:
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.lr_at(step)
        batch = self.order.at(step).to(self.device)
        x, y = self.train_x.index_select(0, batch), self.train_y.index_select(0, batch)
        loss = functional.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        pairs = [(p.grad, factor) for p, factor in zip(self.masked, self.factors, strict=True) if p.grad is not None]
        if pairs:
            torch._foreach_mul_([grad for grad, _ in pairs], [factor for _, factor in pairs])
        self.optimizer.step()

    def _slots(self) -> dict[str, dict[str, Tensor]]:
        return {
            name: {
                slot: value.detach().cpu().clone()
                for slot, value in self.optimizer.state[p].items()
                if isinstance(value, Tensor)
            }
            for name, p in self.params.items()
            if p in self.optimizer.state
        }

    def _save_if_asked(self) -> None:
        if self.step in self.job.save_at:
            self.saved[self.step] = self._snapshot(self.step, with_optimizer=self.job.with_optimizer)

    def _snapshot(self, step: Step, *, with_optimizer: bool) -> Snapshot:
        return Snapshot(
            step=step,
            params={name: p.detach().cpu().clone() for name, p in self.params.items()},
            buffers={name: b.detach().cpu().clone() for name, b in buffers(self.model).items()},
            optimizer=(self._slots() or None) if with_optimizer else None,
        )

    def _test(self, snapshot: Snapshot) -> float:
        load(self.model, snapshot)
        return evaluate(self.model, self.split.test_x.to(self.device), self.split.test_y.to(self.device))[1]


def evaluate(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Give mean cross-entropy (nats) and accuracy (fraction) in evaluation mode; the mode is restored."""
    was_training = model.training
    model.eval()
    loss, right = 0.0, 0
    with torch.no_grad():
        for first in range(0, len(y), _EVALUATION_CHUNK):
            logits = model(x[first : first + _EVALUATION_CHUNK])
            target = y[first : first + _EVALUATION_CHUNK]
            loss += float(functional.cross_entropy(logits, target, reduction="sum"))
            right += int((logits.argmax(1) == target).sum())
    model.train(was_training)
    return loss / len(y), right / len(y)


def buffers(model: nn.Module) -> dict[str, Tensor]:
    """Give the buffers that belong to the state dict."""
    state = model.state_dict(keep_vars=True)
    return {name: value for name, value in model.named_buffers() if name in state}


def load(model: nn.Module, snapshot: Snapshot) -> None:
    """Copy a snapshot's parameters and buffers into a module.

    Raises:
        ShapeMismatch: names or shapes differ.
    """
    for kind, own, given in (
        ("parameter", dict(model.named_parameters()), snapshot.params),
        ("buffer", buffers(model), snapshot.buffers),
    ):
        if own.keys() != given.keys():
            odd = ", ".join(sorted(own.keys() ^ given.keys()))
            raise ShapeMismatch(f"the module and the start values do not have the same {kind}s: {odd} is in one only.")
        with torch.no_grad():
            for name, value in given.items():
                if own[name].shape != value.shape:
                    raise ShapeMismatch(
                        f"{kind} {name!r} has shape {tuple(own[name].shape)} in the module and "
                        f"{tuple(value.shape)} in the start values. They come from different models."
                    )
                own[name].copy_(value)


def make_optimizer(recipe: Recipe, params: dict[str, nn.Parameter], device: torch.device) -> torch.optim.Optimizer:
    """Make the recipe's optimiser over all parameters, fused where torch has it."""
    fused = device.type in ("cpu", "cuda") and all(p.is_floating_point() for p in params.values())
    values = list(params.values())
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            values,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=fused,
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(values, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused)


def _load_state(
    optimizer: torch.optim.Optimizer,
    params: Mapping[str, nn.Parameter],
    saved: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Put saved moments back; they are copied, for the optimiser changes its own in place."""
    for name, slots in saved.items():
        if name not in params or any(value.dim() and value.shape != params[name].shape for value in slots.values()):
            raise ShapeMismatch(f"the saved optimiser state of {name!r} fits no parameter. It is another model's.")
    state = {
        number: {slot: value.clone() for slot, value in saved[name].items()}
        for number, name in enumerate(params)
        if name in saved
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _seed_global(seed: int, device: torch.device) -> None:
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _cuda(device: str) -> list[torch.device]:
    return [torch.device(device)] if device.startswith("cuda") else []


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """Train on one intra-op thread: sums over several are taken in another order, so bits would depend on the count."""
    before = torch.get_num_threads()
    if not device.startswith("cpu"):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
