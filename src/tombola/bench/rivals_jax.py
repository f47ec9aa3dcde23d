"""The replicates in JAX: one network's iteration, mapped over them with ``vmap`` and compiled by XLA."""

import importlib
import os
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor

from tombola.bench.loop import Masks
from tombola.bench.workload import LR, Workload
from tombola.prune.rewinding import masked
from tombola.types import Seed

_FIRST, _SECOND, _EPS = 0.9, 0.999, 1e-8
_TRIAL: Final = 10


def why_not() -> str | None:
    """Say why it does not run here."""
    return None if find_spec("jax") is not None else "JAX is not installed: pip install jax"


@final
class Vmapped:
    """Networks of one architecture in training, each under masks and with an order of its own.

    Of the two usual loops, a compiled iteration called from Python and a compiled ``scan`` over iterations, the one
    that is faster here is taken.
    """

    def __init__(self, work: Workload, masks: Sequence[Masks], seeds: Sequence[Seed]) -> None:
        self._jax = jax = _imported()
        self._np = jax.numpy
        starts = [masked(work.start(seed), found).params for seed, found in zip(seeds, masks, strict=True)]
        layers = [name.rpartition(".")[0] for name in work.weights(work.start(seeds[0]))]

        def stacked(name: str) -> Any:
            return self._np.asarray(np.stack([start[name].numpy() for start in starts]))

        params = [(stacked(f"{layer}.weight"), stacked(f"{layer}.bias")) for layer in layers]
        factors = [_factors(jax, masks, f"{layer}.weight", w) for layer, (w, _) in zip(layers, params, strict=True)]
        self._x = self._np.asarray(work.split.train_x.flatten(1).numpy())
        self._y = self._np.asarray(work.split.train_y.numpy())
        iteration = jax.vmap(self._iteration, in_axes=(0, 0, 0, 0, None, 0))

        def one(state: Any, order: Any) -> Any:
            params, first, second, step = state
            return *iteration(params, factors, first, second, step + 1, order), step + 1

        def many(state: Any, orders: Any) -> Any:
            return jax.lax.scan(lambda state, order: (one(state, order), None), state, orders)[0]

        self._one, self._many = jax.jit(one, donate_argnums=0), jax.jit(many, donate_argnums=0)
        self._logits = jax.jit(jax.vmap(_logits, in_axes=(0, None)))
        self._fresh = [(np.asarray(w), np.asarray(b)) for w, b in params]
        self._scans = False
        self._state: Any = None
        self._start()

    @property
    def note(self) -> str:
        """Which loop was taken."""
        return "iterations in a compiled scan" if self._scans else "a compiled iteration, called from Python"

    def choose(self, orders: Tensor) -> None:
        """Compile both loops, keep the faster one, and start again."""
        seconds = {}
        for self._scans in (False, True):
            self.train(orders[:_TRIAL])
            began = time.perf_counter()
            self.train(orders[:_TRIAL])
            seconds[self._scans] = time.perf_counter() - began
        self._scans = seconds[True] < seconds[False]
        self.train(orders)
        self._start()

    def train(self, orders: Tensor) -> None:
        """Make iterations: ``orders`` is int64 ``[iterations, replicates, batch]``."""
        numbers = self._np.asarray(orders.numpy().astype(np.int32))
        if self._scans:
            self._state = self._many(self._state, numbers)
        else:
            for order in numbers:
                self._state = self._one(self._state, order)
        self._jax.block_until_ready(self._state)

    def losses(self, x: Tensor, y: Tensor) -> list[float]:
        """Give every replicate's mean cross-entropy (nats)."""
        logits = np.array(self._logits(self._state[0], x.flatten(1).numpy()))
        return [
            float(torch.nn.functional.cross_entropy(torch.from_numpy(each), y)) for each in logits
        ]  # fmt: skip

    def _start(self) -> None:
        params = self._jax.tree.map(self._np.array, self._fresh)
        zeros = [self._jax.tree.map(self._np.zeros_like, params) for _ in range(2)]
        self._state = params, *zeros, self._np.float32(0)

    def _iteration(self, params: Any, factors: Any, first: Any, second: Any, step: Any, batch: Any) -> Any:
        jax, tree = self._jax, self._jax.tree
        gradients = jax.grad(_loss)(params, self._x[batch], self._y[batch])
        gradients = [
            (w if factor is None else w * factor, b) for (w, b), factor in zip(gradients, factors, strict=True)
        ]
        first = tree.map(lambda m, g: _FIRST * m + (1 - _FIRST) * g, first, gradients)
        second = tree.map(lambda v, g: _SECOND * v + (1 - _SECOND) * g * g, second, gradients)
        rate, root = LR / (1 - _FIRST**step), self._np.sqrt(1 - _SECOND**step)
        params = tree.map(lambda p, m, v: p - rate * m / (self._np.sqrt(v) / root + _EPS), params, first, second)
        return params, first, second


def _factors(jax: Any, masks: Sequence[Masks], name: str, weights: Any) -> Any:
    if not any(masks):
        return None
    ones = torch.ones(weights.shape[1:])
    return jax.numpy.asarray(np.stack([found.get(name, ones).float().numpy() for found in masks]))


def _logits(params: Any, x: Any) -> Any:
    relu = importlib.import_module("jax").nn.relu
    for w, b in params[:-1]:
        x = relu(x @ w.T + b)
    w, b = params[-1]
    return x @ w.T + b


def _loss(params: Any, x: Any, y: Any) -> Any:
    jax = importlib.import_module("jax")
    logits = jax.nn.log_softmax(_logits(params, x))
    return -jax.numpy.take_along_axis(logits, y[:, None], 1).mean()


def _imported() -> Any:
    # XLA reads both when it starts; one thread, as everyone else has.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    os.environ.setdefault("NPROC", "1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    return importlib.import_module("jax")
