"""Anybody's arrays: .npz files, functions, and the checks that they share."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tombola.data import Dataset, load
from tombola.errors import CorruptData, DataMissing, InvalidValue, ShapeMismatch, UnknownName

X = np.arange(24, dtype=np.float64).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])


def saved(folder: Path, **arrays: object) -> str:
    path = folder / "mine.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_x", "train_y", "test_x", "test_y"),
        ("X_train", "Y_train", "X_test", "Y_test"),
    ],
)
def test_npz_with_a_test_part(tmp_path: Path, names: tuple[str, str, str, str]) -> None:
    data = load(saved(tmp_path, **dict(zip(names, (X, Y, X[:2] + 1, Y[:2]), strict=True))))
    assert (data.name, data.classes, data.margin, data.input_shape) == ("mine", 3, 0.005, (4,))
    assert data.test_x is not None
    assert data.test_y is not None
    torch.testing.assert_close(data.train_x, torch.tensor(X, dtype=torch.float32), rtol=0, atol=0)
    torch.testing.assert_close(data.test_x, torch.tensor(X[:2] + 1, dtype=torch.float32), rtol=0, atol=0)
    assert data.train_y.tolist() == Y.tolist()
    assert data.test_y.tolist() == [0, 1]


@pytest.mark.parametrize("names", [("x", "y"), ("data", "target"), ("x_train", "y_train")])
def test_npz_without_a_test_part(tmp_path: Path, names: tuple[str, str]) -> None:
    data = load(saved(tmp_path, **dict(zip(names, (X, Y), strict=True))))
    assert data.test_x is None
    assert data.test_y is None


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((6, 5, 7), (1, 5, 7)),
        ((6, 5, 7, 3), (3, 5, 7)),
        ((6, 5, 7, 1), (1, 5, 7)),
        ((6, 3, 5, 7), (3, 5, 7)),
        ((6, 9), (9,)),
        ((6, 3, 5, 3), (3, 5, 3)),
    ],
)
def test_bytes_are_pixels(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = load(saved(tmp_path, x=x, y=Y))
    assert data.input_shape == expected
    assert data.train_x.sum().item() == pytest.approx(x.sum() / 255, rel=1e-5)
    if expected == (3, 5, 7) and shape[-1] == 3:
        assert data.train_x[2, 1, 3, 4].item() == pytest.approx(x[2, 3, 4, 1] / 255)


def test_labels_in_a_column(tmp_path: Path) -> None:
    assert load(saved(tmp_path, x=X, y=Y[:, None])).train_y.tolist() == Y.tolist()


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"a": X, "b": Y}, "holds the arrays 'a', 'b'. Expected are 'x_train' and 'y_train'"),
        ({}, r"arrays \(none\)"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "'x_test' and lacks its partner"),
        ({"x": X, "y": Y[:5]}, "6 inputs and 5 labels"),
        ({"x": X, "y": Y - 1}, r"labels from -1 to 1\..*np.unique"),
        ({"x": X, "y": Y + 1}, r"no example of class 0\. .*np.unique"),
        ({"x": X, "y": Y * 2}, "no example of class 1 and 1 others"),
        ({"x": X, "y": Y * 10**9}, "labels from 0 to 2000000000"),
        ({"x": X, "y": Y * 0}, "one class only"),
        ({"x": X, "y": Y.astype(float)}, r"type float64.*y.astype\(int\)"),
        ({"x": X, "y": np.eye(6, dtype=int)}, r"shape \(6, 6\).*argmax"),
        ({"x": np.where(X == 9, np.nan, X), "y": Y}, "1 inputs that are NaN, infinite .* first in example 2"),
        ({"x": np.where(X >= 22, np.inf, X), "y": Y}, "2 inputs that are NaN, infinite .* first in example 5"),
        ({"x": np.where(X == 3, 1e300, X), "y": Y}, "beyond float32"),
        ({"x": X[:, 0], "y": Y}, r"shape \(6,\). \[N, \*input_shape\]"),
        ({"x": X[:0], "y": Y[:0]}, "nothing empty"),
        ({"x": X.astype(str), "y": Y}, "inputs of type <U"),
        ({"x": X.astype(complex), "y": Y}, "inputs of type complex128"),
        (
            {"x_train": X, "y_train": Y, "x_test": X[:, :3], "y_test": Y},
            r"shape \(3,\) and training examples of shape \(4,\)",
        ),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, "label 3 in its test part"),
        ({"x_train": X, "y_train": Y, "x_test": X[:0], "y_test": Y[:0]}, "nothing empty"),
        ({"x": X.astype(object), "y": Y}, "never unpickled"),
    ],
)
def test_npz_that_is_no_data_set(tmp_path: Path, arrays: dict[str, object], expected: str) -> None:
    with pytest.raises(CorruptData, match=expected) as caught:
        load(saved(tmp_path, **arrays))
    assert "mine.npz" in str(caught.value)


def test_npz_damaged_or_absent(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, x=X, y=Y))
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptData, match=r"mine\.npz"):
            load(str(path))
    changed = bytearray(whole)
    changed[whole.index(X.tobytes()) + 5] ^= 1
    path.write_bytes(changed)
    with pytest.raises(CorruptData, match="CRC"):
        load(str(path))
    path.unlink()
    with pytest.raises(DataMissing, match="No such file"):
        load(str(path))


MODULE = """
import numpy as np
import torch
from tombola.data import Dataset
X = np.arange(24.0).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])
def pair(): return X, Y
def four(): return torch.tensor(X), torch.tensor(Y), X[:3].tolist(), Y[:3].tolist()
def whole(): return Dataset("own", torch.tensor(X).float(), torch.tensor(Y), None, None, 3, 0.02)
def nan(): return Dataset("own", torch.full((6, 4), float("nan")), torch.tensor(Y), None, None, 3, 0.02)
def three(): return X, Y, X
def nothing(): pass
def ragged(): return [[1.0], [1.0, 2.0]], Y
def words(): return X, list("abcdef")
def half(): return torch.tensor(X).bfloat16(), torch.tensor(Y)
def fails(): raise RuntimeError("mine")
number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_data.py").write_text(MODULE)
    (tmp_path / "my_broken_data.py").write_text("import tombola_no_such_module\n")
    monkeypatch.chdir(tmp_path)
    # An installed command does not have the working folder among its paths; pytest may.
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    for name in ("my_own_data", "my_broken_data"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("here")
def test_dotted_paths() -> None:
    before = list(sys.path)
    pair, four, whole = (load(f"my_own_data:{name}") for name in ("pair", "four", "whole"))
    assert pair.name == "my_own_data:pair"
    assert pair.fingerprint == whole.fingerprint != four.fingerprint
    assert four.test_y is not None
    assert four.test_y.tolist() == [0, 1, 2]
    assert (whole.name, whole.margin) == ("own", 0.02)
    assert sys.path == before


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("my_own_data:pare", UnknownName, "Did you mean 'pair'"),
        ("my_own_data:number", UnknownName, "no function of my_own_data is called 'number'"),
        ("my_won_data:pair", UnknownName, "no module is called 'my_won_data'"),
        ("my_broken_data:pair", InvalidValue, "tombola_no_such_module"),
        ("my_own_data:three", InvalidValue, "a tuple of 3"),
        ("my_own_data:nothing", InvalidValue, "a value of type NoneType"),
        ("my_own_data:ragged", CorruptData, r"value 1\) cannot be made an array"),
        ("my_own_data:words", CorruptData, r"value 2\) holds values of type <U1"),
        ("my_own_data:half", CorruptData, "cannot be made an array"),
        ("my_own_data:nan", CorruptData, "NaN"),
        ("my_own_data:fails", InvalidValue, "RuntimeError: mine"),
    ],
)
def test_dotted_paths_that_lead_nowhere(name: str, kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind, match=expected):
        load(name)


