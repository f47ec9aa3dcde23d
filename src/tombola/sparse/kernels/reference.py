"""What each kernel means, in numpy: one function for each, with the same name.

Activations have one row for each feature and the batch along it: float32 ``[features, batch]``. These compute in
float64, so that a kernel is held to the value and not to another's rounding.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def gather(x: NDArray[np.float32], which: NDArray[np.int64], target: NDArray[np.int32], batch: int) -> Array:
    """Give ``out[target[f], i] = x[which[i], f]`` for the targets from 0 on; lanes beyond the last repeat it."""
    out = np.zeros((int(target.max(initial=-1)) + 1, batch))
    lanes = which[np.minimum(np.arange(batch), len(which) - 1)]
    for feature, row in enumerate(target):
        if row >= 0:
            out[row] = x[lanes, feature]
    return out


def forward(weight: NDArray[Any], bias: NDArray[Any], x: NDArray[Any]) -> Array:
    """Give ``W x + b``: ``[outputs, inputs]``, ``[outputs]`` and ``[inputs, batch]`` -> ``[outputs, batch]``."""
    out: Array = weight.astype(np.float64) @ x.astype(np.float64) + bias[:, None]
    return out


def backward(weight: NDArray[Any], out_gradient: NDArray[Any]) -> Array:
    """Give the gradient of the inputs, ``W^T g``: ``[inputs, batch]``."""
    out: Array = weight.astype(np.float64).T @ out_gradient.astype(np.float64)
    return out


def gradient(x: NDArray[Any], out_gradient: NDArray[Any]) -> Array:
    """Give the gradient of the weights, ``g x^T``: ``[outputs, inputs]``."""
    out: Array = out_gradient.astype(np.float64) @ x.astype(np.float64).T
    return out


def activate(function: str, slope: float, x: NDArray[Any]) -> Array:
    """Give an element-wise function; its names are those of :data:`tombola.sparse.chain.ACTIVATIONS`."""
    x = x.astype(np.float64)
    found: dict[str, Array] = {
        "relu": np.where(x <= 0, 0, x),
        "leaky-relu": np.where(x > 0, x, slope * x),
        "tanh": np.tanh(x),
        "sigmoid": 1 / (1 + np.exp(-x)),
        "gelu": x * _distribution(x),
        "gelu-tanh": 0.5 * x * (1 + np.tanh(_inner(x))),
    }
    return found[function]


def activate_backward(function: str, slope: float, x: NDArray[Any]) -> Array:
    """Give the derivative."""
    x = x.astype(np.float64)
    sigmoid, tanh, inner = 1 / (1 + np.exp(-x)), np.tanh(x), np.tanh(_inner(x))
    rise = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    found: dict[str, Array] = {
        "relu": np.where(x <= 0, 0.0, 1.0),
        "leaky-relu": np.where(x > 0, 1.0, slope),
        "tanh": 1 - tanh**2,
        "sigmoid": sigmoid * (1 - sigmoid),
        "gelu": _distribution(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi),
        "gelu-tanh": 0.5 * (1 + inner) + 0.5 * x * (1 - inner**2) * rise,
    }
    return found[function]


def _distribution(x: Array) -> Array:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x.reshape(-1)]).reshape(x.shape)


def _inner(x: Array) -> Array:
    out: Array = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return out


def softmax(logits: NDArray[Any]) -> Array:
    """Give the probabilities: ``[classes, batch]``."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=0))
    out: Array = powers / powers.sum(axis=0)
    return out


def cross_entropy_gradient(logits: NDArray[Any], labels: NDArray[np.int64]) -> Array:
    """Give the gradient of the mean over the examples that have labels; lanes beyond them are 0."""
    out = softmax(logits)
    out[:, len(labels) :] = 0
    out[labels, np.arange(len(labels))] -= 1
    return out / len(labels)


def cross_entropy(logits: NDArray[Any], labels: NDArray[np.int64]) -> tuple[float, int]:
    """Give the sum of the losses (nats), and how many labels have the first largest logit."""
    here = logits[:, : len(labels)]
    chosen = softmax(here)[labels, np.arange(len(labels))]
    return float(-np.log(chosen).sum()), int((here.argmax(axis=0) == labels).sum())


def squared_error_gradient(logits: NDArray[Any], labels: NDArray[np.int64]) -> Array:
    """Give the gradient of the mean over the examples that have labels and over classes; lanes beyond them are 0."""
    out = logits.astype(np.float64)
    out[:, len(labels) :] = 0
    out[labels, np.arange(len(labels))] -= 1
    return 2 * out / (len(labels) * len(logits))


def squared_error(logits: NDArray[Any], labels: NDArray[np.int64]) -> tuple[float, int]:
    """Give the sum over examples of the mean over classes, and how many labels have the first largest logit."""
    here = logits[:, : len(labels)].astype(np.float64)
    apart = here - (np.arange(len(logits))[:, None] == labels)
    return float((apart**2).mean(axis=0).sum()), int((here.argmax(axis=0) == labels).sum())


def update(
    optimizer: str,
    constants: tuple[float, float, float],
    step: int,
    value: NDArray[Any],
    state: tuple[NDArray[Any], ...],
    slope: NDArray[Any],
) -> tuple[Array, tuple[Array, ...]]:
    """Make one step.

    Args:
        optimizer: one of :data:`tombola.sparse.network.OPTIMIZERS`.
        constants: learning rate, momentum and weight decay.
        step: from 1.
        value: the parameters.
        state: the momentum, or Adam's two moments.
        slope: the gradient.
    """
    lr, momentum, decay = constants
    value, slope = value.astype(np.float64), slope.astype(np.float64)
    if optimizer == "adamw":
        value = value * (1 - lr * decay)
    else:
        slope = slope + decay * value
    if optimizer == "sgd":
        return value - lr * slope, ()
    if optimizer in ("momentum", "nesterov"):
        moved = momentum * state[0].astype(np.float64) + slope
        return value - lr * (slope + momentum * moved if optimizer == "nesterov" else moved), (moved,)
    first = 0.9 * state[0].astype(np.float64) + 0.1 * slope
    second = 0.999 * state[1].astype(np.float64) + 0.001 * slope**2
    root = np.sqrt(second / (1 - 0.999**step)) + 1e-8
    return value - lr * first / (1 - 0.9**step) / root, (first, second)
