"""A way of training: ours, and the loop that a researcher writes, which most rivals share."""

from collections.abc import Callable, Iterable
from typing import Protocol, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.bench.workload import LR, Workload
from tombola.prune.rewinding import masked
from tombola.sparse import Rule, SparseNetwork, read_chain
from tombola.train.plain import evaluate

Masks = dict[str, Tensor]
"""Name -> bool; empty where the network is dense."""


class Way(Protocol):
    """A network in training."""

    def train(self, order: Tensor) -> None:
        """Make iterations: ``order`` is int64 ``[iterations, batch]``, numbers of examples."""

    def evaluate(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """Give mean cross-entropy (nats) and accuracy (fraction)."""


@final
class Ours:
    """The sparse engine."""

    def __init__(self, work: Workload, masks: Masks) -> None:
        module = started(work, masks)
        params = {name: p.detach() for name, p in module.named_parameters()}
        chain = read_chain(module, work.split.val_x)
        self._network = SparseNetwork(chain, params, masks, Rule("adam"), batch_size=work.batch)
        self._x, self._y = work.split.train_x.flatten(1).contiguous(), work.split.train_y

    def train(self, order: Tensor) -> None:
        """Make iterations."""
        self._network.train(self._x, self._y, order, [LR] * len(order))

    def evaluate(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """Give mean cross-entropy (nats) and accuracy (fraction)."""
        return self._network.evaluate(x.flatten(1).contiguous(), y)


@final
class TorchLoop:
    """Forward, backward, fused Adam: :class:`~tombola.train.plain.PlainTrainer` without its book-keeping."""

    def __init__(
        self,
        work: Workload,
        network: nn.Module,
        *,
        params: Iterable[nn.Parameter] | None = None,
        held: Iterable[tuple[nn.Parameter, Tensor]] = (),
        finish: Callable[[], None] | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        judge: Callable[[Tensor, Tensor], tuple[float, float]] | None = None,
    ) -> None:
        """Make the optimiser.

        Args:
            work: what to train on.
            network: module from a batch to logits.
            params: what Adam updates; by default all of the network's.
            held: parameters and the float masks by which their gradients are multiplied.
            finish: called between the backward pass and the optimiser.
            loss: of a batch, instead of the cross-entropy of the network's logits.
            judge: evaluation, instead of the plain one.
        """
        self._x, self._y = work.split.train_x, work.split.train_y
        self._network = network
        pairs = tuple(held)
        self._held, self._factors = [p for p, _ in pairs], [factor for _, factor in pairs]
        self._finish, self._judge = finish, judge
        self._loss = loss or self._cross_entropy
        self._optimizer = torch.optim.Adam(list(params or network.parameters()), lr=LR, fused=True)

    def train(self, order: Tensor) -> None:
        """Make iterations."""
        for batch in order:
            loss = self._loss(self._x.index_select(0, batch), self._y.index_select(0, batch))
            self._optimizer.zero_grad()
            loss.backward()
            if self._held:
                torch._foreach_mul_([p.grad for p in self._held if p.grad is not None], self._factors)
            if self._finish is not None:
                self._finish()
            self._optimizer.step()

    def evaluate(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """Give mean cross-entropy (nats) and accuracy (fraction)."""
        return self._judge(x, y) if self._judge is not None else evaluate(self._network, x, y)

    def _cross_entropy(self, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(self._network(x), y)


def eager(work: Workload, masks: Masks) -> TorchLoop:
    """Make the plain loop: dense layers, masks on the gradients."""
    network = started(work, masks)
    return TorchLoop(work, network, held=factors(network, masks))


def started(work: Workload, masks: Masks) -> nn.Module:
    """Build the network at its masked start values."""
    network = work.build()
    restart(network, work, masks)
    return network


def restart(network: nn.Module, work: Workload, masks: Masks) -> None:
    """Put the masked start values into a network."""
    values = masked(work.start(), masks).params
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(values[name])


def factors(network: nn.Module, masks: Masks) -> list[tuple[nn.Parameter, Tensor]]:
    """Pair the masked parameters with their masks as numbers."""
    return [(network.get_parameter(name), mask.float()) for name, mask in masks.items()]


def linear_layers(network: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Give the linear layers of a chain with their names."""
    return [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
