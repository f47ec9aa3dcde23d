"""A stack of replicates in training: one loop for all of them, and each one's own outcome."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

import torch
from torch import Tensor, nn

from tombola.data import Split
from tombola.models import state_buffers
from tombola.prune.rewinding import masked
from tombola.seeds import derive
from tombola.train.loss import sum_loss
from tombola.train.optimizer import load_slots, make_optimizer, slots_of
from tombola.train.plain import load
from tombola.train.process import seed_global
from tombola.train.recipe import Recipe
from tombola.train.replicas_data import Batches, Part
from tombola.train.replicas_graph import Captured
from tombola.train.replicas_nets import networks
from tombola.train.run import run
from tombola.train.watch import Watcher
from tombola.types import Seed, Snapshot, Step, TrainJob, TrainOutcome

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
        self.recipe, self.watcher, self.jobs, self.numbers, self.device = recipe, watcher, jobs, numbers, device
        parts = _splits(splits, jobs)
        self.train = Part([(split.train_x, split.train_y) for split in parts], device)
        self.val = Part([(split.val_x, split.val_y) for split in parts], device)
        self.tests = [(split.test_x, split.test_y) for split in parts]
        self.batches = Batches(
            self.train, self.recipe.batch_size, [job.seed for job in jobs], [job.fraction for job in jobs]
        )
        self._fill(build)
        captured = graph and device.type == "cuda"
        self.advance: Callable[[Tensor], None] = Captured(self._advance, device) if captured else self._advance
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
        self.kept_at = [jobs[0].start.step] * len(jobs)
        self.linked = False
        self.masked: list[Tensor] = []
        self.factors: list[Tensor] = []

    def _fill(self, build: Callable[[], nn.Module]) -> None:
        """Build each job's network as it is built alone, and stack what it holds."""
        for row, job in enumerate(self.jobs):
            seed_global(derive(job.seed, "init"), self.device)
            module = build()
            load(module, masked(job.start, job.masks))
            if row == 0:
                self.params = {
                    name: nn.Parameter(self._empty(p), p.requires_grad) for name, p in module.named_parameters()
                }
                self.buffers = {name: self._empty(b) for name, b in module.named_buffers()}
                self.state = list(state_buffers(module))
                first = module
            with torch.no_grad():
                for name, p in module.named_parameters():
                    self.params[name][row].copy_(p)
                for name, b in module.named_buffers():
                    self.buffers[name][row].copy_(b)
        example = self.train.x[0]
        self.networks = networks(first.to(self.device), self.params, self.buffers, example, self.recipe.loss)

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
            load_slots(self.optimizer, self.shares, saved)

    def outcomes(self) -> list[TrainOutcome]:
        """Train to the end and read the test split once for each of the two snapshots of a job."""
        return run(self, self.jobs, every=self.recipe.eval_every, watcher=self.watcher, numbers=self.numbers)

    def iterate(self, step: Step, until: Step) -> int:  # noqa: ARG002
        if self.lr_moves:
            self._set_rate(self.recipe.lr_at(step))
        self.advance(self.batches.at(step))
        return 1

    def evaluate(self) -> list[tuple[float, float]]:
        return self._evaluate(self._held(), self.val)

    def keep(self, places: Sequence[int], step: Step) -> None:
        if len(places) == len(self.jobs):
            self.kept = {name: value.clone() for name, value in self._held().items()}
        else:
            for name, value in self._held().items():
                self.kept[name][places] = value[places]
        for place in places:
            self.kept_at[place] = step

    def best(self, place: int) -> Snapshot:
        return self._cut_out(place, self.kept_at[place], self.kept)

    def test(self) -> list[tuple[float, float]]:
        part = Part(self.tests, self.device)
        now, best = self._evaluate(self._held(), part), self._evaluate(self.kept, part)
        return [(mine[1], kept[1]) for mine, kept in zip(now, best, strict=True)]

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _advance(self, index_RB: Tensor) -> None:
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

    def _evaluate(self, values: Mapping[str, Tensor], part: Part) -> list[tuple[float, float]]:
        """Give each replicate's mean loss (cross-entropy in nats) and accuracy (fraction)."""
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
                    found += [sum_loss(self.recipe.loss, z, y).double(), (z.argmax(1) == y).sum()]
        rows = torch.stack([one.double() for one in found]).view(-1, len(self.jobs), 2).cpu()
        return [
            (sum(rows[:, row, 0].tolist()) / length, sum(rows[:, row, 1].tolist()) / length)
            for row, length in enumerate(part.lengths)
        ]

    def _held(self) -> dict[str, Tensor]:
        return {**{name: p.detach() for name, p in self.params.items()}, **self.buffers}

    def snapshot(self, place: int, step: Step) -> Snapshot:
        own = {name: self.shares[f"{name} of replicate {place}"] for name in self.params}
        slots = slots_of(self.optimizer, own) if self.jobs[place].with_optimizer else {}
        return self._cut_out(place, step, self._held(), slots or None)

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
            buffers={name: values[name][row].detach().cpu().clone() for name in self.state},
            optimizer=optimizer,
        )


def _splits(splits: Callable[[Seed], Split], jobs: Sequence[TrainJob]) -> list[Split]:
    """Give each job's split, asked for family by family: a source may keep the last one only."""
    rows = sorted(range(len(jobs)), key=lambda row: (jobs[row].seed.root, jobs[row].seed.replicate))
    found = {row: splits(jobs[row].seed) for row in rows}
    return [found[row] for row in range(len(jobs))]
