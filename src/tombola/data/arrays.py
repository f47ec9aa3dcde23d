"""From anybody's arrays to a data set: one place for the checks and the conventions."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tombola.data.dataset import Dataset
from tombola.data.published import DEFAULT_MARGIN
from tombola.errors import CorruptData

Array = npt.NDArray[Any]

_CHANNELS: Final = (1, 3)


def from_arrays(name: str, where: str, train: tuple[Array, Array], test: tuple[Array, Array] | None) -> Dataset:
    """Check arrays and make a data set of them.

    uint8 inputs are pixels: they are scaled by 1/255, ``[N, H, W]`` gets a channel axis, and ``[N, H, W, 1 or 3]``
    becomes channels first. Inputs of any other type are taken as they stand, as float32.

    Args:
        name: of the data set.
        where: what messages call the source, such as the file's path.
        train: inputs ``[N, ...]`` and labels ``[N]`` or ``[N, 1]``, integers ``0 .. classes-1``, each class present.
        test: the same, or ``None``.

    Raises:
        CorruptData: NaN or infinity among the inputs, labels that are not integers or not ``0 .. classes-1``, fewer
            than two classes, a different number of inputs and labels, or different shapes in training and test.
    """
    train_x, train_y = _inputs(f"{where} (train)", train[0]), _labels(f"{where} (train)", train[1])
    _check_count(f"{where} (train)", train_x, train_y)
    classes = _classes(where, train_y)
    test_x, test_y = None, None
    if test is not None:
        test_x, test_y = _inputs(f"{where} (test)", test[0]), _labels(f"{where} (test)", test[1])
        _check_count(f"{where} (test)", test_x, test_y)
        if int(test_y.max()) >= classes:
            raise CorruptData(
                f"{where} has the label {int(test_y.max())} in its test part and 0..{classes - 1} in its training "
                "part. Every class of the test part must be in the training part."
            )
        if test_x.shape[1:] != train_x.shape[1:]:
            raise CorruptData(
                f"{where} has test examples of shape {tuple(test_x.shape[1:])} and training examples of shape "
                f"{tuple(train_x.shape[1:])}. Bring both to one shape."
            )
    return Dataset(name, train_x, train_y, test_x, test_y, classes, DEFAULT_MARGIN)


def scaled(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Turn uint8 of any shape into float32 in [0, 1], the same shape.

    Example:
        >>> scaled(np.array([0, 51, 255], np.uint8))
        tensor([0.0000, 0.2000, 1.0000])
    """
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(torch.float32).div_(255)


def as_array(where: str, value: object) -> Array:
    """Turn a tensor, an array or a list into an array.

    Raises:
        CorruptData: it is none of these, or ragged.
    """
    try:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise CorruptData(
            f"{where} cannot be made an array ({error}). Rows of one length and a type that numpy knows are expected."
        ) from error
    if array.dtype.kind not in "biuf":
        raise CorruptData(f"{where} holds values of type {array.dtype}. An array or tensor of numbers is expected.")
    return array


def _inputs(where: str, x: Array) -> Tensor:
    if x.ndim < 2 or x.size == 0:
        raise CorruptData(f"{where} has inputs of shape {x.shape}. [N, *input_shape] is expected, with nothing empty.")
    if x.dtype == np.uint8:
        if x.ndim == 3:
            x = x[:, None]
        elif x.ndim == 4 and x.shape[3] in _CHANNELS and x.shape[1] not in _CHANNELS:
            x = np.moveaxis(x, 3, 1)
        return scaled(x)
    if x.dtype.kind not in "biuf":
        raise CorruptData(f"{where} has inputs of type {x.dtype}. Numbers are expected.")
    with np.errstate(over="ignore"):  # A float64 beyond float32 becomes inf, which the next check reports.
        converted = np.array(x, np.float32, order="C")
    bad = ~np.isfinite(converted)
    if bad.any():
        first = int(np.argwhere(bad)[0][0])
        raise CorruptData(
            f"{where} has {int(bad.sum()):,} inputs that are NaN, infinite or beyond float32, the first in example "
            f"{first:,}. Training needs finite numbers; remove or replace them."
        )
    return torch.from_numpy(converted)


def _labels(where: str, y: Array) -> Tensor:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise CorruptData(
            f"{where} has labels of shape {y.shape} and type {y.dtype}. Integers of shape [N] are expected: "
            "y.argmax(axis=1) turns one-hot rows into them, y.astype(int) whole numbers."
        )
    if y.size and (int(y.min()) < 0 or int(y.max()) >= len(y) + 2**16):
        raise CorruptData(
            f"{where} has labels from {int(y.min())} to {int(y.max())}. 0..classes-1 is expected; "
            "np.unique(y, return_inverse=True)[1] numbers them so."
        )
    return torch.from_numpy(np.array(y, np.int64))


def _check_count(where: str, x: Tensor, y: Tensor) -> None:
    if len(x) != len(y):
        raise CorruptData(f"{where} has {len(x):,} inputs and {len(y):,} labels. One label for each input is expected.")


def _classes(where: str, y: Tensor) -> int:
    counts = torch.bincount(y)
    absent = (counts == 0).nonzero().reshape(-1).tolist()
    if absent:
        raise CorruptData(
            f"{where} has labels up to {len(counts) - 1} but no example of class {absent[0]}"
            f"{f' and {len(absent) - 1} others' if len(absent) > 1 else ''}. Every class 0..classes-1 must be in the "
            "training part; np.unique(y, return_inverse=True)[1] numbers the labels so."
        )
    if len(counts) < 2:
        raise CorruptData(f"{where} has examples of one class only. Telling apart takes at least two.")
    return len(counts)
