"""From a name, a path or a dotted path to a data set."""

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from tombola.data import cifar, places
from tombola.data.arrays import as_array, from_arrays, scaled
from tombola.data.dataset import Dataset
from tombola.data.digits import read_digits
from tombola.data.folders import read_image_folder
from tombola.data.idx import read_idx
from tombola.data.npz import read_npz
from tombola.data.published import IDX_FILES, PUBLISHED, Published, named
from tombola.errors import CorruptData, DataMissing, InvalidValue, TombolaError, UnknownName

_DOTTED: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def load(name_or_path: str, *, search: Sequence[Path] | None = None) -> Dataset:
    """Read a data set.

    Args:
        name_or_path: ``digits``, ``mnist``, ``fashion-mnist`` or ``cifar-10``; the path of an ``.npz`` file
            (:func:`tombola.data.npz.read_npz`) or of an image folder
            (:func:`tombola.data.folders.read_image_folder`); or ``package.module:function`` for a function that
            takes nothing and returns a :class:`Dataset`, ``(x, y)`` or ``(train_x, train_y, test_x, test_y)``, arrays
            or tensors (:func:`tombola.data.arrays.from_arrays` says what they may hold).
        search: folders to look in for the published data sets, instead of :func:`tombola.data.places.search_path`.

    Returns:
        float32 inputs and int64 labels. digits ``[N, 1, 8, 8]`` and MNIST, Fashion-MNIST ``[N, 1, 28, 28]`` are
        scaled to [0, 1]; CIFAR-10 ``[N, 3, 32, 32]`` is scaled and then standardised per channel
        (``tombola.data.cifar.MEAN`` and ``STD``). A published data set's structure and size are checked, its checksum
        is not: recoded copies are in use.

    Raises:
        DataMissing: not on this machine; the message says how to get it.
        UnknownName: neither a known name nor a path.
        CorruptData: files or arrays that are not what they should be.
        InvalidValue: a file of another kind, or a dotted path that leads to no data set.

    Example:
        >>> digits = load("digits")
        >>> digits.input_shape, digits.classes, digits.margin
        ((1, 8, 8), 10, 0.01)
    """
    path = Path(os.path.expanduser(name_or_path))  # Unlike Path.expanduser, leaves an unknown ~user as it is.
    if name_or_path in PUBLISHED or not name_or_path:
        return _published(name_or_path, search)
    if os.path.isdir(path):  # Unlike Path.is_dir, says no to a name that is too long.
        return read_image_folder(path)
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    if os.path.isfile(path):
        raise InvalidValue(
            f"{path} is a file of a kind that tombola does not read. Give an .npz file, an image folder, "
            "'package.module:function' or one of " + ", ".join(PUBLISHED) + "."
        )
    if _DOTTED.fullmatch(name_or_path):
        return _called(name_or_path)
    if len(path.parts) > 1:
        raise DataMissing(f"there is nothing at {path}. An .npz file or an image folder is expected; check the path.")
    return _published(name_or_path, search)


def _published(name: str, search: Sequence[Path] | None) -> Dataset:
    published = named(name, "The path of an .npz file or image folder, or 'package.module:function', works too.")
    if not published.layouts:
        return read_digits()
    folder = places.located(published, places.search_path() if search is None else search)
    if name == "cifar-10":
        raw_x, raw_y, raw_test_x, raw_test_y = cifar.read_folder(folder)
        _check_counts(published, folder, len(raw_x), len(raw_test_x))
        x, test_x = cifar.standardised(raw_x), cifar.standardised(raw_test_x)
        y, test_y = torch.from_numpy(raw_y), torch.from_numpy(raw_test_y)
    else:
        x, y = _idx_part(folder, *IDX_FILES[:2])
        test_x, test_y = _idx_part(folder, *IDX_FILES[2:])
        _check_counts(published, folder, len(x), len(test_x))
    return Dataset(published.name, x, y, test_x, test_y, classes=10, margin=published.margin)


def _idx_part(folder: Path, image_file: str, label_file: str) -> tuple[torch.Tensor, torch.Tensor]:
    image_path = places.present(folder, image_file, zipped=True) or folder / image_file
    label_path = places.present(folder, label_file, zipped=True) or folder / label_file
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise CorruptData(
            f"{image_path} holds {images.dtype.name} of shape {images.shape}. uint8 of shape (N, 28, 28) is expected."
        )
    if labels.dtype != np.uint8 or labels.ndim != 1 or labels.max(initial=0) > 9:
        raise CorruptData(
            f"{label_path} holds {labels.dtype.name} of shape {labels.shape}, the largest {labels.max(initial=0)}. "
            "uint8 of shape (N,) with values 0..9 is expected."
        )
    if len(images) != len(labels):
        raise CorruptData(f"{image_path} has {len(images):,} images, {label_path} has {len(labels):,} labels.")
    return scaled(images[:, None]), torch.from_numpy(labels.astype(np.int64))


def _check_counts(published: Published, folder: Path, train: int, test: int) -> None:
    if (train, test) != (published.train, published.test):
        raise CorruptData(
            f"{folder} has {train:,} training and {test:,} test examples; {published.name} has {published.train:,} and "
            f"{published.test:,}. Get it again, or give a part of it another name as an .npz file."
        )


def _called(dotted: str) -> Dataset:
    module_name, _, function_name = dotted.partition(":")
    with _working_folder_importable():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise InvalidValue(
                    f"module {module_name!r} imports {error.name!r}, which is not installed. Install it."
                ) from error
            raise UnknownName(
                f"no module is called {error.name!r}, asked for by {dotted!r}. A module that Python can import from "
                "here is expected; check the spelling, or run in the folder that holds it."
            ) from error
        if not callable(function := getattr(module, function_name, None)):
            callables = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
            raise UnknownName.among(f"function of {module_name}", function_name, callables)
        try:
            result = function()
        except TombolaError:
            raise
        except Exception as error:
            raise InvalidValue(
                f"{dotted} failed with {type(error).__name__}: {error}. It is called without arguments and gives a "
                "Dataset, (x, y) or (train_x, train_y, test_x, test_y)."
            ) from error
    if isinstance(result, Dataset):
        parts = (result.train_x, result.test_x)
        if not all(bool(part.isfinite().all()) for part in parts if part is not None):
            raise CorruptData(f"{dotted} returned NaN or infinity among its inputs. Finite numbers are expected.")
        return result
    if not isinstance(result, tuple | list) or len(result) not in (2, 4):
        raise InvalidValue(
            f"{dotted} returned {_described(result)}. A tombola.data.Dataset, (x, y) or "
            "(train_x, train_y, test_x, test_y) is expected."
        )
    arrays = [as_array(f"{dotted} (value {number})", value) for number, value in enumerate(result, 1)]
    return from_arrays(dotted, dotted, (arrays[0], arrays[1]), (arrays[2], arrays[3]) if len(arrays) == 4 else None)


def _described(result: object) -> str:
    kind = type(result).__name__
    return f"a {kind} of {len(result)}" if isinstance(result, tuple | list) else f"a value of type {kind}"


@contextlib.contextmanager
def _working_folder_importable() -> Iterator[None]:
    """Let an installed command import from the folder it runs in, as ``python -m`` does."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added:
            with contextlib.suppress(ValueError):
                sys.path.remove(here)
