"""Batch-norm statistics measured again, for weights that were changed without training."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.errors import DataTooSmall
from tombola.models import DRAWING, state_buffers
from tombola.prune.rewinding import masked
from tombola.train.order import BatchOrder
from tombola.train.plain import load
from tombola.types import Masks, Seed, Snapshot

_STATISTICS: Final = ("running_mean", "running_var", "num_batches_tracked")


def recalibrate(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure the running statistics of every batch norm again, in place, and touch nothing else.

    Ioffe & Szegedy (2015), Algorithm 2: for inference, the mean is that of the batches' means and the variance that of
    their unbiased variances, each batch counting alike. What a batch is normalised with on the way is its own mean and
    variance, as in training; everything else, dropout among it, is as in evaluation. A channel that no weight leads to
    any more gets the variance 0, and what it gives stays finite.

    Pruning changes what a batch norm is given, and training afterwards would move its statistics; where there is none,
    as after one-shot pruning, this does. It changes the network, so report it next to the result without it.

    Args:
        module: any network. One without batch norm, or whose batch norms keep no statistics, is left as it is, and the
            batches are not read.
        batches: inputs of the training split, each ``[B, *input_shape]``; they are brought to the module's device. Of
            batches of different sizes the small ones count as much as the large. Validation and test examples have no
            place here: what is measured on them is no longer news to the network.

    Raises:
        DataTooSmall: there is no batch, or one that holds a single value of a channel, which has no variance. The
            statistics are then what they were.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
    if not norms:
        return
    device = next((value.device for value in module.parameters()), torch.device("cpu"))
    with _measuring(module, norms), torch.no_grad():
        count = 0
        for count, x in enumerate(batches, start=1):  # noqa: B007
            _pass(module, x.to(device))
        if not count:
            raise DataTooSmall(
                "there was no batch to measure batch-norm statistics on, and at least one is needed. Give batches of "
                "the training split; an iterator that was used up before is empty."
            )


def recalibrated(
    network: nn.Module | Callable[[], nn.Module], snapshot: Snapshot, masks: Masks, batches: Iterable[Tensor]
) -> Snapshot:
    """Give the subnetwork of a snapshot with its batch-norm statistics measured again; see :func:`recalibrate`.

    Args:
        network: the network that the snapshot is of, which is copied, or what builds it; its values are not used.
        snapshot: the weights, such as those at the end of a level.
        masks: the subnetwork: pruned weights are zero when the statistics are measured.
        batches: inputs of the training split, each ``[B, *input_shape]``.

    Returns:
        The snapshot under its masks, with the new statistics among its buffers, where the old ones were; a network
        without batch norm keeps its buffers.

    Raises:
        ShapeMismatch: the snapshot is not of this network.
        DataTooSmall: as :func:`recalibrate`.
    """
    # Building draws from torch's global generator, which is the caller's.
    with DRAWING, torch.random.fork_rng(devices=[]):
        module = deepcopy(network) if isinstance(network, nn.Module) else network()
    cut = masked(snapshot, masks)
    load(module, cut)
    recalibrate(module, batches)
    found = state_buffers(module)
    return replace(cut, buffers={n: found[n].detach().to(old.device, copy=True) for n, old in cut.buffers.items()})


def training_batches(x: Tensor, batch_size: int, seed: Seed) -> Iterator[Tensor]:
    """Give the whole batches of the first epoch that a run of this seed trains on.

    Args:
        x: the inputs of the training split, ``[N, *input_shape]``.
        batch_size: examples in a batch; the rest of the epoch that makes no whole batch is left out.
        seed: that of the run.

    Yields:
        ``[batch_size, *input_shape]``, N // batch_size of them.

    Raises:
        DataTooSmall: a batch is larger than the data.
    """
    order = BatchOrder(len(x), batch_size, seed)
    for step in range(len(x) // batch_size):
        yield x.index_select(0, order.at(step).to(x.device))


def _pass(module: nn.Module, x: Tensor) -> None:
    try:
        module(x)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise DataTooSmall(
            f"a batch of shape {tuple(x.shape)} leaves a batch norm one value of each channel, which has no variance. "
            "Give larger batches."
        ) from error


@contextmanager
def _measuring(module: nn.Module, norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Let the batch norms alone train, from nothing and averaging all alike; put everything back but what they found.

    Where measuring fails, the statistics are put back as well.
    """
    modes = [(part, part.training) for part in module.modules()]
    momenta = [(norm, norm.momentum) for norm in norms]
    held = [getattr(norm, name) for norm in norms for name in _STATISTICS]
    before = [value.clone() for value in held]
    try:
        module.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        yield
    except BaseException:
        with torch.no_grad():
            for value, old in zip(held, before, strict=True):
                value.copy_(old)
        raise
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
        for part, training in modes:
            part.training = training
