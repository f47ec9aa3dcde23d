"""A user's own networks by dotted path."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tombola.errors import InvalidValue, UnknownName
from tombola.models import call_factory, from_path

MODULE = """
from torch import nn
def make(input_shape, classes): return nn.Linear(input_shape[0], classes)
class Nets:
    @staticmethod
    def small(): return nn.Linear(1, 2)
net = nn.Linear(2, 2)
number = 3
"""


@pytest.fixture(autouse=True)
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_own_net.py").write_text(MODULE)
    (tmp_path / "users_broken_net.py").write_text("1 / 0")
    (tmp_path / "users_hungry_net.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_factory_is_found_and_called() -> None:
    net = call_factory(from_path("users_own_net:make"), (5,), 3)
    assert isinstance(net, nn.Linear)
    assert net.weight.shape == (3, 5)
    assert isinstance(call_factory(from_path("users_own_net:Nets.small"), (5,), 3), nn.Linear)


def test_the_working_directory_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "users_local_net.py").write_text(MODULE)
    monkeypatch.chdir(folder)
    assert call_factory(from_path("users_local_net:make"), (5,), 3)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("users_own_net", "package.module:factory"),
        (":make", "package.module:factory"),
        ("users_own_net:", "package.module:factory"),
        ("no_such_package_here:make", "no module"),
        ("users_own_net.sub:make", "failed with|no module"),
        (".relative:make", "failed with"),
        ("users_own_net:mak", "Did you mean 'make'"),
        ("users_own_net:net", "is a Linear, expected a function or class"),
        ("users_own_net:number", "is a int"),
        ("users_broken_net:make", "ZeroDivisionError"),
        ("users_hungry_net:make", "imports 'a_package_that_is_not_there'"),
    ],
)
def test_paths_that_lead_nowhere_are_explained(path: str, hint: str) -> None:
    with pytest.raises(InvalidValue, match=hint):
        from_path(path)


def test_an_unknown_factory_is_an_unknown_name() -> None:
    with pytest.raises(UnknownName):
        from_path("users_own_net:other")


class Classes(nn.Module):
    """A class serves as a factory."""

    def __init__(self, classes: int, width: int = 2) -> None:
        super().__init__()
        self.shape = (classes, width)


def takes_all(**options: Any) -> nn.Module:
    assert options == {}, "a network that passes its options on may not know ours"
    return nn.Identity()


def test_factories_get_what_their_signature_names() -> None:
    made = call_factory(Classes, (4,), 9)
    assert isinstance(made, Classes)
    assert made.shape == (9, 2)
    assert call_factory(takes_all, (4,), 9)
    made = call_factory(lambda input_shape=(1,): nn.Linear(*input_shape, 2), (4,), 9)
    assert isinstance(made, nn.Linear)
    assert made.in_features == 4


def returns_number() -> Any:
    return 3


def needs_width(width: int) -> nn.Module:
    return nn.Linear(width, 1)


def fails(classes: int) -> nn.Module:
    raise KeyError(classes)


@pytest.mark.parametrize(
    ("factory", "hint"),
    [(returns_number, "returned a int"), (needs_width, "missing a required argument"), (fails, "KeyError: 9"),
     (nn.Linear, "missing a required argument")],
)  # fmt: skip
def test_factories_that_cannot_be_used_are_explained(factory: Any, hint: str) -> None:
    with pytest.raises(InvalidValue, match=hint):
        call_factory(factory, (4,), 9)


def test_an_error_of_tombolas_own_passes_through() -> None:
    from tombola.models import build

    with pytest.raises(UnknownName):
        call_factory(lambda classes: build("lenet", (4,), classes), (4,), 9)