def dataset(**changes: object) -> Dataset:
    fields: dict[str, object] = {
        "name": "d", "train_x": torch.zeros(4, 2), "train_y": torch.tensor([0, 1, 0, 1]),
        "test_x": torch.ones(2, 2), "test_y": torch.tensor([0, 1]), "classes": 2, "margin": 0.005,
    }  # fmt: skip
    return Dataset(**{**fields, **changes})  # type: ignore[arg-type]


def test_fingerprint_depends_on_every_value_and_on_nothing_else() -> None:
    first = dataset().fingerprint
    assert first == dataset(name="other", margin=0.1).fingerprint
    assert first == dataset(train_x=torch.zeros(2, 4).t()).fingerprint  # not contiguous
    seen = {first}
    for part in ("train_x", "test_x"):
        for at in range(4):
            changed = getattr(dataset(), part).clone()
            changed.view(-1)[at] += 1e-6
            seen.add(dataset(**{part: changed}).fingerprint)
    seen.add(dataset(test_x=None, test_y=None).fingerprint)
    seen.add(dataset(train_y=torch.tensor([1, 0, 0, 1])).fingerprint)
    seen.add(dataset(train_x=torch.zeros(4, 1, 2), test_x=torch.ones(2, 1, 2)).fingerprint)
    assert len(seen) == 12
    assert first == "7776cf4ad188dfd894e46c1336ba0e9184ad18f2b8aea4448b16a0816f167ac1"


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({"test_y": None}, InvalidValue, "one of test_x and test_y"),
        ({"classes": 1}, InvalidValue, "at least 2"),
        ({"train_x": torch.zeros(4, 2).double()}, InvalidValue, "torch.float64"),
        ({"train_y": torch.zeros(4)}, InvalidValue, "train_y is torch.float32"),
        ({"train_x": torch.zeros(3, 2)}, ShapeMismatch, r"\(3, 2\), train_y has shape \(4,\)"),
        ({"train_x": torch.zeros(4)}, ShapeMismatch, r"\[N, \*input_shape\]"),
        ({"test_x": torch.zeros(2, 3)}, ShapeMismatch, "a test example has shape"),
        ({"train_y": torch.tensor([0, 1, 2, 0])}, InvalidValue, "from 0 to 2; 0 to 1"),
        ({"test_y": torch.tensor([0, -1])}, InvalidValue, "from -1 to 0"),
    ],
)
def test_a_data_set_that_contradicts_itself(changes: dict[str, object], kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind, match=expected):
        dataset(**changes)
