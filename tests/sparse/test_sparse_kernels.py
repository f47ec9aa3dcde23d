"""Every kernel is its plain reference, on every level, for every shape."""

import ctypes

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_kit import (
    DENSITIES,
    DenseCase,
    RowsCase,
    aligned,
    along_batch,
    batches,
    close,
    draws,
    floats,
    seeds,
    shapes,
)
from torch.nn import functional

from tombola.sparse.chain import ACTIVATIONS
from tombola.sparse.kernels import library, reference
from tombola.sparse.kernels.library import Kernels, padded, pointer, zeros
from tombola.sparse.network import LOSSES, OPTIMIZERS, Rule

some = settings(max_examples=60, deadline=None)


@some
@given(shape=shapes, batch=batches, density=st.sampled_from(DENSITIES), block=st.sampled_from((1, 7, 1000)), seed=seeds)
def test_rows(level: Kernels, shape: tuple[int, int], batch: int, density: float, block: int, seed: int) -> None:
    draw = draws(seed)
    mask = draw.random(shape) < density
    mask[draw.random(shape[0]) < 0.2] = False
    mask[:, draw.random(shape[1]) < 0.2] = False
    weight, bias = floats(draw, *shape) * mask, floats(draw, shape[0])
    x, g = along_batch(draw, shape[1], batch), along_batch(draw, shape[0], batch)
    case = RowsCase(level, mask, weight, batch, block)
    close(case.forward(bias, x), reference.forward(weight, bias, x), shape[1])
    close(case.backward(g), reference.backward(weight, g), shape[0])
    close(case.gradient(x, g), reference.gradient(x, g) * mask, batch)


@some
@given(shape=shapes, batch=batches, seed=seeds)
def test_dense(level: Kernels, shape: tuple[int, int], batch: int, seed: int) -> None:
    draw = draws(seed)
    weight, bias = floats(draw, *shape), floats(draw, shape[0])
    x, g = along_batch(draw, shape[1], batch), along_batch(draw, shape[0], batch)
    case = DenseCase(level, weight, batch)
    close(case.forward(bias, x), reference.forward(weight, bias, x), shape[1])
    close(case.backward(g), reference.backward(weight, g), shape[0])
    close(case.gradient(x, g), reference.gradient(x, g), batch)


