"""The faults: each function puts one into the library, as small as it can be said."""

import io
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import prune_faults
import torch
from planting import has, swap, wrap
from torch import Tensor

from tombola.attach import handle, steps
from tombola.attach.pinned import Pinned
from tombola.models import counting as parameters
from tombola.prune import counting, evidence, masks, rewinding, schedules, scope, select
from tombola.prune.controls import CONTROLS
from tombola.prune.pruner import Pruner
from tombola.search import levels
from tombola.stats import early_stop
from tombola.ticket import file
from tombola.train import plain
from tombola.train.plain import PlainTrainer
from tombola.types import TrainJob

# How many, and which.


def above_the_cutoff() -> None:
    """The weight at the cutoff's index goes, and all that are equal to it."""

    def keep_top(scores: Tensor, count: int, *_: object) -> Tensor:
        alive = scores[scores > -torch.inf].sort().values
        return scores > alive[alive.numel() - count]

    swap(select.keep_top, keep_top)


def ceiling_and_above_the_cutoff() -> None:
    swap(counting.half_up, lambda value: math.ceil(float(value)))
    above_the_cutoff()


def index_error_at_the_end() -> None:
    real = select.keep_top

    def keep_top(scores: Tensor, count: int, *rest: Any) -> Tensor:
        if count == 0:
            raise IndexError("the cutoff's index is the number of weights")
        return real(scores, count, *rest)

    swap(real, keep_top)


def at_most_the_threshold() -> None:
    """``scores <= kthvalue`` goes, among all scores, dead ones included."""

    def keep_top(scores: Tensor, count: int, *_: object) -> Tensor:
        removed = scores.numel() - count
        return scores > scores.kthvalue(removed).values if removed else torch.ones_like(scores, dtype=torch.bool)

    swap(select.keep_top, keep_top)


def dead_weights_are_9999() -> None:
    def chosen(scores: Any, counts: Any, generator: object = None) -> dict[str, Tensor]:  # noqa: ARG001
        found = {}
        for name, score in scores.items():
            alive = score.reshape(-1) > -torch.inf
            order = torch.where(alive, score.reshape(-1), 9999.0).argsort(stable=True)
            alive[order[: int(alive.sum()) - counts[name]]] = False
            found[name] = alive.reshape(score.shape)
        return found

    swap(select.select, chosen)


def dead_weights_are_scored() -> None:
    swap(evidence.only_alive, lambda scores, _: dict(scores))


def literal_root() -> None:
    """Remove p^(1/n) of the survivors a round, p the fraction to be pruned in the end."""
    has(schedules.Geometric(counting.exact("0.5"), 2), "density", "rounds")

    def call(self: schedules.Geometric, level: int) -> counting.Cut:
        keeps = 1 - (1 - float(self.density)) ** (1 / self.rounds)
        return counting.Cut(density=counting.exact(keeps ** min(level, self.rounds)))

    schedules.Geometric.__call__ = call  # type: ignore[method-assign]


def density_is_a_sparsity() -> None:
    swap(schedules.one_shot, lambda density: schedules.Geometric(1 - counting.exact(density), 1))


def nothing_is_refused() -> None:
    has(Pruner, "_filled")
    Pruner._filled = lambda self, planned, alive: counting.at_least(planned, self.min_keep, alive)  # type: ignore[method-assign]


def everything_called_weight() -> None:
    def choose(params: Any, kinds: Any, **_: object) -> scope.Scope:
        return scope.Scope(tuple(prune_faults.with_norms(params, kinds)), {})

    swap(scope.choose, choose)


def linear_layers_only() -> None:
    scope.PRESETS["weights"] = frozenset({"linear"})  # type: ignore[index]


def biases_too() -> None:
    scope.PRESETS["weights"] = scope.PRESETS["weights"] | {"bias"}  # type: ignore[index]


def control(name: str, faulty: Callable[..., Any]) -> Callable[[], None]:
    return lambda: swap(CONTROLS[name], faulty)


# What survivors restart from, and how rounds are trained.


def rewinding_takes(**fields: str) -> Callable[[], None]:
    """A field of the start comes from the end of the last run."""

    def plant() -> None:
        real = rewinding.restart

        def restart(policy: Any, *, init: Any, at_step: Any, end: Any) -> Any:
            found = real(policy, init=init, at_step=at_step, end=end)
            return replace(found, **{field: getattr(end, name) for field, name in fields.items()})

        swap(real, restart)

    return plant


def trained_values_are_exported() -> None:
    """The ticket that a search hands over holds what training made of it."""

    def init(real: Any, self: Any, **fields: Any) -> None:
        if fields["level"]:
            ends = {r: run.end for r, run in fields["arms"][levels.TICKET].items()}
            starts = {r: replace(start, params=ends[r].params) for r, start in fields["starts"].items()}
            fields = {**fields, "starts": starts}
        real(self, **fields)

    wrap(levels.Level, "__init__", init)


