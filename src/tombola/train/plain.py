"""The plain PyTorch loop: what a good researcher would write, and the reference for every other engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tombola.data import Split
from tombola.errors import InvalidValue, ShapeMismatch
from tombola.models import state_buffers, unseen_state
from tombola.prune.rewinding import masked
from tombola.seeds import derive, generator
from tombola.train.augment import augmented
from tombola.train.loss import mean_loss, sum_loss
from tombola.train.optimizer import load_slots, make_optimizer, slots_of
from tombola.train.order import BatchOrder
from tombola.train.process import seed_global, undisturbed
from tombola.train.recipe import Recipe
from tombola.train.row import Keeper, Progress, Single
from tombola.train.run import check_order, run_one
from tombola.train.watch import Unwatched, Watcher
from tombola.types import Masks, Params, ScoreRule, Seed, Snapshot, Step, TrainJob, TrainOutcome

_EVALUATION_CHUNK = 500


@final
@dataclass
class PlainTrainer:
    """Trains one network after another in eager PyTorch, under masks that stay or change.

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
            InvalidValue: the recipe augments images, and the examples are none.
        """
        return [self.train_one(job, number) for number, job in enumerate(jobs)]

    def train_one(
        self, job: TrainJob, number: int = 0, *, keeper: Keeper | None = None, resumed: Progress | None = None
    ) -> TrainOutcome:
        """Train one job; ``number`` is what the watcher is told, the rest as in :func:`tombola.train.run.run_one`."""
        with undisturbed(self.device):
            one = _Run(self, job, resumed) if job.scores is None else _Learning(self, job, job.scores, resumed)
            return run_one(
                one,
                job,
                every=self.recipe.eval_every,
                watcher=self.watcher,
                number=number,
                keeper=keeper,
                resumed=resumed,
            )


class _Run(Single):
    """One job in progress: a row of one network."""

    def __init__(
        self, trainer: PlainTrainer, job: TrainJob, resumed: Progress | None, recipe: Recipe | None = None
    ) -> None:
        check_order(job)
        super().__init__(job)
        self.recipe = recipe or trainer.recipe
        self.device = torch.device(trainer.device)
        self.split = split = trainer.splits(job.seed)
        self.train_x, self.train_y = split.train_x.to(self.device), split.train_y.to(self.device)
        self.val = split.val_x.to(self.device), split.val_y.to(self.device)
        self.order = BatchOrder(len(self.train_y), self.recipe.batch_size, job.seed, job.fraction)
        # What a network draws when it is built and keeps outside its state dict is drawn as it was for theta_0.
        seed_global(derive(job.seed, "init"), self.device)
        self.model = trainer.build().to(self.device)
        self.params = dict(self.model.named_parameters())
        # What was kept is taken as it is: even the sign of a zero in a momentum comes back.
        start = masked(job.start, job.masks) if resumed is None else resumed.now
        load(self.model, start)
        self._take(job.masks if resumed is None or resumed.masks is None else resumed.masks)
        self._begin(resumed)
        self.optimizer = make_optimizer(self.recipe, self.params, self.device)
        if start.optimizer is not None:
            load_slots(self.optimizer, self.params, start.optimizer)
        self.unseen = unseen_state(self.model)
        self.lr_moves = self.recipe.schedule != "constant" or self.recipe.warmup > 0
        self.sums = self._sums(None if resumed is None else resumed.moved)
        self.model.train()

    def _begin(self, resumed: Progress | None) -> None:
        """Say what is trained, before there is an optimiser: here, all of it."""

    def _logits(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.model(x))

    def _settle(self) -> None:
        """Bring what was trained back into its range."""

    def iterate(self, step: Step, until: Step) -> int:  # noqa: ARG002
        # Dropout and anything else that draws is seeded by position, so that a rewound run draws what its dense run
        # drew there.
        seed_global(derive(self.job.seed, "dropout", step), self.device)
        if self.lr_moves:
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.lr_at(step)
        x, y = self._batch(step)
        loss = mean_loss(self.recipe.loss, self._logits(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        pairs = [(p.grad, factor) for p, factor in zip(self.masked, self.factors, strict=True) if p.grad is not None]
        if pairs:
            torch._foreach_mul_([grad for grad, _ in pairs], [factor for _, factor in pairs])
        rate = self.recipe.lr_at(step) if self.sums else 0.0
        for name, total in self.sums.items():
            weight = self.params[name]
            if weight.grad is not None:
                total.addcmul_(weight.grad, weight.detach(), value=-rate)
        self.optimizer.step()
        self._settle()
        return 1

    def gradient(self, step: Step) -> Params:
        seed_global(derive(self.job.seed, "dropout", step), self.device)
        return dense_gradient(self.model, self.recipe.loss, *self._batch(step), tuple(self.masks))

    def remask(self, masks: Masks, step: Step) -> None:  # noqa: ARG002
        for name, mask in masks.items():
            param = self.params[name]
            # What stays dead is not written to: even the sign of a zero in its momentum stays.
            changed = (mask != self.masks[name]).to(self.device)
            state = [value for value in self.optimizer.state.get(param, {}).values() if isinstance(value, Tensor)]
            with torch.no_grad():
                for value in (param, *(slot for slot in state if slot.shape == param.shape)):
                    value.masked_fill_(changed, 0)
        self._take(masks)

    def moved(self) -> Params | None:
        return {name: value.cpu().clone() for name, value in self.sums.items()} if self.job.moved else None

    def _batch(self, step: Step) -> tuple[Tensor, Tensor]:
        """Give the examples that a position is trained on, as they are changed for it, and their labels."""
        batch = self.order.at(step).to(self.device)
        x, y = self.train_x.index_select(0, batch), self.train_y.index_select(0, batch)
        return augmented(self.recipe.augment, x, self.job.seed, step), y

    def _take(self, masks: Masks) -> None:
        """Set the masks: those of the iterations from here on."""
        self.masks = {name: mask.cpu() for name, mask in masks.items()}
        self.masked = [self.params[name] for name in masks]
        self.factors = [mask.to(self.device, self.params[name].dtype) for name, mask in masks.items()]

    def _sums(self, before: Params | None) -> dict[str, Tensor]:
        """Begin what the job accumulates, or go on with it."""
        if not self.job.moved:
            return {}
        if before is not None:
            return {name: value.to(self.device, copy=True) for name, value in before.items()}
        return {name: torch.zeros_like(self.params[name].detach()) for name in self.job.masks or self.params}

    def evaluate(self) -> list[tuple[float, float]]:
        return [self._accuracy(*self.val)]

    def _accuracy(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        return evaluate(self.model, x, y, self.recipe.loss)

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
        return self._accuracy(self.split.test_x.to(self.device), self.split.test_y.to(self.device))[1]


@final
class _Learning(_Run):
    """A job that trains scores: they live in the module's parameters, and the weights beside it."""

    def __init__(self, trainer: PlainTrainer, job: TrainJob, rule: ScoreRule, resumed: Progress | None) -> None:
        if job.moved:
            raise InvalidValue(
                f"the run {job.name!r} trains scores, and is to accumulate how weights moved: they do not move. Give "
                "it one or the other."
            )
        self.rule = rule
        # The network with its weights under their scores, for evaluation: batch norm then runs on what it has gathered.
        self.shown = trainer.build().to(torch.device(trainer.device))
        super().__init__(trainer, job, resumed, replace(trainer.recipe, **rule.recipe))

    def _begin(self, resumed: Progress | None) -> None:
        weights = masked(self.job.start, self.job.masks).params
        self.scores = {name: self.params[name] for name in self.masks}
        self.weights = {name: weights[name].to(self.device) for name in self.masks}
        if resumed is None:
            rng = generator(self.job.seed, "prune", "scores")
            with torch.no_grad():
                for (name, score), factor in zip(self.scores.items(), self.factors, strict=True):
                    score.copy_(self.rule.first(weights[name], rng)).mul_(factor)
        for name, param in self.params.items():
            param.requires_grad_(name in self.scores)

    def _effective(self, drawn: torch.Generator | None) -> dict[str, Tensor]:
        alive = dict(zip(self.scores, self.factors, strict=True))
        found = self.rule.factors(self.scores, alive, drawn)
        return {name: self.weights[name] * factor for name, factor in found.items()}

    def iterate(self, step: Step, until: Step) -> int:
        self.drawn = torch.Generator(self.device).manual_seed(derive(self.job.seed, "dropout", "scores", step))
        return super().iterate(step, until)

    def _logits(self, x: Tensor) -> Tensor:
        return cast(Tensor, functional_call(self.model, self._effective(self.drawn), (x,)))

    def _settle(self) -> None:
        with torch.no_grad():
            self.rule.settle(self.scores)

    def _accuracy(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        with torch.no_grad():
            now = self.values(0)
            load(self.shown, replace(now, params={**now.params, **self._effective(None)}))
        return evaluate(self.shown, x, y, self.recipe.loss)

    def gradient(self, step: Step) -> Params:  # noqa: ARG002
        raise InvalidValue(
            f"the run {self.job.name!r} trains scores, and its updates ask for the gradient of the weights. Use "
            "updates that look at values alone, such as Gradual."
        )


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


def dense_gradient(model: nn.Module, loss: str, x: Tensor, y: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Give the gradient of the mean loss of a batch by every entry of some parameters, pruned ones too.

    Args:
        model: as it is, and in the mode that it is in; its buffers stay as they are.
        loss: as in :class:`~tombola.train.recipe.Recipe`.
        x, y: the batch, on the model's device.
        names: of the parameters.

    Returns:
        name -> float, the parameter's shape, on the CPU; zero for a parameter that the loss does not depend on.
    """
    params = dict(model.named_parameters())
    # Batch norm writes to its statistics in training mode: to copies of them.
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    value = mean_loss(loss, functional_call(model, buffers, (x,)), y)
    found = torch.autograd.grad(value, [params[name] for name in names], allow_unused=True, materialize_grads=True)
    return {name: gradient.cpu() for name, gradient in zip(names, found, strict=True)}


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
