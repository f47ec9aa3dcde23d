"""The replicas engine: networks of one architecture trained as one stacked computation on one device."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import torch
from torch import Tensor, nn

from tombola.data import Split
from tombola.errors import InvalidValue
from tombola.seeds import derive
from tombola.train.process import seed_global, undisturbed
from tombola.train.recipe import Recipe
from tombola.train.replicas_nets import chain, why_not_stacked
from tombola.train.replicas_stack import EVALUATION_CHUNK, Stack
from tombola.train.run import check_fixed, check_order
from tombola.train.watch import Unwatched, Watcher
from tombola.types import Seed, Step, TrainJob, TrainOutcome

_SMALL: Final = 100_000
"""Weights up to which a network trains faster in a stack on a CPU; see ``tombola bench replicas``."""


@final
@dataclass
class ReplicaTrainer:
    """Trains networks of one architecture side by side: a stacked :class:`~tombola.train.plain.PlainTrainer`.

    The jobs of a call that start at one step and stop at one are trained as one computation whose tensors have the
    replicate as their first axis. Weights, moments (where all have some), masks, seeds, data orders, splits and the
    snapshots asked for may differ. Each outcome is what :class:`~tombola.train.plain.PlainTrainer` gives for the job
    alone, up to rounding: sums may be taken in another order, and the last elements of a tensor by other code. On a CPU
    LeNet-300-100 was found equal bit for bit; of 160 chains of random widths the worst differed by 1e-4 of a tensor's
    largest value after 30 iterations, most by less than 1e-6. Longer training amplifies that, and so does Adam where a
    gradient is nearly zero. For the same reason bits may depend on what is stacked together: on a CPU calls
    with the same jobs, ``at_once`` and machine repeat them, and with ``at_once=1`` a result depends on its job alone.

    A replicate that diverges stops counting, and the others go on as if it were not there. ``seconds`` is a job's equal
    share of its stack's wall time, so that the sum over the jobs is the wall time of training them.

    On CUDA the iteration is captured in a graph and replayed.

    Attributes:
        build: makes the module; called once per job, and once more per call.
        splits: seed -> the data, on the CPU; equal seeds may be given equal tensors, which are then held once.
        recipe: how to train.
        device: ``cpu`` or ``cuda[:n]``.
        watcher: told of every evaluation; asked before every iteration of a stack.
        at_once: how many replicates are trained in one stack at most, at least 1; by default, and never more than, what
            is estimated to take half of the memory that the device has.
        graph: capture the iteration on CUDA; without it the same computation runs eagerly.
    """

    build: Callable[[], nn.Module]
    splits: Callable[[Seed], Split]
    recipe: Recipe
    device: str = "cpu"
    watcher: Watcher = field(default_factory=Unwatched)
    at_once: int | None = None
    graph: bool = True

    def __post_init__(self) -> None:
        if self.at_once is not None and self.at_once < 1:
            raise InvalidValue(f"at_once is {self.at_once}; at least 1 replicate is trained at a time.")

    def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        """Train the jobs, stack after stack; outcomes come in the jobs' order.

        Raises:
            InvalidValue: the network cannot be stacked (:func:`~tombola.train.replicas_nets.why_not_stacked` says so
                beforehand), or a job runs back, changes its masks or accumulates how weights moved.
            ShapeMismatch: a job's tensors do not fit the module.
            DataTooSmall: the batch is larger than the training split.
        """
        for job in jobs:
            check_order(job)
            check_fixed(job, "the replicas engine")
        if not jobs:
            return []
        with undisturbed(self.device):
            outcomes: dict[int, TrainOutcome] = {}
            for numbers in _cut(_groups(jobs), self._most(jobs[0])):
                stack = Stack(
                    self.build,
                    self.splits,
                    self.recipe,
                    device=torch.device(self.device),
                    watcher=self.watcher,
                    graph=self.graph,
                    jobs=[jobs[number] for number in numbers],
                    numbers=numbers,
                )
                outcomes.update(zip(numbers, stack.outcomes(), strict=True))
        return [outcomes[number] for number in range(len(jobs))]

    def _most(self, job: TrainJob) -> int:
        """Say how many replicates go into a stack; raise for a network that does not."""
        seed_global(derive(job.seed, "init"), torch.device(self.device))
        module = self.build().to(self.device)
        example = self.splits(job.seed).train_x[0].to(self.device)
        reason = why_not_stacked(module, example)
        if reason is not None:
            raise InvalidValue(f"{reason} Use the plain engine for this network.")
        most = max(1, _memory(self.device) // 2 // footprint(module, example, self.recipe.batch_size))
        # A power of two, so that machines of nearly equal memory make equal stacks.
        fits = 1 << (most.bit_length() - 1)
        return fits if self.at_once is None else min(self.at_once, fits)


def little_gain(module: nn.Module, device: str) -> str | None:
    """Say in one sentence why stacking gains little over one network after another; ``None`` where it is worth it.

    On a GPU it is from two replicates on. On one CPU thread it spares the interpreter's share only, so it is for small
    chains of linear layers; ``tombola bench replicas`` measures it.
    """
    if not device.startswith("cpu"):
        return None
    weights = sum(p.numel() for p in module.parameters())
    linear = chain(module, torch.empty(1)) is not None
    if linear and weights <= _SMALL:
        return None
    what = f"a network of {weights:,} weights" if linear else "a network that is no chain of linear layers"
    return f"on a CPU {what} gains little from stacking"


def footprint(module: nn.Module, example: Tensor, batch_size: int) -> int:
    """Estimate the bytes that one replicate of a stack takes on the device.

    Weights, gradient, two moments, mask, best snapshot and one temporary; twice the activations of a training batch
    and once those of an evaluation chunk.
    """
    seen = [example.nbytes]
    hooks = [
        part.register_forward_hook(lambda _, __, out: seen.append(out.nbytes if isinstance(out, Tensor) else 0))
        for part in module.modules()
        if not list(part.children())
    ]
    was_training = module.training
    try:
        with torch.no_grad():
            module.eval()(example[None])
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    weights = sum(p.nbytes for p in module.parameters())
    return 7 * weights + sum(seen) * max(2 * batch_size, EVALUATION_CHUNK)


def _memory(device: str) -> int:
    """Give the bytes of memory that a device has.

    Not those that are free: they change from call to call, stacks would change with them, and bits with the stacks.
    """
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(torch.device(device)).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 1 << 31


def _groups(jobs: Sequence[TrainJob]) -> list[list[int]]:
    """Put the jobs together that can be trained as one: from one position to another, with or without moments.

    A momentum that some have and others do not would be taken for one that all have.
    """
    together: dict[tuple[Step, Step, object], list[int]] = {}
    for number, job in enumerate(jobs):
        state = job.start.optimizer
        slots = None if state is None else frozenset((name, slot) for name in state for slot in state[name])
        together.setdefault((job.start.step, job.stop, slots), []).append(number)
    return list(together.values())


def _cut(groups: Sequence[list[int]], most: int) -> Iterator[list[int]]:
    """Cut each group into stacks of nearly equal size, none above ``most``."""
    for numbers in groups:
        stacks = -(-len(numbers) // most)
        for stack in range(stacks):
            yield numbers[len(numbers) * stack // stacks : len(numbers) * (stack + 1) // stacks]
