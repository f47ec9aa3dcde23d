"""The IDX reader: round trips, and no damaged file is ever loaded."""

import gzip
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tombola.data.idx import read_idx
from tombola.errors import CorruptData, DataMissing

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    """Write the format as the MNIST page describes it."""
    head = struct.pack(f">HBB{array.ndim}I", 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


EXAMPLE = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4) - 7


@settings(deadline=None)
@given(
    st.sampled_from(sorted(CODES)).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
    ),
    st.booleans(),
)
def test_every_type_of_the_format_reads_back(array: np.ndarray, zipped: bool) -> None:
    content = idx_bytes(array)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(gzip.compress(content) if zipped else content)
        back = read_idx(path)
    assert back.dtype == array.dtype
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("zipped", [False, True])
def test_truncated_at_any_byte_is_never_loaded(tmp_path: Path, zipped: bool) -> None:
    content = gzip.compress(idx_bytes(EXAMPLE)) if zipped else idx_bytes(EXAMPLE)
    path = tmp_path / "train"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CorruptData, match="train"):
            read_idx(path)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_idx(path), EXAMPLE)


@settings(deadline=None)
@given(st.data())
def test_a_flipped_bit_in_a_gzipped_file_is_noticed_or_changes_nothing(data: st.DataObject) -> None:
    content = bytearray(gzip.compress(idx_bytes(EXAMPLE), mtime=0))
    at = data.draw(st.integers(10, len(content) - 1))  # The ten bytes before hold no content and no checksum.
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gz"
        path.write_bytes(content)
        try:
            array = read_idx(path)  # Deflate pads its last byte with bits that mean nothing.
        except CorruptData:
            return
    np.testing.assert_array_equal(array, EXAMPLE)


@settings(deadline=None)
@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_give_an_array_or_corrupt_data(tail: bytes, plausible: bool) -> None:
    content = (b"\0\0\x08" if plausible else b"") + tail
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(content)
        try:
            array = read_idx(path)
        except CorruptData:
            return
    assert idx_bytes(array) == content


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", r"\(none\)"),
        (b"\x89PNG\r\n", "not an IDX file"),
        (b"\0\0\x0a\x01" + struct.pack(">I", 0), "08, 09, 0b, 0c, 0d, 0e"),
        (b"\0\0\x08\x00\x01", "1 to 64 dimensions"),
        (b"\0\0\x08\x03\0\0\0\x01", "header of 3 dimensions"),
        (b"\0\0\x08\x01" + struct.pack(">I", 3) + b"ab", r"shape \(3,\) of uint8, so 3 bytes .* only 2"),
        (b"\0\0\x08\x01" + struct.pack(">I", 3) + b"abcd", "and has more"),
        (b"\0\0\x08\x04" + struct.pack(">4I", 2**32 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1), "only 0"),
        (b"\0\0\x08\x04" + struct.pack(">4I", 0, 2**32 - 1, 2**32 - 1, 2**32 - 1), "which no array has"),
    ],
)
def test_errors_name_the_file_what_and_what_was_expected(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(CorruptData, match=expected) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="No such file"):
        read_idx(tmp_path / "absent")
