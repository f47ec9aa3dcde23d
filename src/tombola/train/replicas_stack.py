"""A stack of replicates in training: one loop for all of them, and each one's own outcome."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.data import Split
from tombola.prune.rewinding import masked
from tombola.seeds import derive
from tombola.stats.early_stop import early_stop
from tombola.train.plain import Watcher, _load_state, _seed_global, buffers, load, make_optimizer
from tombola.train.recipe import Recipe
from tombola.train.replicas_data import Batches, Part
from tombola.train.replicas_graph import Captured
from tombola.train.replicas_nets import networks
from tombola.types import Curve, RunResult, Seed, Snapshot, Step, TrainJob, TrainOutcome

EVALUATION_CHUNK: Final = 500
_EVALUATED_AT_ONCE: Final = 4096
"""Examples, over all replicates, that a GPU evaluates at once."""


@final
class Stack:
    """Replicates in progress; the first axis of every tensor is the replicate."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        splits: Callable[[Seed], Split],
        recipe: Recipe,
        *,
        device: torch.device,
        watcher: Watcher,
        graph: bool,
        jobs: Sequence[TrainJob],
        numbers: Sequence[int],
    ) -> None:
        """Put the jobs on the device.

        Args:
            build: makes the module; called once per job.
            splits: seed -> the data, on the CPU.
            recipe: how to train.
            device: where.
            watcher: told of every evaluation, asked before every iteration whether to stop.
            graph: capture the iteration, on CUDA.
            jobs: all start at one step and stop at one.
            numbers: what the watcher is told each of them is called.

        Raises:
            ShapeMismatch: a job's tensors do not fit the module.
            DataTooSmall: the batch is larger than the training split.
        """
        self.began = time.perf_counter()
        self.recipe, self.watcher, self.jobs, self.numbers, self.device = recipe, watcher, jobs, numbers, device
        parts = _splits(splits, jobs)
        self.train = Part([(split.train_x, split.train_y) for split in parts], device)
        self.val = Part([(split.val_x, split.val_y) for split in parts], device)
        self.test = [(split.test_x, split.test_y) for split in parts]
        self.batches = Batches(self.train, self.recipe.batch_size, [job.seed for job in jobs])
        self._fill(build)
        captured = graph and device.type == "cuda"
        self.iterate: Callable[[Tensor], None] = Captured(self._iterate, device) if captured else self._iterate
        # The optimiser sees each replicate's share of a tensor by itself: its kernels treat the last few elements of a
        # tensor by another code than the rest, so bits would depend on where in a stack a replicate is.
        self.shares = {
            f"{name} of replicate {row}": nn.Parameter(p.detach()[row], p.requires_grad)
            for row in range(len(jobs))
            for name, p in self.params.items()
        }
        self.optimizer = make_optimizer(self.recipe, self.shares, device)
        for group in self.optimizer.param_groups if captured else ():
            # What a recording holds as a number stays what it was; a tensor is read anew.
            group["lr"] = torch.tensor(self.recipe.lr, device=device)
            group["capturable"] = True
        self._restore()
        self.lr_moves = self.recipe.schedule != "constant" or self.recipe.warmup > 0
        self.linked = False
        self.masked: list[Tensor] = []
        self.factors: list[Tensor] = []

    def _fill(self, build: Callable[[], nn.Module]) -> None:
        """Build each job's network as it is built alone, and stack what it holds."""
        for row, job in enumerate(self.jobs):
            _seed_global(derive(job.seed, "init"), self.device)
            module = build()
            load(module, masked(job.start, job.masks))
            if row == 0:
                self.params = {
                    name: nn.Parameter(self._empty(p), p.requires_grad) for name, p in module.named_parameters()
                }
                self.buffers = {name: self._empty(b) for name, b in module.named_buffers()}
                self.kept = list(buffers(module))
                first = module
            with torch.no_grad():
                for name, p in module.named_parameters():
                    self.params[name][row].copy_(p)
                for name, b in module.named_buffers():
                    self.buffers[name][row].copy_(b)
        example = self.train.x[0]
        self.networks = networks(first.to(self.device), self.params, self.buffers, example)

    def _empty(self, like: Tensor) -> Tensor:
        return torch.empty((len(self.jobs), *like.shape), dtype=like.dtype, device=self.device)

    def _factor(self, name: str) -> Tensor:
        factor = torch.ones_like(self.params[name])
        for row, job in enumerate(self.jobs):
            if name in job.masks:
                factor[row].copy_(job.masks[name])
        return factor.detach()

    def _restore(self) -> None:
        saved = {
            f"{name} of replicate {row}": slots
            for row, job in enumerate(self.jobs)
            for name, slots in (masked(job.start, job.masks).optimizer or {}).items()
        }
        if saved:
            _load_state(self.optimizer, self.shares, saved)

    def outcomes(self) -> list[TrainOutcome]:
        """Train to the end and read the test split once for each of the two snapshots of a job."""
        rows = range(len(self.jobs))
        self.rows = [_Row() for _ in rows]
        self.step = self.jobs[0].start.step
        self.best = {name: p.detach().clone() for name, p in self._held().items()}
        self.best_steps = [self.step for _ in rows]
        self._train()
        finished = [row for row in rows if self.rows[row].result is RunResult.FINISHED]
        tests: list[tuple[float | None, float | None]] = [(None, None) for _ in rows]
        if finished:
            test = Part(self.test, self.device)
            ends = self._evaluate(self._held(), test)
            bests = self._evaluate(self.best, test)
            for row in finished:
                tests[row] = ends[row][1], bests[row][1]
        ends_at = [self.rows[row].end or self._snapshot(row) for row in rows]
        best = [self._cut_out(row, self.best_steps[row], self.best) for row in rows]
        share = (time.perf_counter() - self.began) / len(self.jobs)
        return [self._outcome(row, ends_at[row], best[row], *tests[row], share) for row in rows]

    def _outcome(
        self, row: int, end: Snapshot, best: Snapshot, test: float | None, early: float | None, seconds: float
    ) -> TrainOutcome:
        at = self.rows[row]
        assert at.result is not None
        steps, losses, accuracies = zip(*at.seen, strict=True) if at.seen else ((), (), ())
        argmin, censored = early_stop(steps, losses) if at.result is RunResult.FINISHED else (None, False)
        return TrainOutcome(
            result=at.result,
            sentence=at.sentence,
            end=end,
            best=best,
            saved=at.saved,
            curve=Curve(steps, losses, accuracies),
            early_stop_iteration=argmin,
            censored=censored,
            test_accuracy=test,
            test_accuracy_at_early_stop=early,
            iterations=end.step - self.jobs[row].start.step,
            seconds=seconds,
        )

    def _alive(self) -> list[int]:
        return [row for row, at in enumerate(self.rows) if at.result is None]

    def _train(self) -> None:
        """Go through the iterations, keeping what was asked for and what validation saw."""
        stop = self.jobs[0].stop
        self._save_if_asked()
        while self.step < stop and self._alive():
            if self.watcher.stop():
                return self._end_all(RunResult.INTERRUPTED, f"interrupted at iteration {self.step} of {stop}")
            if self.lr_moves:
                self._set_rate(self.recipe.lr_at(self.step))
            self.iterate(self.batches.at(self.step))
            self.step += 1
            self._save_if_asked()
            if self.step % self.recipe.eval_every == 0 or self.step == stop:
                self._look()
        return self._end_all(RunResult.FINISHED, f"trained to iteration {stop}")

    def _end_all(self, result: RunResult, sentence: str) -> None:
        for row in self._alive():
            self.rows[row].ends(result, sentence)

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _iterate(self, index_RB: Tensor) -> None:
        self.networks.differentiate(*self.train.gather(index_RB))
        if not self.linked:
            self._link()
        if self.masked:
            torch._foreach_mul_(self.masked, self.factors)
        self.optimizer.step()

    def _link(self) -> None:
        """Give the optimiser and the masks the gradients, whose tensors stay the same from now on."""
        self.linked = True
        for name, p in self.params.items():
            if p.grad is None:
                continue
            for row in range(len(self.jobs)):
                self.shares[f"{name} of replicate {row}"].grad = p.grad[row]
            if any(name in job.masks for job in self.jobs):
                self.masked.append(p.grad)
                self.factors.append(self._factor(name))

    def _look(self) -> None:
        """Evaluate everything; note what is still alive, and keep what improved."""
        improved = []
        found = self._evaluate(self._held(), self.val)
        for row in self._alive():
            at, (loss, accuracy) = self.rows[row], found[row]
            at.seen.append((self.step, loss, accuracy))
            self.watcher.evaluated(self.numbers[row], self.step, loss, accuracy)
            if not math.isfinite(loss):
                at.ends(RunResult.DIVERGED, f"diverged: the validation loss is {loss} at iteration {self.step}")
                # Its values go on being computed with, for taking them out would change the others' stack.
                at.end = self._snapshot(row)
            elif loss < at.lowest:
                at.lowest, self.best_steps[row] = loss, self.step
                improved.append(row)
        for name, value in self._held().items() if improved else ():
            self.best[name][improved] = value[improved]

    def _evaluate(self, values: Mapping[str, Tensor], part: Part) -> list[tuple[float, float]]:
        """Give each replicate's mean cross-entropy (nats) and accuracy (fraction)."""
        chunk = EVALUATION_CHUNK
        if self.device.type == "cuda":
            chunk = max(chunk, _EVALUATED_AT_ONCE // len(self.jobs))
        params = {name: values[name] for name in self.params}
        state = {name: values[name] for name in self.buffers}
        found = []
        with torch.no_grad():
            for x_RB, y_RB, own in part.chunks(chunk):
                logits = self.networks.logits(params, state, x_RB)
                # One replicate after another, so that each sum is taken as it is for a network alone.
                for row, count in enumerate(own):
                    z, y = logits[row, :count], y_RB[row, :count]
                    found += [functional.cross_entropy(z, y, reduction="sum").double(), (z.argmax(1) == y).sum()]
        rows = torch.stack([one.double() for one in found]).view(-1, len(self.jobs), 2).cpu()
        return [
            (sum(rows[:, row, 0].tolist()) / length, sum(rows[:, row, 1].tolist()) / length)
            for row, length in enumerate(part.lengths)
        ]

    def _held(self) -> dict[str, Tensor]:
        return {**{name: p.detach() for name, p in self.params.items()}, **self.buffers}

    def _save_if_asked(self) -> None:
        for row in self._alive():
            if self.step in self.jobs[row].save_at:
                self.rows[row].saved[self.step] = self._snapshot(row)

    def _snapshot(self, row: int) -> Snapshot:
        slots = self._slots(row) if self.jobs[row].with_optimizer else {}
        return self._cut_out(row, self.step, self._held(), slots or None)

    def _slots(self, row: int) -> dict[str, dict[str, Tensor]]:
        own = {name: self.shares[f"{name} of replicate {row}"] for name in self.params}
        return {
            name: {
                slot: value.detach().cpu().clone()
                for slot, value in self.optimizer.state[share].items()
                if isinstance(value, Tensor)
            }
            for name, share in own.items()
            if share in self.optimizer.state
        }

    def _cut_out(
        self,
        row: int,
        step: Step,
        values: Mapping[str, Tensor],
        optimizer: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> Snapshot:
        return Snapshot(
            step=step,
            params={name: values[name][row].detach().cpu().clone() for name in self.params},
            buffers={name: values[name][row].detach().cpu().clone() for name in self.kept},
            optimizer=optimizer,
        )


@final
@dataclass
class _Row:
    """What one replicate has been through."""

    result: RunResult | None = None
    sentence: str = ""
    seen: list[tuple[Step, float, float]] = field(default_factory=list)
    saved: dict[Step, Snapshot] = field(default_factory=dict)
    lowest: float = math.inf
    end: Snapshot | None = None

    def ends(self, result: RunResult, sentence: str) -> None:
        self.result, self.sentence = result, sentence


def _splits(splits: Callable[[Seed], Split], jobs: Sequence[TrainJob]) -> list[Split]:
    """Give each job's split, asked for family by family: a source may keep the last one only."""
    rows = sorted(range(len(jobs)), key=lambda row: (jobs[row].seed.root, jobs[row].seed.replicate))
    found = {row: splits(jobs[row].seed) for row in rows}
    return [found[row] for row in range(len(jobs))]
