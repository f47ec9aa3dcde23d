"""The sparse engine: training costs as much as there are weights left. For feed-forward networks, on the CPU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import torch
from torch import Tensor, nn

from tombola.data import Split
from tombola.errors import InvalidValue
from tombola.models import DRAWING, state_buffers
from tombola.prune.rewinding import masked
from tombola.seeds import derive, generator
from tombola.sparse import Rule, SparseNetwork, read_chain
from tombola.train.order import BatchOrder
from tombola.train.plain import PlainTrainer, dense_gradient, load
from tombola.train.process import undisturbed
from tombola.train.recipe import Recipe
from tombola.train.row import Keeper, Progress, Single
from tombola.train.run import check_order, run_one
from tombola.train.watch import Unwatched, Watcher
from tombola.types import Masks, Params, Seed, Snapshot, Step, TrainJob, TrainOutcome

_SECONDS_A_CALL: Final = 0.1
_FLOATS_A_CALL: Final = 1 << 23
_ITERATIONS_A_CALL: Final = 1000


@final
@dataclass
class SparseTrainer:
    """Trains one network after another on compiled kernels that touch the surviving weights alone.

    What :class:`~tombola.train.plain.PlainTrainer` does, for the networks of which :func:`~tombola.sparse.why_not` says
    nothing: the same batches, dropout masks, learning rates, evaluation grid and ends, and the same bits on every run
    of a machine.

    Its values are not the plain trainer's bits, for sums are taken in another order. After the first iterations the two
    agree to rounding. Then they separate, as any two float32 orders of summation do in a network with kinks: a
    validation loss of 0.2288 here and of 0.2183 there was seen after 1,000 dense iterations of LeNet-300-100. Both are
    runs of the recipe, neither is the other's truth, and they are compared as two runs are: over replicates.

    What no surviving weight reads or leads to is not computed. So the data are finite (:mod:`tombola.data` refuses
    others), and units whose outputs all end in an emptied layer may overflow unnoticed; a job whose start values are
    not finite goes to the plain trainer. So does one that trains scores.

    Masks may change during a run: the network is laid out anew for each change, and a gradient by pruned weights is
    computed by the module itself, densely. A job that accumulates how weights moved is not one for this engine.

    Threads may train at once. It asks the watcher whether to stop before the first iteration and every tenth of a
    second.

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
            InvalidValue: the network, or a job, is not one for this engine.
            ShapeMismatch: a job's tensors do not fit the module.
            DataTooSmall: the batch is larger than the training split.
        """
        return [self.train_one(job, number) for number, job in enumerate(jobs)]

    def train_one(
        self, job: TrainJob, number: int = 0, *, keeper: Keeper | None = None, resumed: Progress | None = None
    ) -> TrainOutcome:
        """Train one job; ``number`` is what the watcher is told, the rest as in :func:`tombola.train.run.run_one`."""
        if job.moved:
            raise InvalidValue(
                f"the run {job.name!r} accumulates how weights moved, and the sparse engine does not. Use the plain "
                "engine for it."
            )
        finite = all(bool(value.isfinite().all()) for value in job.start.params.values())
        if job.scores is not None or (job.masks and not finite):
            # Scores are trained through weights that stay. What leads nowhere is not computed here, and a NaN in it
            # would not be noticed where the plain loop does.
            plain = PlainTrainer(self.build, self.splits, self.recipe, self.device, self.watcher)
            return plain.train_one(job, number, keeper=keeper, resumed=resumed)
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

    def __init__(self, trainer: SparseTrainer, job: TrainJob, resumed: Progress | None) -> None:
        check_order(job)
        super().__init__(job)
        self.recipe = trainer.recipe
        # What was kept is taken as it is: even the sign of a zero in a momentum comes back.
        start = masked(job.start, job.masks) if resumed is None else resumed.now
        with DRAWING, torch.random.fork_rng(devices=[]):
            self.split = split = trainer.splits(job.seed)
            torch.default_generator.manual_seed(derive(job.seed, "init"))
            self.model = model = trainer.build()
            load(model, start)
            self.chain = read_chain(model, split.val_x)
        self.train_data = _flat(split.train_x), split.train_y.contiguous()
        self.val_data = _flat(split.val_x), split.val_y.contiguous()
        self.order = _Order(len(split.train_y), self.recipe.batch_size, job.seed, job.fraction)
        params = {name: p.detach() for name, p in model.named_parameters()}
        self.buffers = {name: value.detach().clone() for name, value in state_buffers(model).items()}
        self.masks = job.masks if resumed is None or resumed.masks is None else resumed.masks
        self.network = self._laid_out(params)
        self.most = self.cap = max(1, min(_ITERATIONS_A_CALL, _FLOATS_A_CALL // max(1, self.network.dropout_floats)))
        if start.optimizer is not None:
            self.network.load_optimizer(start.optimizer)

    def iterate(self, step: Step, until: Step) -> int:
        asked = min(until - step, self.most)
        steps = range(step, step + asked)
        drawn = [self._draw(at) for at in steps] if self.network.dropout_floats else []
        made = self.network.train(
            *self.train_data,
            self.order.between(steps.start, steps.stop),
            [self.recipe.lr_at(at) for at in steps],
            dropout=[torch.stack(masks) for masks in zip(*drawn, strict=True)],
            seconds=_SECONDS_A_CALL,
        )
        # What was prepared and not used is prepared again: a slow network is asked for less.
        self.most = min(self.cap, 2 * (made if made < asked else self.most))
        return made

    def evaluate(self) -> list[tuple[float, float]]:
        return [self.network.evaluate(*self.val_data)]

    def gradient(self, step: Step) -> Params:
        batch = self.order.between(step, step + 1)[0]
        x, y = self.split.train_x.index_select(0, batch), self.split.train_y.index_select(0, batch)
        with undisturbed("cpu"):
            load(self.model, self.values(step))
            self.model.train()
            torch.default_generator.manual_seed(derive(self.job.seed, "dropout", step))
            return dense_gradient(self.model, self.recipe.loss, x, y, tuple(self.masks))

    def remask(self, masks: Masks, step: Step) -> None:
        if all(torch.equal(mask, self.masks[name]) for name, mask in masks.items()):
            return
        # What grows was pruned, and so is zero wherever a network or its moments are given back dense.
        start = masked(self.whole(step), masks)
        self.masks = masks
        self.network = self._laid_out(start.params)
        if start.optimizer is not None:
            self.network.load_optimizer(start.optimizer)

    def _laid_out(self, params: Params) -> SparseNetwork:
        return SparseNetwork(
            self.chain, params, self.masks, _rule(self.recipe), batch_size=self.recipe.batch_size, loss=self.recipe.loss
        )

    def slots(self) -> Mapping[str, Mapping[str, Tensor]] | None:
        return self.network.optimizer()

    def test(self) -> list[tuple[float, float]]:
        now = self._test()
        self.network.load_params(self.kept.params)
        return [(now, self._test())]

    def _draw(self, step: Step) -> list[Tensor]:
        # Seeded by position, as in the plain loop, so that a rewound run draws what its dense run drew there.
        return self.network.draw_dropout(generator(self.job.seed, "dropout", step))

    def values(self, step: Step) -> Snapshot:
        return Snapshot(step, self.network.params(), {name: value.clone() for name, value in self.buffers.items()})

    def _test(self) -> float:
        return self.network.evaluate(_flat(self.split.test_x), self.split.test_y.contiguous())[1]


@final
class _Order:
    """The batches of :class:`BatchOrder`, many at a time."""

    def __init__(self, examples: int, batch_size: int, seed: Seed, fraction: float) -> None:
        self._examples, self._batch = BatchOrder(examples, batch_size, seed, fraction).examples, batch_size
        # Batches as large as what is seen are its epochs.
        self._epochs = BatchOrder(examples, None, seed, fraction)
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
