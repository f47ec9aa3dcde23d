"""Small networks, small data and a trainer written the naive way, with faults to plant in it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola import models
from tombola.data import Split
from tombola.prune.masks import apply, ones
from tombola.seeds import derive, generator
from tombola.stats.early_stop import early_stop
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import Recipe
from tombola.types import Curve, Masks, RunResult, Seed, Snapshot, TrainFn, TrainJob, TrainOutcome

FEATURES, CLASSES = 12, 4
Build = Callable[[], nn.Module]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, CLASSES))


def stochastic() -> nn.Module:
    """Everything that has a state of its own: batch norm and dropout."""
    return nn.Sequential(
        nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, CLASSES)
    )


class ExtraDraws(nn.Module):
    """An MLP that draws random numbers in its forward pass and does nothing with them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(3)
        return self.inner(x)


class Projected(nn.Module):
    """A random projection that is drawn when the network is built and is in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, CLASSES)
        self.register_buffer("projection", torch.randn(FEATURES, 6), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x @ self.projection)


def data(train: int = 130, *, seed: int = 0) -> Split:
    """Four noisy clusters, too noisy to learn by heart at once."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, FEATURES, generator=draw)

    def part(n: int) -> tuple[Tensor, Tensor]:
        y = torch.randint(CLASSES, (n,), generator=draw)
        return centres[y] + 1.5 * torch.randn(n, FEATURES, generator=draw), y

    return Split(*part(train), *part(60), *part(80))


DATA = data()


def splits(seed: Seed) -> Split:  # noqa: ARG001
    return DATA


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"iterations": 30, "batch_size": 20, "lr": 0.01, "eval_every": 10, **changes})


SGD = {"optimizer": "sgd", "lr": 0.1}
RECIPES = {
    "sgd": recipe(**SGD),
    "momentum": recipe(**SGD, momentum=0.9, weight_decay=1e-2),
    "nesterov": recipe(**SGD, momentum=0.9, nesterov=True, weight_decay=1e-2, schedule="step", milestones=(10, 20)),
    "adam": recipe(weight_decay=1e-2, warmup=7),
    "adamw": recipe(optimizer="adamw", weight_decay=1e-2, schedule="cosine"),
}

Make = Callable[[Build, Recipe], TrainFn]
"""What the checks take: makes a training routine."""


def plain(build: Build, recipe: Recipe) -> TrainFn:
    return PlainTrainer(build, splits, recipe)


def dense_job(build: Build, recipe: Recipe, *save_at: int) -> TrainJob:
    seed = Seed(3, 1)
    return TrainJob(models.initial(build, seed), {}, seed, recipe.iterations, save_at)


def weights(snapshot: Snapshot) -> list[str]:
    return [name for name, value in snapshot.params.items() if value.dim() > 1]


def random_masks(snapshot: Snapshot, density: float = 0.4) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(5)
    return {name: torch.rand(snapshot.params[name].shape, generator=draw) < density for name in weights(snapshot)}


def dense_masks(snapshot: Snapshot) -> dict[str, Tensor]:
    return ones(snapshot.params, weights(snapshot))


def differing(a: Snapshot, b: Snapshot) -> list[str]:
    """Name what is not the same bits in two snapshots."""
    assert a.params.keys() == b.params.keys()
    assert a.buffers.keys() == b.buffers.keys()
    odd = [name for name in a.params if not torch.equal(a.params[name], b.params[name])]
    odd += [name for name in a.buffers if not torch.equal(a.buffers[name], b.buffers[name])]
    state_a, state_b = a.optimizer or {}, b.optimizer or {}
    if {n: s.keys() for n, s in state_a.items()} != {n: s.keys() for n, s in state_b.items()}:
        return [*odd, "optimizer slots"]
    return odd + [f"{n}.{s}" for n in state_a for s in state_a[n] if not torch.equal(state_a[n][s], state_b[n][s])]


def same_run(a: TrainOutcome, b: TrainOutcome) -> bool:
    """Whether two runs are the same in everything but wall time."""
    return (
        replace(a, end=b.end, best=b.best, saved={}, seconds=0) == replace(b, saved={}, seconds=0)
        and not differing(a.end, b.end)
        and not differing(a.best, b.best)
        and a.saved.keys() == b.saved.keys()
        and all(not differing(a.saved[k], b.saved[k]) for k in a.saved)
    )


FAULTS = (
    "momentum not masked",
    "negative gradients zeroed",
    "mask only in forward",
    "another rate for round 0",
    "early stop on test",
    "last of ties",
    "NaN run kept",
)


