"""CIFAR-10's two forms, and pickles that want more than they may."""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from tombola.data.cifar import MEAN, RECORD, STD, read_binary, read_folder, read_python, standardised
from tombola.data.pickles import read_pickle
from tombola.data.published import CIFAR_BINARY_FILES, CIFAR_PYTHON_FILES
from tombola.errors import CorruptData, DataMissing


def batch(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (n, 3, 32, 32), np.uint8), draw.integers(0, 10, n)


def binary(images: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels.astype(np.uint8)[:, None], images.reshape(len(images), -1)], axis=1).tobytes()


def pickled(images: np.ndarray, labels: np.ndarray, protocol: int = 2, as_text: bool = False) -> bytes:
    def key(text: str) -> str | bytes:
        return text if as_text else text.encode()

    content = {key("data"): images.reshape(len(images), -1), key("labels"): labels.tolist(), key("batch_label"): b"1"}
    return pickle.dumps(content, protocol)


def python2_pickle(images: np.ndarray, labels: np.ndarray) -> bytes:
    """The opcodes that cPickle of Python 2 wrote for the published files: texts as bytes, the old module name."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    data = images.tobytes()
    dtype_state = b"(K\x03" + text(b"|") + b"NNN" + number(-1) + number(-1) + b"K\x00t"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R" + dtype_state + b"b"
    shape = number(len(images)) + number(RECORD - 1) + b"\x86"
    state = b"(K\x01" + shape + dtype + b"\x89" + b"T" + struct.pack("<i", len(data)) + data + b"tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\x00\x85" + text(b"b") + b"\x87R" + state
    )
    listed = b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


def test_binary_reads_back(tmp_path: Path) -> None:
    images, labels = batch(7)
    (tmp_path / "a.bin").write_bytes(binary(images, labels))
    x, y = read_binary(tmp_path / "a.bin")
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, labels)
    assert y.dtype == np.int64


@pytest.mark.parametrize("length", [0, 1, RECORD - 1, RECORD + 1, 2 * RECORD - 1])
def test_binary_of_a_wrong_size(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(length))
    with pytest.raises(CorruptData, match=rf"a\.bin has {length:,} bytes.*multiple of 3,073"):
        read_binary(tmp_path / "a.bin")


def test_binary_with_a_label_that_does_not_exist(tmp_path: Path) -> None:
    images, labels = batch(5)
    labels[3] = 10
    (tmp_path / "a.bin").write_bytes(binary(images, labels))
    with pytest.raises(CorruptData, match=r"label 10 at example 3; 0\.\.9 is expected"):
        read_binary(tmp_path / "a.bin")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("as_text", [False, True])
def test_python_version_reads_back_from_every_protocol(tmp_path: Path, protocol: int, as_text: bool) -> None:
    images, labels = batch(4)
    (tmp_path / "data_batch_1").write_bytes(pickled(images, labels, protocol, as_text))
    x, y = read_python(tmp_path / "data_batch_1")
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, labels)


def test_python_version_as_python_2_wrote_it(tmp_path: Path) -> None:
    images, labels = batch(4)
    content = python2_pickle(images, labels)
    np.testing.assert_array_equal(  # The hand-written opcodes are what numpy itself understands.
        pickle.loads(content.replace(b"numpy.core.", b"numpy._core."), encoding="bytes")[b"data"],
        images.reshape(4, -1),
    )
    (tmp_path / "data_batch_1").write_bytes(content)
    x, y = read_python(tmp_path / "data_batch_1")
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, labels)


class Payload:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "data_batch_1"
    for payload in (
        Payload(os.system, f"touch {mark}"),
        Payload(eval, f"open({str(mark)!r}, 'w')"),
        Payload(getattr, "text", "upper"),
        Payload(np.fromfile, "/dev/zero"),
    ):
        path.write_bytes(pickle.dumps({b"data": payload, b"labels": [1]}, protocol))
        with pytest.raises(CorruptData, match="nothing was run"):
            read_python(path)
        assert not mark.exists()


def test_stand_ins_cannot_be_altered_for_the_next_file() -> None:
    dtype = b"\x80\x02cnumpy\ndtype\n"
    # BUILD with (None, {"mine": 1}) sets an attribute on the function that stands for numpy.dtype.
    altered = read_pickle(Path("p"), dtype + b"N}X\x04\0\0\0mineK\x01s\x86b.")
    assert altered.mine == 1
    assert not hasattr(read_pickle(Path("p"), dtype + b"."), "mine")
    assert not hasattr(np.dtype, "mine")


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 3072), np.float64), np.zeros((2, 3072), object), np.zeros((2, 3072), np.int8)],
    ids=["float", "object", "signed"],
)
def test_arrays_of_another_type_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": array, b"labels": [0, 1]}, 2))
    with pytest.raises(CorruptData, match=r"uint8 \('u1'\) is expected"):
        read_python(path)


def test_truncated_pickles_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    content = pickled(*batch(1))
    for length in (*range(200), *range(len(content) - 100, len(content))):
        path.write_bytes(content[:length])
        with pytest.raises(CorruptData, match="data_batch_1"):
            read_python(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([1, 2], "no uint8 array 'data'"),
        ({b"data": np.zeros((2, 100), np.uint8), b"labels": [1, 2]}, r"shape \[N, 3072\]"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "list 'labels' of 2 integers"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [1, 2]}, "list 'labels' of 2 integers"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2.0]}, "list 'labels' of 2 integers"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, -1]}, r"label outside 0\.\.9"),
    ],
)
def test_pickles_that_are_no_batch(tmp_path: Path, content: object, expected: str) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(content, 2))
    with pytest.raises(CorruptData, match=expected):
        read_python(path)


def test_a_pickle_with_an_outside_reference(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(b"\x80\x02}K\x01Q.")
    with pytest.raises(CorruptData, match="outside the file"):
        read_python(path)


def test_both_forms_of_a_folder_agree(tmp_path: Path) -> None:
    for number, (first, second) in enumerate(zip(CIFAR_BINARY_FILES, CIFAR_PYTHON_FILES, strict=True)):
        images, labels = batch(3, seed=number)
        for folder, name, content in (("bin", first, binary(images, labels)), ("py", second, pickled(images, labels))):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_bytes(content)
    for a, b in zip(read_folder(tmp_path / "bin"), read_folder(tmp_path / "py"), strict=True):
        np.testing.assert_array_equal(a, b)
    train_x, _, test_x, _ = read_folder(tmp_path / "bin")
    np.testing.assert_array_equal(train_x[12:], batch(3, seed=4)[0])
    np.testing.assert_array_equal(test_x, batch(3, seed=5)[0])


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="data_batch_1"):
        read_folder(tmp_path)


def test_standardised_is_the_published_formula() -> None:
    images, _ = batch(3)
    x = standardised(images)
    expected = (images[1, 2, 5, 7] / 255 - MEAN[2]) / STD[2]
    assert x.dtype == torch.float32
    assert x.shape == (3, 3, 32, 32)
    assert x[1, 2, 5, 7].item() == pytest.approx(expected, abs=1e-6)
