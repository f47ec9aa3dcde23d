"""Which trainer does the work: by what was asked, and what the network and the device allow."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Final, final

from torch import Tensor, nn

from tombola.data import Split
from tombola.errors import InvalidValue, UnknownName
from tombola.sparse import why_not
from tombola.sparse.kernels.library import kernels
from tombola.train.plain import PlainTrainer
from tombola.train.pool import Pool
from tombola.train.recipe import Recipe
from tombola.train.replicas import ReplicaTrainer, little_gain
from tombola.train.replicas_nets import why_not_stacked
from tombola.train.sparse import SparseTrainer
from tombola.train.watch import Watcher
from tombola.types import Seed, TrainFn

ENGINES: Final = ("plain", "sparse", "replicas")

_IN_A_STACK: Final = 32
"""Replicates trained as one, where there is memory for them. Fixed: bits may depend on what is stacked together."""


@final
@dataclass(frozen=True)
class Engine:
    """What trains the networks of a search.

    Attributes:
        name: one of ``ENGINES``.
        why: the reason in one sentence, where it was not asked for by name; otherwise what speaks against it, if
            anything does.
    """

    name: str
    why: str | None = None

    @property
    def kernels(self) -> str | None:
        """The level of the compiled kernels that it runs on, on which bits depend; ``None`` without any."""
        return kernels().level if self.name == "sparse" else None


def pick(
    asked: str,
    module: nn.Module,
    example: Tensor,
    device: str,
    *,
    dynamic: bool = False,
    moved: bool = False,
    augmented: bool = False,
) -> Engine:
    """Pick an engine.

    Args:
        asked: one of ``ENGINES``, or ``auto``: on the CPU ``sparse`` where the network is one for it, on a GPU
            ``replicas``; ``plain`` elsewhere.
        module: the network.
        example: one example, without a batch axis.
        device: ``cpu`` or ``cuda[:n]``.
        dynamic: masks change during training; a stack of replicas trains under fixed ones.
        moved: training accumulates how weights moved, as the plain engine alone does.
        augmented: training batches are changed at random, as by the plain engine alone.

    Raises:
        UnknownName: no such engine.
        InvalidValue: the engine that was asked for cannot train this network here; the message says why.
    """
    if asked not in ("auto", *ENGINES):
        raise UnknownName.among("engine", asked, ("auto", *ENGINES))
    on_cpu = device.startswith("cpu")
    if asked == "plain":
        return Engine("plain")
    unable = _why_not_this_job(asked, on_cpu, dynamic=dynamic, moved=moved, augmented=augmented)
    if unable is not None:
        if asked == "auto":
            return Engine("plain", unable)
        use = "plain" if moved or augmented else "plain or sparse"
        raise InvalidValue(f"the {asked} engine cannot train this: {unable}. Use the engine auto, or {use}.")
    if asked == "auto":
        if on_cpu:
            reason = why_not(module, example[None])
            cheap = "the cost of sparse training falls with density"
            return Engine("plain", reason) if reason else Engine("sparse", cheap)
        reason = why_not_stacked(module, example)
        return Engine("plain", reason) if reason else Engine("replicas", "a stack of networks fills the GPU")
    if asked == "sparse":
        reason = why_not(module, example[None]) if on_cpu else f"it runs on the CPU, and the device is {device}"
    else:
        reason = why_not_stacked(module, example)
    if reason is not None:
        raise InvalidValue(
            f"the {asked} engine cannot train this network here: {reason.rstrip('.')}. Use the engine auto or plain in "
            "a search; a ticket is trained again by the engine that found it, where that runs."
        )
    return Engine(asked, little_gain(module, device) if asked == "replicas" else None)


def _why_not_this_job(asked: str, on_cpu: bool, *, dynamic: bool, moved: bool, augmented: bool) -> str | None:
    """Say why the engine that is faster here, or was asked for, does not train what is to be done."""
    if moved:
        return "the plain engine alone accumulates how weights moved, which the criterion looks at"
    if augmented:
        return "the plain engine alone crops and flips the training images"
    if dynamic and (asked == "replicas" or (asked == "auto" and not on_cpu)):
        return "masks change during training, and a stack of replicas trains under fixed ones"
    return None


def trainer(
    engine: str,
    build: Callable[[], nn.Module],
    splits: Callable[[Seed], Split],
    recipe: Recipe,
    device: str,
    workers: int,
    watcher: Watcher,
) -> AbstractContextManager[TrainFn]:
    """Give an engine's training routine for as long as the context lasts; a stack of replicas is one process."""
    one = alone(engine, build, splits, recipe, device)
    if one is None:
        return nullcontext(ReplicaTrainer(build, splits, recipe, device, watcher, at_once=_IN_A_STACK))
    return Pool(replace(one, watcher=watcher), workers)


def alone(
    engine: str, build: Callable[[], nn.Module], splits: Callable[[Seed], Split], recipe: Recipe, device: str
) -> PlainTrainer | SparseTrainer | None:
    """Give what trains one network by itself; ``None`` for an engine that trains several as one."""
    if engine == "replicas":
        return None
    kind = SparseTrainer if engine == "sparse" else PlainTrainer
    return kind(build, splits, recipe, device)