@dataclass
class Naive:
    """The loop as a person would write it in a notebook, one fault at a time."""

    build: Build
    recipe: Recipe
    fault: str = ""
    splits: Callable[[Seed], Split] = splits

    def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return [self.train(job) for job in jobs]
        finally:
            torch.set_num_threads(before)

    def train(self, job: TrainJob) -> TrainOutcome:
        split = self.splits(job.seed)
        model = self.build()
        params = dict(model.named_parameters())
        model.load_state_dict({**apply(job.start.params, job.masks), **job.start.buffers})
        optimizer = self.optimizer(params)
        for name, slots in (job.start.optimizer or {}).items():
            state = {slot: value.clone() for slot, value in slots.items()}
            if name in job.masks and self.fault != "momentum not masked":
                state = {s: v.mul_(job.masks[name]) if v.dim() else v for s, v in state.items()}
            optimizer.state[params[name]] = state
        n, size = len(split.train_y), self.recipe.batch_size
        epochs = range(job.stop * size // n + 1)
        order = torch.cat([torch.randperm(n, generator=generator(job.seed, "order", epoch)) for epoch in epochs])
        seen, saved, best = [], {}, snap(job.start.step, params, model)
        if job.start.step in job.save_at:
            saved[job.start.step] = snap(job.start.step, params, model, optimizer)
        result = RunResult.FINISHED
        for step in range(job.start.step, job.stop):
            torch.manual_seed(derive(job.seed, "dropout", step))
            model.train()
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.lr_at(step)
                if self.fault == "another rate for round 0" and not job.masks:
                    group["lr"] *= 0.83
            if self.fault == "mask only in forward":
                self.mask(params, job.masks)
            batch = order[step * size : (step + 1) * size]
            optimizer.zero_grad()
            functional.cross_entropy(model(split.train_x[batch]), split.train_y[batch]).backward()
            for name, p in params.items():
                if name in job.masks and self.fault != "mask only in forward":
                    p.grad.mul_(job.masks[name])
                if self.fault == "negative gradients zeroed":
                    p.grad.mul_(p.detach() > 0)
            optimizer.step()
            if step + 1 in job.save_at:
                saved[step + 1] = snap(step + 1, params, model, optimizer)
            if (step + 1) % self.recipe.eval_every and step + 1 != job.stop:
                continue
            watched = "test" if self.fault == "early stop on test" else "val"
            loss, accuracy = score(model, getattr(split, f"{watched}_x"), getattr(split, f"{watched}_y"))
            seen.append((step + 1, loss, accuracy))
            if not math.isfinite(loss) and self.fault != "NaN run kept":
                result = RunResult.DIVERGED
                break
            if loss == min(value for _, value, _ in seen) and (
                self.fault == "last of ties" or [value for _, value, _ in seen].count(loss) == 1
            ):
                best = snap(step + 1, params, model)
        end = snap(seen[-1][0], params, model, optimizer)
        finished = result is RunResult.FINISHED
        tests = []
        for snapshot in (end, best) if finished else ():
            model.load_state_dict({**snapshot.params, **snapshot.buffers})
            tests.append(score(model, split.test_x, split.test_y)[1])
        steps, losses, accuracies = map(tuple, zip(*seen, strict=True))
        argmin, censored = early_stop(steps, losses)
        if self.fault == "last of ties":
            argmin, censored = best.step, best.step == steps[-1]
        return TrainOutcome(
            result=result,
            sentence=f"trained to iteration {job.stop}" if finished else "diverged",
            end=end,
            best=best,
            saved=saved,
            curve=Curve(steps, losses, accuracies),
            early_stop_iteration=argmin if finished else None,
            censored=censored,
            test_accuracy=tests[0] if finished else None,
            test_accuracy_at_early_stop=tests[1] if finished else None,
            iterations=seen[-1][0] - job.start.step,
            seconds=0,
        )

    def optimizer(self, params: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
        r = self.recipe
        values = list(params.values())
        if r.optimizer == "sgd":
            return torch.optim.SGD(
                values, r.lr, r.momentum, weight_decay=r.weight_decay, nesterov=r.nesterov, fused=True
            )
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[r.optimizer]
        return kind(values, r.lr, weight_decay=r.weight_decay, fused=True)

    @staticmethod
    def mask(params: dict[str, nn.Parameter], masks: Masks) -> None:
        with torch.no_grad():
            for name, mask in masks.items():
                params[name].mul_(mask)


def naive(fault: str = "") -> Make:
    assert not fault or fault in FAULTS
    return lambda build, recipe: Naive(build, recipe, fault)


def score(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    model.eval()
    with torch.no_grad():
        logits = model(x)
        loss = functional.cross_entropy(logits, y, reduction="sum")
    return float(loss) / len(y), int((logits.argmax(1) == y).sum()) / len(y)


def snap(
    step: int, params: dict[str, nn.Parameter], model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> Snapshot:
    slots = {
        name: {slot: value.clone() for slot, value in optimizer.state[p].items() if isinstance(value, Tensor)}
        for name, p in params.items()
        if optimizer is not None and p in optimizer.state
    }
    return Snapshot(
        step,
        {name: p.detach().clone() for name, p in params.items()},
        {name: b.clone() for name, b in model.named_buffers()},
        slots or None,
    )
