"""CIFAR-10 in the two forms that its publisher offers: binary, and pickled for Python.

Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images; https://www.cs.toronto.edu/~kriz/cifar.html
"""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tombola.data.pickles import read_pickle
from tombola.data.places import unreadable
from tombola.data.published import CIFAR_BINARY_FILES, CIFAR_PYTHON_FILES
from tombola.errors import CorruptData

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

RECORD: Final = 3_073
"""Bytes of one example in the binary version: a label, then 1,024 red, 1,024 green and 1,024 blue values."""

CLASSES: Final = 10
MEAN: Final = (0.4914, 0.4822, 0.4465)
STD: Final = (0.2470, 0.2435, 0.2616)
"""Per channel, of the training set's pixels in [0, 1]: the values in common use."""


def read_folder(folder: Path) -> tuple[Images, Labels, Images, Labels]:
    """Read the training batches and the test batch, in whichever form ``folder`` holds them.

    Returns:
        Training images uint8 ``[N, 3, 32, 32]`` and labels int64 ``[N]``, then the same for the test batch.

    Raises:
        DataMissing: a file cannot be read.
        CorruptData: as :func:`read_binary` and :func:`read_python`.
    """
    if (folder / CIFAR_BINARY_FILES[0]).is_file():
        parts = [read_binary(folder / name) for name in CIFAR_BINARY_FILES]
    else:
        parts = [read_python(folder / name) for name in CIFAR_PYTHON_FILES]
    *train, (test_x, test_y) = parts
    return np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train]), test_x, test_y


def read_binary(path: Path) -> tuple[Images, Labels]:
    """Read one file of the binary version.

    Returns:
        Images uint8 ``[N, 3, 32, 32]``, labels int64 ``[N]``.

    Raises:
        DataMissing: the file cannot be read.
        CorruptData: its size is not a multiple of 3,073 bytes, or a label is not 0..9.
    """
    content = np.frombuffer(bytearray(_content(path)), np.uint8)
    if not len(content) or len(content) % RECORD:
        raise CorruptData(
            f"{path} has {len(content):,} bytes. A file of CIFAR-10's binary version has a multiple of {RECORD:,}: one "
            "label and 3,072 pixels an example. Get it again."
        )
    records = content.reshape(-1, RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), _labels(path, records[:, 0].astype(np.int64))


def read_python(path: Path) -> tuple[Images, Labels]:
    """Read one file of the python version; a restricted reader runs nothing that the pickle asks for.

    Returns:
        Images uint8 ``[N, 3, 32, 32]``, labels int64 ``[N]``.

    Raises:
        DataMissing: the file cannot be read.
        CorruptData: a hostile or damaged pickle, or one that is not a batch of CIFAR-10.
    """
    batch = read_pickle(path, _content(path))
    data = _entry(batch, "data")
    labels = _entry(batch, "labels")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != RECORD - 1 or not len(data):
        raise CorruptData(
            f"{path} has no uint8 array 'data' of shape [N, 3072]. A batch of CIFAR-10 has; get it again."
        )
    if not isinstance(labels, list) or len(labels) != len(data) or any(type(label) is not int for label in labels):
        raise CorruptData(
            f"{path} has no list 'labels' of {len(data):,} integers. A batch of CIFAR-10 has; get it again."
        )
    if not all(0 <= label < CLASSES for label in labels):
        raise CorruptData(f"{path} has a label outside 0..{CLASSES - 1}. CIFAR-10 has {CLASSES} classes; get it again.")
    return np.ascontiguousarray(data).reshape(-1, 3, 32, 32), np.array(labels, np.int64)


def standardised(images: Images) -> Tensor:
    """Scale pixels to [0, 1] and standardise each channel with ``MEAN`` and ``STD``.

    Args:
        images: uint8 ``[N, 3, 32, 32]``.

    Returns:
        float32 ``[N, 3, 32, 32]``.
    """
    x = torch.from_numpy(np.ascontiguousarray(images)).to(torch.float32).div_(255)
    # In place: the training set is 614 MB as float32.
    return x.sub_(torch.tensor(MEAN).reshape(1, 3, 1, 1)).div_(torch.tensor(STD).reshape(1, 3, 1, 1))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def _labels(path: Path, labels: Labels) -> Labels:
    if int(labels.max()) >= CLASSES:
        where = int(np.argmax(labels >= CLASSES))
        raise CorruptData(
            f"{path} has the label {labels[where]} at example {where:,}; 0..{CLASSES - 1} is expected. "
            "Is it the binary version of CIFAR-10? CIFAR-100 has two label bytes. Get it again."
        )
    return labels


def _entry(batch: object, key: str) -> object:
    # Python 2 wrote the keys, so they come back as bytes; a copy written by Python 3 has texts.
    return batch.get(key.encode(), batch.get(key)) if isinstance(batch, dict) else None
