"""The plain PyTorch loop: what a good researcher would write, and the reference for every other engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from tombola.data import Split
from tombola.errors import ShapeMismatch
from tombola.models import state_buffers, unseen_state
from tombola.prune.rewinding import masked
from tombola.seeds import derive
from tombola.train.loss import mean_loss, sum_loss
from tombola.train.optimizer import load_slots, make_optimizer, slots_of
from tombola.train.order import BatchOrder
from tombola.train.process import seed_global, undisturbed
from tombola.train.recipe import Recipe
from tombola.train.run import Keeper, Progress, Single, check_order, run_one
from tombola.train.watch import Unwatched, Watcher
from tombola.types import Seed, Snapshot, Step, TrainJob, TrainOutcome

_EVALUATION_CHUNK = 500


@final
@dataclass
class PlainTrainer:
    """Trains one network after another in eager PyTorch.

    The recipe's loss on a classification split held in memory. One intra-op thread on the CPU, so that results do not
    depend on how many cores there are. A pruned weight starts at zero and its gradient is zeroed before the optimiser
    sees it, so momentum, Adam's moments and weight decay leave it at zero. The caller's random state and thread count
    are left as they were. It asks the watcher before every iteration whether to stop.

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

    def train_one(
        self, job: TrainJob, number: int = 0, *, keeper: Keeper | None = None, resumed: Progress | None = None
    ) -> TrainOutcome:
        """Train one job; ``number`` is what the watcher is told, the rest as in :func:`tombola.train.run.run_one`."""
        with undisturbed(self.device):
            one = _Run(self, job, resumed)
            return run_one(
                one,
                job,
                every=self.recipe.eval_every,
                watcher=self.watcher,
                number=number,
                keeper=keeper,
                resumed=resumed,
            )


@final
class _Run(Single):
    """One job in progress: a row of one network."""

    def __init__(self, trainer: PlainTrainer, job: TrainJob, resumed: Progress | None) -> None:
        check_order(job)
        super().__init__(job)
        self.recipe = trainer.recipe
        self.device = torch.device(trainer.device)
        self.split = split = trainer.splits(job.seed)
        self.train_x, self.train_y = split.train_x.to(self.device), split.train_y.to(self.device)
        self.val = split.val_x.to(self.device), split.val_y.to(self.device)
        self.order = BatchOrder(len(self.train_y), self.recipe.batch_size, job.seed)
        # What a network draws when it is built and keeps outside its state dict is drawn as it was for theta_0.
        seed_global(derive(job.seed, "init"), self.device)
        self.model = trainer.build().to(self.device)
        self.params = dict(self.model.named_parameters())
        # What was kept is taken as it is: even the sign of a zero in a momentum comes back.
        start = masked(job.start, job.masks) if resumed is None else resumed.now
        load(self.model, start)
        self.masked = [self.params[name] for name in job.masks]
        self.factors = [mask.to(self.device, self.params[name].dtype) for name, mask in job.masks.items()]
        self.optimizer = make_optimizer(self.recipe, self.params, self.device)
        if start.optimizer is not None:
            load_slots(self.optimizer, self.params, start.optimizer)
        self.unseen = unseen_state(self.model)
        self.lr_moves = self.recipe.schedule != "constant" or self.recipe.warmup > 0
        self.model.train()

    def iterate(self, step: Step, until: Step) -> int:  # noqa: ARG002
        # Dropout and anything else that draws is seeded by position, so that a rewound run draws what its dense run
        # drew there.
        seed_global(derive(self.job.seed, "dropout", step), self.device)
        if self.lr_moves:
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.lr_at(step)
        batch = self.order.at(step).to(self.device)
        x, y = self.train_x.index_select(0, batch), self.train_y.index_select(0, batch)
        loss = mean_loss(self.recipe.loss, self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        pairs = [(p.grad, factor) for p, factor in zip(self.masked, self.factors, strict=True) if p.grad is not None]
        if pairs:
            torch._foreach_mul_([grad for grad, _ in pairs], [factor for _, factor in pairs])
        self.optimizer.step()
        return 1

    def evaluate(self) -> list[tuple[float, float]]:
        return [evaluate(self.model, *self.val, self.recipe.loss)]

    def resumes(self) -> bool:
        return self.unseen is not None and self.unseen == unseen_state(self.model)

    def slots(self) -> Mapping[str, Mapping[str, Tensor]] | None:
        return slots_of(self.optimizer, self.params) or None

    def test(self) -> list[tuple[float, float]]:
        now = self._test()
        load(self.model, self.kept)
        return [(now, self._test())]

    def values(self, step: Step) -> Snapshot:
        return Snapshot(
            step=step,
            params={name: p.detach().cpu().clone() for name, p in self.params.items()},
            buffers={name: b.detach().cpu().clone() for name, b in state_buffers(self.model).items()},
        )

    def _test(self) -> float:
        return evaluate(self.model, self.split.test_x.to(self.device), self.split.test_y.to(self.device))[1]


def evaluate(model: nn.Module, x: Tensor, y: Tensor, loss: str = "cross-entropy") -> tuple[float, float]:
    """Give the mean loss (cross-entropy in nats) and accuracy (fraction) in evaluation mode; the mode is restored."""
    was_training = model.training
    model.eval()
    total, right = 0.0, 0
    with torch.no_grad():
        for first in range(0, len(y), _EVALUATION_CHUNK):
            logits = model(x[first : first + _EVALUATION_CHUNK])
            target = y[first : first + _EVALUATION_CHUNK]
            total += float(sum_loss(loss, logits, target))
            right += int((logits.argmax(1) == target).sum())
    model.train(was_training)
    return total / len(y), right / len(y)


def load(model: nn.Module, snapshot: Snapshot) -> None:
    """Copy a snapshot's parameters and buffers into a module.

    Raises:
        ShapeMismatch: names or shapes differ.
    """
    for kind, own, given in (
        ("parameter", dict(model.named_parameters()), snapshot.params),
        ("buffer", state_buffers(model), snapshot.buffers),
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
