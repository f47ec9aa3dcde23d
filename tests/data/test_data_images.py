"""Image folders."""

import builtins
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tombola.data import load
from tombola.data.folders import SUFFIXES
from tombola.errors import CorruptData, DataError

DRAW = np.random.default_rng(0)


def write(path: Path, *, gray: bool = False, size: tuple[int, int] = (5, 7)) -> np.ndarray:
    """Write an image of ``size`` (height, width) and give its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = DRAW.integers(0, 256, size if gray else (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_classes_in_order_of_their_names(tmp_path: Path) -> None:
    pixels = {(c, n): write(tmp_path / c / f"{n}.png") for c in ("dog", "ant", "cat") for n in (1, 0)}
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    data = load(str(tmp_path))
    assert (data.name, data.classes, data.input_shape) == (tmp_path.name, 3, (3, 5, 7))
    assert data.train_y.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test_x is None
    for row, key in enumerate((c, n) for c in ("ant", "cat", "dog") for n in (0, 1)):
        expected = pixels[key].transpose(2, 0, 1) / np.float32(255)
        np.testing.assert_array_equal(data.train_x[row].numpy(), expected)


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s not in (".jpg", ".jpeg", ".webp", ".ppm")])
def test_gray_images_have_one_channel(tmp_path: Path, suffix: str) -> None:
    first = write(tmp_path / "train" / "a" / f"0{suffix}", gray=True)
    write(tmp_path / "train" / "b" / f"0{suffix}", gray=True)
    second = write(tmp_path / "test" / "b" / f"0{suffix}", gray=True)
    data = load(str(tmp_path))
    assert data.input_shape == (1, 5, 7)
    assert data.test_x is not None
    assert data.test_y is not None
    np.testing.assert_array_equal(data.train_x[0, 0].numpy(), first / np.float32(255))
    np.testing.assert_array_equal(data.test_x[0, 0].numpy(), second / np.float32(255))
    assert data.test_y.tolist() == [1]


def test_train_without_test_and_other_folders_beside_it(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "val/a", "val/b"):
        write(tmp_path / name / "0.png")
    data = load(str(tmp_path))
    assert data.test_x is None
    assert len(data.train_y) == 2


def test_a_gray_image_among_coloured_ones_is_repeated(tmp_path: Path) -> None:
    gray = write(tmp_path / "a" / "0.png", gray=True)
    write(tmp_path / "b" / "0.png")
    data = load(str(tmp_path))
    for channel in range(3):
        np.testing.assert_array_equal(data.train_x[0, channel].numpy(), gray / np.float32(255))


def test_images_of_two_sizes_are_both_named(tmp_path: Path) -> None:
    write(tmp_path / "a" / "0.png")
    write(tmp_path / "b" / "0.png")
    write(tmp_path / "b" / "1.png", size=(7, 5))
    with pytest.raises(CorruptData, match=r"a/0\.png has 7x5 pixels, .*b/1\.png has 5x7"):
        load(str(tmp_path))


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(CorruptData, match=r"has 0 folders\. At least two are expected"):
        load(str(tmp_path))
    write(tmp_path / "train" / "a" / "0.png")
    with pytest.raises(CorruptData, match="train has 1 folders"):
        load(str(tmp_path))
    (tmp_path / "train" / "b").mkdir()
    with pytest.raises(CorruptData, match="b has no images"):
        load(str(tmp_path))
    write(tmp_path / "train" / "b" / "0.png")
    (tmp_path / "test").mkdir()
    with pytest.raises(CorruptData, match="test has no folder of a class"):
        load(str(tmp_path))
    write(tmp_path / "test" / "z" / "0.png")
    with pytest.raises(CorruptData, match=r"test/z is a class that .* Expected: a, b"):
        load(str(tmp_path))


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path / "a" / "0.png")
    broken = tmp_path / "b" / "0.png"
    write(broken)
    whole = broken.read_bytes()
    for content in (b"", b"text", whole[:30], whole[: len(whole) // 2]):
        broken.write_bytes(content)
        with pytest.raises(CorruptData, match=r"b/0\.png is not a readable image"):
            load(str(tmp_path))
    Image.fromarray(np.zeros((5, 7), np.uint16)).save(broken)
    with pytest.raises(CorruptData, match="pixels of kind 'I;16'"):
        load(str(tmp_path))


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: object, **named: object) -> object:
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DataError, match=r"pip install 'tombola\[images\]'"):
        load(str(tmp_path))
