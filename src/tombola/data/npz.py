"""Data sets in one ``.npz`` file of numpy arrays."""

import zipfile
import zlib
from pathlib import Path
from typing import Final

import numpy as np

from tombola.data.arrays import Array, from_arrays
from tombola.data.dataset import Dataset
from tombola.data.places import unreadable
from tombola.errors import CorruptData

KEYS: Final = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_x", "train_y", "test_x", "test_y"),
    ("x", "y", None, None),
    ("data", "target", None, None),
)
"""Names of training inputs and labels, test inputs and labels; the first line whose first two are there counts."""


def read_npz(path: Path) -> Dataset:
    """Read a data set from an ``.npz`` file; capital letters in the arrays' names do not matter.

    The arrays are named as in ``KEYS``; without test arrays, splits are drawn per replicate. What the arrays may hold
    is said at :func:`tombola.data.arrays.from_arrays`.

    Raises:
        DataMissing: the file cannot be read.
        CorruptData: not an ``.npz`` file, damaged, without the expected arrays, with pickled objects (which are never
            loaded), or with values that are not a data set.
    """
    arrays = _arrays(path)
    for x, y, other_x, other_y in KEYS:
        if x not in arrays or y not in arrays:
            continue
        tests = [name for name in (other_x, other_y) if name is not None and name in arrays]
        if len(tests) == 1:
            raise CorruptData(
                f"{path} has the array {tests[0]!r} and lacks its partner. Give both {other_x!r} and {other_y!r}, or "
                "neither: then splits are drawn from the training part."
            )
        test = (arrays[tests[0]], arrays[tests[1]]) if tests else None
        return from_arrays(path.stem, str(path), (arrays[x], arrays[y]), test)
    accepted = ", or ".join(f"{x!r} and {y!r}" for x, y, _, _ in KEYS)
    raise CorruptData(
        f"{path} holds the arrays {', '.join(map(repr, arrays)) or '(none)'}. Expected are {accepted}; save them with "
        "np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)."
    )


def _arrays(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise CorruptData(
                    f"{path} is not an .npz file. Write one with np.savez(path, x_train=..., y_train=...)."
                )
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {key.lower(): archive[key] for key in archive.files}
    except (ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptData(
            f"{path} cannot be read as an .npz file ({error}). Plain arrays of numbers are expected: objects are never "
            "unpickled. Write it again with np.savez."
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
