"""Draws and calls that the tests of the sparse engine share."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
from numpy.typing import NDArray

from tombola.sparse.kernels import library
from tombola.sparse.kernels.library import Kernels, padded, pointer, zeros
from tombola.sparse.layers import RowsLayout, dense_positions

DENSITIES = (0.0, 0.02, 0.2, 0.7, 1.0)

shapes = st.tuples(st.integers(1, 70), st.integers(1, 140))
batches = st.sampled_from((1, 2, 7, 15, 16, 17, 33, 60, 64, 65, 100, 128, 129, 300))
seeds = st.integers(0, 2**32 - 1)


def draws(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def floats(draw: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return draw.standard_normal(shape).astype(np.float32)


def aligned(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Copy into memory of the kind the engine uses, flat."""
    out = zeros(array.size)
    out[: array.size] = array.reshape(-1)
    return out


def along_batch(draw: np.random.Generator, features: int, batch: int) -> NDArray[np.float32]:
    """Activations whose lanes beyond the batch are zero."""
    out = np.zeros((features, padded(batch)), dtype=np.float32)
    out[:, :batch] = floats(draw, features, batch)
    return out


class RowsCase:
    """A sparse matrix and its kernels."""

    def __init__(self, kernels: Kernels, mask: NDArray[np.bool_], weight: NDArray[np.float32], batch: int, block: int):
        self.kernels, self.batch = kernels, padded(batch)
        self.layout: RowsLayout = RowsLayout(mask, self.batch, block=block)
        self.structure = self.layout.structure()
        self.values = aligned(weight[self.layout.row, self.layout.column])

    def forward(self, bias: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
        out = zeros(self.layout.outputs * self.batch)
        self.kernels.rows_forward(self.structure, *map(pointer, (self.values, bias, aligned(x), out)), self.batch)
        return out[: self.layout.outputs * self.batch].reshape(-1, self.batch)

    def backward(self, g: NDArray[np.float32]) -> NDArray[np.float32]:
        out = zeros(self.layout.inputs * self.batch)
        self.kernels.rows_backward(self.structure, *map(pointer, (self.values, aligned(g), out)), self.batch)
        return out[: self.layout.inputs * self.batch].reshape(-1, self.batch)

    def gradient(self, x: NDArray[np.float32], g: NDArray[np.float32]) -> NDArray[np.float32]:
        """The gradient as a matrix, zero where there is no weight."""
        out = zeros(len(self.layout.row))
        self.kernels.rows_gradient(self.structure, *map(pointer, (aligned(x), aligned(g), out)), self.batch)
        dense = np.zeros((self.layout.outputs, self.layout.inputs), dtype=np.float32)
        dense[self.layout.row, self.layout.column] = out[: len(self.layout.row)]
        return dense


class DenseCase:
    """A dense matrix in panels and its kernels."""

    def __init__(self, kernels: Kernels, weight: NDArray[np.float32], batch: int):
        self.kernels, self.examples, self.batch = kernels, batch, padded(batch)
        self.outputs, self.inputs = weight.shape
        self.structure = library.Dense(self.outputs, padded(self.inputs))
        at = dense_positions(self.outputs, self.inputs)
        self.position = at
        self.values = aligned(np.where(at >= 0, weight.reshape(-1)[at], 0).astype(np.float32))

    def _rows(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        full = np.zeros((padded(self.inputs), self.batch), dtype=np.float32)
        full[: len(x)] = x
        return aligned(full)

    def forward(self, bias: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
        out = zeros(self.outputs * self.batch)
        self.kernels.dense_forward(self.structure, *map(pointer, (self.values, bias, self._rows(x), out)), self.batch)
        return out[: self.outputs * self.batch].reshape(-1, self.batch)

    def backward(self, g: NDArray[np.float32]) -> NDArray[np.float32]:
        out = zeros(padded(self.inputs) * self.batch)
        self.kernels.dense_backward(self.structure, *map(pointer, (self.values, aligned(g), out)), self.batch)
        return out.reshape(-1, self.batch)[: self.inputs]

    def gradient(self, x: NDArray[np.float32], g: NDArray[np.float32]) -> NDArray[np.float32]:
        out = zeros(len(self.position))
        arrays = map(pointer, (self._rows(x), aligned(g), out))
        self.kernels.dense_gradient(self.structure, *arrays, self.examples, self.batch)
        assert not out[: len(self.position)][self.position < 0].any()
        dense = np.zeros(self.outputs * self.inputs, dtype=np.float32)
        dense[self.position[self.position >= 0]] = out[: len(self.position)][self.position >= 0]
        return dense.reshape(self.outputs, self.inputs)


def close(actual: NDArray[Any], expected: NDArray[Any], terms: int = 1) -> None:
    """Float32 sums of so many terms of order one."""
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6 * max(1, terms) ** 0.5 + 1e-7)
