"""Data sets of image files, one folder for each class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tombola.data.arrays import Array, from_arrays
from tombola.data.dataset import Dataset
from tombola.errors import CorruptData, DataError

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_GRAY: Final = ("1", "L")
_COLOUR: Final = ("RGB", "P", "RGBA", "CMYK", "YCbCr")


def read_image_folder(folder: Path) -> Dataset:
    """Read ``folder/train/CLASS/*`` with, if it is there, ``folder/test/CLASS/*``; or else ``folder/CLASS/*``.

    Classes are numbered in the order of their names, images read in the order of theirs. If every image is gray an
    example is float32 ``[1, H, W]``, otherwise ``[3, H, W]``, in [0, 1]. Files of other suffixes than ``SUFFIXES``,
    hidden folders and, beside ``train``, folders other than ``test`` are not read.

    Raises:
        DataError: Pillow is not installed.
        CorruptData: no classes, a class without images, images of different sizes, an unreadable image, or a test
            class that training does not have.
    """
    _need_pillow(folder)
    train_root = folder / "train" if (folder / "train").is_dir() else folder
    classes = [entry.name for entry in _folders(train_root)]
    if len(classes) < 2:
        raise CorruptData(
            f"{train_root} has {len(classes)} folders. At least two are expected, one for each class, with images in "
            f"them: {train_root / 'CLASS' / 'image.png'}."
        )
    train = _files(train_root, classes)
    test: list[tuple[Path, int]] = []
    if train_root != folder and (folder / "test").is_dir():
        unknown = [entry.name for entry in _folders(folder / "test") if entry.name not in classes]
        if unknown:
            raise CorruptData(
                f"{folder / 'test' / unknown[0]} is a class that {train_root} does not have. "
                f"Expected: {', '.join(classes)}."
            )
        test = _files(folder / "test", [entry.name for entry in _folders(folder / "test")], classes)
        if not test:
            raise CorruptData(
                f"{folder / 'test'} has no folder of a class. Fill it, or remove it to have splits drawn."
            )
    pixels = _pixels([path for path, _ in (*train, *test)])
    labels = np.array([label for _, label in (*train, *test)], np.int64)
    cut = len(train)
    parts: tuple[Array, Array] | None = (pixels[cut:], labels[cut:]) if test else None
    return from_arrays(folder.resolve().name, str(folder), (pixels[:cut], labels[:cut]), parts)


def _need_pillow(folder: Path) -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"reading the image folder {folder} takes Pillow, which is not installed. Install it with "
            "`pip install 'tombola[images]'`, or give an .npz file."
        ) from error


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(root: Path, present: Sequence[str], classes: Sequence[str] | None = None) -> list[tuple[Path, int]]:
    """List the images of each class that is present with the class's number among ``classes``."""
    numbers = {name: number for number, name in enumerate(classes or present)}
    found: list[tuple[Path, int]] = []
    for name in present:
        images = sorted(path for path in (root / name).iterdir() if path.suffix.lower() in SUFFIXES)
        if not images:
            raise CorruptData(f"{root / name} has no images. Expected are files ending in {', '.join(SUFFIXES)}.")
        found += [(path, numbers[name]) for path in images]
    return found


def _pixels(paths: Sequence[Path]) -> npt.NDArray[np.uint8]:
    """Read images of one size into uint8 ``[N, 1 or 3, H, W]``."""
    images = [_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape[:2] != images[0].shape[:2]:
            raise CorruptData(
                f"{paths[0]} has {_size(images[0])} pixels, {path} has {_size(image)}. All images of a data set "
                "have one size; resize them first."
            )
    depth = max(image.shape[2] for image in images)
    pixels = np.empty((len(images), depth, *images[0].shape[:2]), np.uint8)
    for row, image in zip(pixels, images, strict=True):
        row[:] = image.transpose(2, 0, 1)  # A gray image among coloured ones is repeated for each channel.
    return pixels


def _image(path: Path) -> npt.NDArray[np.uint8]:
    """Read one image into uint8 ``[H, W, 1 or 3]``."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode not in (*_GRAY, *_COLOUR):
                raise CorruptData(
                    f"{path} has pixels of kind {mode!r}. Gray or RGB with 8 bits is expected; convert it first, or "
                    "give an .npz file."
                )
            array = np.asarray(image.convert("L" if mode in _GRAY else "RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise CorruptData(f"{path} is not a readable image ({error}). Replace or remove it.") from error
    return array[:, :, None] if array.ndim == 2 else array


def _size(image: npt.NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
