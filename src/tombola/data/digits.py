"""The handwritten digits that come with tombola.

The test part of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, UCI, DOI 10.24432/C50P49, CC BY
4.0), 1,797 images of 13 writers, as packaged by scikit-learn; see ``digits.LICENSE.txt``.
"""

import gzip
import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import torch

from tombola.data.dataset import Dataset
from tombola.data.published import DIGITS
from tombola.errors import CorruptData, DataMissing

PATH: Final = Path(__file__).parent / "digits.csv.gz"


def read_digits(path: Path = PATH) -> Dataset:
    """Read the digits, after checking the file's checksum.

    Returns:
        float32 ``[1797, 1, 8, 8]`` in [0, 1] (the published 0..16, divided by 16), without a test split.

    Raises:
        DataMissing: the file is not there.
        CorruptData: the file is not the one that tombola was released with.

    Example:
        >>> read_digits().train_x.shape
        torch.Size([1797, 1, 8, 8])
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataMissing(
            f"cannot read {path}: {error.strerror or error}. The file comes with tombola; install tombola again."
        ) from error
    found, expected = hashlib.sha256(content).hexdigest(), DIGITS.sha256["digits.csv.gz"]
    if found != expected:
        raise CorruptData(
            f"{path} has the SHA-256 {found}, and {expected} is expected. The file was changed since tombola was "
            "packaged; install tombola again."
        )
    text = gzip.decompress(content).decode("ascii")
    table = np.array([line.split(",") for line in text.split()], np.int64)
    x = torch.from_numpy(table[:, :64].reshape(-1, 1, 8, 8)).to(torch.float32).div_(16)
    y = torch.from_numpy(table[:, 64].copy())
    return Dataset(DIGITS.name, x, y, None, None, classes=10, margin=DIGITS.margin)