@some
@given(
    features=st.integers(1, 70) | st.integers(250, 600),
    batch=batches,
    live=st.sampled_from(DENSITIES),
    numbered=st.booleans(),
    seed=seeds,
)
def test_gather(level: Kernels, features: int, batch: int, live: float, numbered: bool, seed: int) -> None:
    draw = draws(seed)
    x = floats(draw, batch + 5, features)
    which = draw.permutation(batch + 5)[:batch].astype(np.int64) if numbered else np.arange(batch)
    target = np.full(features, -1, dtype=np.int32)
    chosen = np.flatnonzero(draw.random(features) < live)
    target[chosen] = draw.permutation(len(chosen))
    out = zeros(len(chosen) * padded(batch))
    examples = library.Examples(pointer(x), features, pointer(which) if numbered else None, batch, features)
    level.gather(ctypes.byref(examples), pointer(target), pointer(out), padded(batch))
    expected = reference.gather(x, which, target, padded(batch))
    assert np.array_equal(out[: expected.size].reshape(expected.shape), expected)


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activations(level: Kernels, function: str) -> None:
    x = aligned(
        np.concatenate([np.linspace(-12, 12, 4001), np.geomspace(1e-30, 80, 500), [0, -0.0]]).astype(np.float32)
    )
    out, gradient = zeros(len(x)), zeros(len(x))
    gradient[:] = 2
    kind = ACTIVATIONS.index(function)
    level.activate(kind, 0.2, pointer(x), pointer(out), len(x))
    level.activate_backward(kind, 0.2, pointer(x), pointer(out), pointer(gradient), len(x))
    np.testing.assert_allclose(out, reference.activate(function, 0.2, x), rtol=3e-7, atol=6e-7)
    np.testing.assert_allclose(gradient, 2 * reference.activate_backward(function, 0.2, x), rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_what_is_not_finite_goes_through_activations_as_in_torch(level: Kernels, function: str) -> None:
    x = aligned(np.array([np.nan, np.inf, 1e38, 90, 200, -90, -200, -1e38], dtype=np.float32))
    out = zeros(len(x))
    level.activate(ACTIVATIONS.index(function), 0.2, pointer(x), pointer(out), len(x))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = reference.activate(function, 0.2, x.astype(np.float32))
    np.testing.assert_allclose(out, expected, rtol=3e-7, atol=2e-7)


@pytest.mark.parametrize("name", LOSSES)
@some
@given(classes=st.integers(1, 20), batch=batches, scale=st.sampled_from((0.01, 1.0, 50.0)), seed=seeds)
def test_loss(level: Kernels, name: str, classes: int, batch: int, scale: float, seed: int) -> None:
    draw = draws(seed)
    logits = along_batch(draw, classes, batch) * np.float32(scale)
    labels = draw.integers(classes, size=batch)
    flat, gradient = aligned(logits), zeros(logits.size)
    loss, right = ctypes.c_double(0), ctypes.c_int64(0)
    kind, sizes = LOSSES.index(name), (classes, batch, padded(batch))
    level.loss_gradient(kind, pointer(flat), pointer(labels), *sizes, pointer(gradient))
    level.add_loss(kind, pointer(flat), pointer(labels), *sizes, ctypes.byref(loss), ctypes.byref(right))
    value, slope = {
        "cross-entropy": (reference.cross_entropy, reference.cross_entropy_gradient),
        "mse": (reference.squared_error, reference.squared_error_gradient),
    }[name]
    expected = slope(logits, labels)
    np.testing.assert_allclose(gradient[: logits.size].reshape(logits.shape), expected, rtol=2e-6, atol=2e-7 / batch)
    total, hits = value(logits.astype(np.float64) + 0, labels)
    if np.isfinite(total):
        assert loss.value == pytest.approx(total, rel=1e-5, abs=1e-5 * batch)
    assert right.value == hits


@pytest.mark.parametrize("name", LOSSES)
def test_of_equal_logits_the_first_counts_and_nan_is_the_largest(level: Kernels, name: str) -> None:
    logits = np.zeros((3, 16), dtype=np.float32)
    logits[2, 1], logits[1:, 2] = np.nan, np.nan
    labels = np.array([0, 2, 1], dtype=np.int64)
    loss, right = ctypes.c_double(0), ctypes.c_int64(0)
    into = ctypes.byref(loss), ctypes.byref(right)
    level.add_loss(LOSSES.index(name), pointer(logits), pointer(labels), 3, 3, 16, *into)
    assert right.value == 3
    assert np.isnan(loss.value)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_loss_that_is_not_finite_in_torch_is_not_here(level: Kernels, name: str, value: float) -> None:
    logits = torch.zeros(3, 16)
    logits[1, 4] = value
    labels = torch.tensor([2] * 5)
    loss, right = ctypes.c_double(0), ctypes.c_int64(0)
    into = ctypes.byref(loss), ctypes.byref(right)
    level.add_loss(LOSSES.index(name), pointer(logits.numpy()), pointer(labels.numpy()), 3, 5, 16, *into)
    if name == "mse":
        expected = functional.mse_loss(logits.T[:5], functional.one_hot(labels, 3).float())
    else:
        expected = functional.cross_entropy(logits.T[:5], labels)
    assert np.isfinite(loss.value) == bool(torch.isfinite(expected))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 100), step=st.sampled_from((1, 2, 1000)), decay=st.sampled_from((0.0, 0.1)), seed=seeds)
def test_update(level: Kernels, optimizer: str, count: int, step: int, decay: float, seed: int) -> None:
    draw = draws(seed)
    rule = Rule(optimizer, 0.9 if optimizer in ("momentum", "nesterov") else 0.0, decay)
    value, slope = floats(draw, count), floats(draw, count)
    state = tuple(np.abs(floats(draw, count)) for _ in rule.slots)
    ours, held = aligned(value), [aligned(one) for one in state]
    entries = library.Entries(pointer(ours), *map(pointer, (*held, None, None)[:2]), count)
    structure, gradient = rule.structure(), aligned(slope)
    level.update(ctypes.byref(structure), 0.01, step, ctypes.byref(entries), pointer(gradient))
    expected, kept = reference.update(optimizer, (0.01, rule.momentum, decay), step, value, state, slope)
    np.testing.assert_allclose(ours[:count], expected, rtol=1e-5, atol=1e-6)
    for mine, other in zip(held, kept, strict=True):
        np.testing.assert_allclose(mine[:count], other, rtol=1e-5, atol=1e-6)
    assert not ours[count:].any()