def moments_stay() -> None:
    """Masked weights, unmasked moments."""

    def masked(snapshot: Any, held: Any) -> Any:
        return replace(snapshot, params=masks.apply(snapshot.params, held))

    swap(rewinding.masked, masked)


def gradients_of_the_dead() -> None:
    """The mask is put on at the start and never again."""

    def init(real: Any, self: Any, *rest: Any) -> None:
        real(self, *rest)
        has(self, "masked", "factors")
        self.masked, self.factors = [], []

    wrap(plain._Run, "__init__", init)


def every_optimizer(hook: Callable[[Any], None]) -> None:
    """Do something before every step of the trainer's optimiser."""
    real = plain.make_optimizer

    def make(*arguments: Any) -> torch.optim.Optimizer:
        optimizer = real(*arguments)
        optimizer.register_step_pre_hook(lambda one, *_: hook(one))
        return optimizer

    swap(real, make)


def no_gradient_below_zero() -> None:
    """``np.where(tensor < EPS, 0, grad)``, EPS = 1e-6, where ``abs(tensor)`` was meant."""

    def hook(optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad[param < 1e-6] = 0

    every_optimizer(hook)


def no_attached_gradient_below_zero() -> None:
    def clean(real: Any, self: Pinned) -> None:
        real(self)
        if self.param.grad is not None:
            self.param.grad[self.param.data < 1e-6] = 0

    wrap(Pinned, "clean_gradient", clean)


def round_0_has_its_own_rate() -> None:
    """1e-3 for the dense network, 1.2e-3 for every later round."""

    def train(real: Any, self: PlainTrainer, job: TrainJob, *rest: Any) -> Any:
        slower = replace(self, recipe=replace(self.recipe, lr=self.recipe.lr / 1.2))
        return real(self if job.masks else slower, job, *rest)

    wrap(PlainTrainer, "train_one", train)


def test_is_watched() -> None:
    """The best network is the one that is best on the test split."""

    def init(real: Any, self: Any, *rest: Any) -> None:
        real(self, *rest)
        has(self, "val", "split")
        self.val = self.split.test_x.to(self.device), self.split.test_y.to(self.device)

    wrap(plain._Run, "__init__", init)


def ticket_jobs(change: Callable[[TrainJob], TrainJob]) -> Callable[[], None]:
    return lambda: wrap(levels._Search, "ticket_job", lambda real, self, *rest: change(real(self, *rest)))


def another_order(job: TrainJob) -> TrainJob:
    return replace(job, seed=replace(job.seed, order=job.seed.order + 1))


def half_as_long(job: TrainJob) -> TrainJob:
    return replace(job, stop=(job.start.step + job.stop) // 2)


def never_censored() -> None:
    real = early_stop
    swap(real, lambda steps, loss: (real(steps, loss)[0], False))


# Masks on a module.


def nothing(*_: object, **__: object) -> None:
    pass


def attribute(owner: Any, name: str, faulty: Any) -> Callable[[], None]:
    def plant() -> None:
        has(owner, name)
        setattr(owner, name, faulty)

    return plant


def multiplied() -> None:
    def apply(params: Any, held: Any) -> dict[str, Tensor]:
        return {name: value * held[name] if name in held else value for name, value in params.items()}

    swap(masks.apply, apply)


def graph_tensors_are_kept() -> None:
    """The product of weight and mask is left on the module, where a deep copy finds it."""
    real = handle._before_forward

    def before(model: Any, arguments: Any) -> None:
        real(model, arguments)
        for part in model.modules():
            for name, one in handle._pins_of(part).items():
                part.__dict__[f"_effective_{name}"] = one.param * one.mask

    swap(real, before)


def masks_are_buffers() -> None:
    real = handle._pin

    def pin(model: Any, held: Any) -> None:
        real(model, held)
        for name, mask in held.items():
            path, _, attribute = name.rpartition(".")
            model.get_submodule(path).register_buffer(f"{attribute}_mask", mask)

    swap(real, pin)


def regrown_moments_stay() -> None:
    real = steps._clean_moments
    swap(real, lambda optimizer, one, _: real(optimizer, one, None))


def every_parameter_counts() -> None:
    real = parameters.count_params

    def count(*arguments: Any) -> Any:
        found = real(*arguments)
        return found._replace(alive=found.total)

    swap(real, count)


def pickles_are_opened() -> None:
    """Whatever ``torch.load`` and ``pickle`` can make of the bytes."""
    real = file.load

    def load(path: Any, **options: Any) -> Any:
        with open(path, "rb") as stream:
            data = stream.read()
        if data[:1] == b"\x80":
            return pickle.loads(data)
        if data[:2] == b"PK":
            return torch.load(io.BytesIO(data), weights_only=False)
        return real(path, **options)

    swap(real, load)
