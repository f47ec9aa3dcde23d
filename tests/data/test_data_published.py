"""The published data sets: where they are looked for, what is checked, and their known facts."""

import gzip
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tombola import data as room
from tombola.data import catalogue, load, places
from tombola.data.digits import PATH, read_digits
from tombola.data.published import IDX_FILES, MNIST, PUBLISHED
from tombola.errors import CorruptData, DataMissing, InvalidValue, UnknownName

SHAPES = ((30, 28, 28), (30,), (20, 28, 28), (20,))


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MNIST have 30 + 20 examples."""
    monkeypatch.setitem(PUBLISHED, "mnist", replace(MNIST, train=30, test=20))


def write_mnist(folder: Path, seed: int = 0, zipped: bool = False) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    arrays = [draw.integers(0, 10 if len(shape) == 1 else 256, shape, np.uint8) for shape in SHAPES]
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(IDX_FILES, arrays, strict=True):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return arrays


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "MNIST"])
@pytest.mark.parametrize("zipped", [False, True])
def test_every_layout_loads(tmp_path: Path, folder: str, zipped: bool) -> None:
    arrays = write_mnist(tmp_path / folder, zipped=zipped)
    data = load("mnist", search=[tmp_path])
    assert (data.name, data.classes, data.margin, data.input_shape) == ("mnist", 10, 0.002, (1, 28, 28))
    assert data.test_x is not None
    assert data.test_y is not None
    for tensor, array in zip((data.train_x, data.train_y, data.test_x, data.test_y), arrays, strict=True):
        expected = array[:, None] / np.float32(255) if array.ndim == 3 else array
        np.testing.assert_array_equal(tensor.numpy(), expected)


@pytest.mark.usefixtures("small")
def test_the_first_complete_folder_of_the_search_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, cache = tmp_path / "first", tmp_path / "second", tmp_path / "cache"
    write_mnist(cache / "tombola" / "mnist", seed=3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("TOMBOLA_DATA", os.pathsep.join(["", str(first), str(second)]))
    from_cache = load("mnist").fingerprint
    write_mnist(second / "mnist", seed=2)
    from_second = load("mnist").fingerprint
    write_mnist(first / "mnist", seed=1)
    from_first = load("mnist").fingerprint
    (first / "mnist" / IDX_FILES[3]).unlink()
    assert load("mnist").fingerprint == from_second
    assert len({from_cache, from_second, from_first}) == 3
    assert {entry.name: entry.here for entry in catalogue()}["mnist"] == second / "mnist"


def test_the_search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    listed = places.search_path(
        {"TOMBOLA_DATA": os.pathsep.join(["/a", "~/b", "/a", " "]), "XDG_CACHE_HOME": "relative"}
    )
    assert [path.as_posix() for path in listed] == [
        "/a",
        "/home/someone/b",
        "/home/someone/.cache/tombola",
        "/usr/local/share/datasets",
        "/usr/share/datasets",
    ]


def test_missing_data_says_where_and_how(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    for name in IDX_FILES[:3]:
        (tmp_path / "mnist" / name).touch()
    with pytest.raises(DataMissing) as caught:
        load("mnist", search=[tmp_path, tmp_path / "other"])
    text = str(caught.value)
    assert f"Looked for a folder mnist or MNIST/raw or MNIST in {tmp_path}, {tmp_path / 'other'}." in text
    assert f"{tmp_path / 'mnist'} lacks t10k-labels-idx1-ubyte." in text
    assert "`tombola data fetch mnist`, or set TOMBOLA_DATA to the folder that holds mnist/" in text
    with pytest.raises(DataMissing, match="apt-get install dataset-fashion-mnist"):
        load("fashion-mnist", search=[])
    with pytest.raises(DataMissing, match="cifar-10-batches-bin or cifar-10-batches-py"):
        load("cifar-10", search=[tmp_path])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("file", "array", "expected"),
    [
        (0, np.zeros((30, 28, 27), np.uint8), r"uint8 of shape \(30, 28, 27\)\. uint8 of shape \(N, 28, 28\)"),
        (0, np.zeros((29, 28, 28), np.uint8), "29 images, .* 30 labels"),
        (1, np.full(30, 10, np.uint8), r"the largest 10\. .* values 0\.\.9"),
        (1, np.zeros((30, 1), np.uint8), r"shape \(30, 1\)"),
        (3, np.zeros(0, np.uint8), "20 images, .* 0 labels"),
    ],
)
def test_files_that_are_idx_but_not_mnist(tmp_path: Path, file: int, array: np.ndarray, expected: str) -> None:
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / IDX_FILES[file]).write_bytes(idx(array))
    with pytest.raises(CorruptData, match=expected):
        load("mnist", search=[tmp_path])


def test_a_part_of_mnist_is_not_called_mnist(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    with pytest.raises(CorruptData, match="30 training and 20 test examples; mnist has 60,000 and 10,000"):
        load("mnist", search=[tmp_path])


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("mnits", UnknownName, "Did you mean 'mnist'"),
        ("", UnknownName, "Known: cifar-10, digits, fashion-mnist, mnist"),
        ("no/such/folder", DataMissing, "nothing at no/such/folder"),
        ("~no-such-user/data", DataMissing, "nothing at ~no-such-user/data"),
        ("no-such.npz", DataMissing, "cannot read no-such.npz"),
    ],
)
def test_names_that_lead_nowhere(name: str, kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind, match=expected):
        load(name)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(InvalidValue, match=r"data\.csv is a file of a kind"):
        load(str(tmp_path / "data.csv"))


def test_the_catalogue_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, tombola.data as d; names = [e.name for e in d.catalogue()]; d.fetch; "
        "assert names == ['digits', 'mnist', 'fashion-mnist', 'cifar-10'], names; "
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOMBOLA_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.setattr(places, "SYSTEM_PLACES", ())
    entries = {entry.name: entry for entry in catalogue()}
    assert entries["digits"].here == "embedded"
    assert "CC BY 4.0" in entries["digits"].licence
    for name in ("mnist", "fashion-mnist", "cifar-10"):
        assert entries[name].here is None
        assert f"`tombola data fetch {name}`" in entries[name].how
        assert entries[name].searched == (tmp_path, tmp_path / "c" / "tombola")


def test_the_room_offers_what_it_lists() -> None:
    assert set(room.__all__) <= set(dir(room))
    for name in room.__all__:
        assert callable(getattr(room, name))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        room.lode  # noqa: B018


def test_facts_of_the_digits() -> None:
    data = load("digits")
    assert data.train_x.shape == (1797, 1, 8, 8)
    assert torch.bincount(data.train_y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    values = (data.train_x * 16).unique().tolist()
    assert values == list(range(17))
    assert (data.train_x[0, 0, 0] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert (data.train_x * 16).double().mean().item() == pytest.approx(4.884164579855314, abs=1e-12)
    assert (data.test_x, data.test_y, data.classes, data.margin) == (None, None, 10, 0.01)
    assert data.fingerprint == "3372042a58f6c34ab33f967b898fa9837748075044256cb1542a9c7ec2cd62b0"


def test_digits_that_were_changed(tmp_path: Path) -> None:
    copy = tmp_path / "digits.csv.gz"
    shutil.copy(PATH, copy)
    assert read_digits(copy).fingerprint == read_digits().fingerprint
    copy.write_bytes(gzip.compress(gzip.decompress(copy.read_bytes()).replace(b"16", b"15", 1)))
    with pytest.raises(CorruptData, match=r"SHA-256 .* 09f66e6d.* install tombola again"):
        read_digits(copy)
    with pytest.raises(DataMissing, match="install tombola again"):
        read_digits(tmp_path / "absent")
    assert "CC BY 4.0" in (PATH.parent / "digits.LICENSE.txt").read_text()


def real(name: str) -> room.Dataset:
    try:
        return load(name)
    except DataMissing:
        pytest.skip(f"{name} is not here; set TOMBOLA_DATA to a folder that holds {PUBLISHED[name].layouts[0].folder}/")


def test_facts_of_mnist() -> None:
    data = real("mnist")
    assert data.test_x is not None
    assert data.test_y is not None
    assert (data.train_x.shape, data.test_x.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert torch.bincount(data.train_y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(data.test_y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.train_x.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert data.train_x.std().item() == pytest.approx(0.3081, abs=5e-5)
    assert data.train_y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def test_facts_of_fashion_mnist() -> None:
    data = real("fashion-mnist")
    assert data.test_y is not None
    assert torch.bincount(data.train_y).tolist() == [6000] * 10
    assert torch.bincount(data.test_y).tolist() == [1000] * 10
    assert data.train_x.mean().item() == pytest.approx(0.2860, abs=5e-5)
    assert data.margin == 0.002


def test_facts_of_cifar_10() -> None:
    data = real("cifar-10")
    assert data.test_y is not None
    assert (data.train_x.shape, data.margin) == ((50_000, 3, 32, 32), 0.005)
    assert torch.bincount(data.train_y).tolist() == [5000] * 10
    assert torch.bincount(data.test_y).tolist() == [1000] * 10
    # Copies differ in single pixels (recoded) and in order, and not in these.
    assert data.train_x.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=0.01)
    assert data.train_x.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=0.02)
