"""A data set in memory, and its fingerprint."""

import hashlib
import sys
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tombola.errors import InvalidValue, ShapeMismatch


@final
@dataclass(frozen=True, eq=False)
class Dataset:
    """Everything there is of a data set, as tensors on the CPU.

    Two data sets are the same when their fingerprints are; ``==`` compares identity.

    Attributes:
        name: for reports; it does not enter the fingerprint.
        train_x: float32 ``[N, *input_shape]``.
        train_y: int64 ``[N]``, ``0 .. classes-1``.
        test_x: float32 ``[M, *input_shape]``, or ``None``: the publisher has no test split, so splits are drawn per
            replicate.
        test_y: int64 ``[M]``, or ``None`` with ``test_x``.
        classes: how many.
        margin: default non-inferiority margin, a fraction of accuracy.

    Raises:
        InvalidValue: a dtype other than these, a test part without its other half, fewer than two classes, or a label
            outside ``0 .. classes-1``.
        ShapeMismatch: images and labels differ in number, or training and test images in shape.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor | None
    test_y: Tensor | None
    classes: int
    margin: float

    def __post_init__(self) -> None:
        if (self.test_x is None) != (self.test_y is None):
            raise InvalidValue(
                f"data set {self.name!r} has one of test_x and test_y. Give both, or None for both: then splits are "
                "drawn from the training part."
            )
        if self.classes < 2:
            raise InvalidValue(f"data set {self.name!r} has classes={self.classes}. Telling apart takes at least 2.")
        _check_part(self.name, "train", self.train_x, self.train_y, self.classes)
        if self.test_x is not None and self.test_y is not None:
            _check_part(self.name, "test", self.test_x, self.test_y, self.classes)
            if self.test_x.shape[1:] != self.train_x.shape[1:]:
                raise ShapeMismatch(
                    f"data set {self.name!r}: a test example has shape {tuple(self.test_x.shape[1:])}, a training "
                    f"example {tuple(self.train_x.shape[1:])}. Bring both to one shape."
                )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example, such as ``(1, 28, 28)``."""
        return tuple(self.train_x.shape[1:])

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over the parts' names, shapes, dtypes and bytes (little-endian).

        Every read computes it anew from all values (about a second for CIFAR-10), since tensors can be changed.
        """
        digest = hashlib.sha256()
        for part in ("train_x", "train_y", "test_x", "test_y"):
            tensor: Tensor | None = getattr(self, part)
            if tensor is None:
                digest.update(f"{part} absent\n".encode())
                continue
            array = tensor.detach().cpu().contiguous().numpy()
            if sys.byteorder == "big":
                array = array.byteswap()
            digest.update(f"{part} {array.dtype.name} {array.shape}\n".encode())
            digest.update(array.reshape(-1).data)
        return digest.hexdigest()


def _check_part(name: str, part: str, x: Tensor, y: Tensor, classes: int) -> None:
    if x.dtype != torch.float32 or y.dtype != torch.int64:
        raise InvalidValue(
            f"data set {name!r}: {part}_x is {x.dtype} and {part}_y is {y.dtype}; torch.float32 and torch.int64 are "
            "expected. Convert with .float() and .long()."
        )
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
        raise ShapeMismatch(
            f"data set {name!r}: {part}_x has shape {tuple(x.shape)}, {part}_y has shape {tuple(y.shape)}. "
            "[N, *input_shape] and [N] are expected, one label for each example."
        )
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise InvalidValue(
            f"data set {name!r}: the labels of {part}_y run from {int(y.min())} to {int(y.max())}; 0 to {classes - 1} "
            f"is expected for {classes} classes."
        )
