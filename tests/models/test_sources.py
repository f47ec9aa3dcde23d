"""A network is its code as well: what its own files import counts, and nothing else does."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from tombola.models import build, from_path, identity, sources
from tombola.models.sources import _distributions, _version

NET = """
from torch import nn
{imports}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)
        {layer}
    def forward(self, x):
        {body}
def make():
    return Net()
"""
HELPER = "K = 1.0\ndef act(x): return x * K\n"


def net(imports: str = "", body: str = "return act(self.a(x))", layer: str = "pass") -> str:
    return NET.format(imports=imports, body=body, layer=layer)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder that modules are imported from; none stays loaded."""
    monkeypatch.syspath_prepend(tmp_path)
    # Python takes an edit of the same second and length for no edit where it wrote bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def fresh(path: str = "own_net:make") -> str:
    """Give the identity that a new process would give."""
    forget()
    return identity(path, from_path(path)())


LAYOUTS = {
    "a module": ("own_net:make", {"own_net.py": net("import own_helper", "return own_helper.act(x)")}, "own_helper.py"),
    "a function": ("own_net:make", {"own_net.py": net("from own_helper import act")}, "own_helper.py"),
    "a star": ("own_net:make", {"own_net.py": net("from own_helper import *")}, "own_helper.py"),
    "a chain": (
        "own_net:make",
        {"own_net.py": net("from own_between import act"), "own_between.py": "from own_helper import act"},
        "own_helper.py",
    ),
    "a neighbour": (
        "own_pkg.nets:make",
        {"own_pkg/__init__.py": "", "own_pkg/nets.py": net("from .layers import act")},
        "own_pkg/layers.py",
    ),
    "a neighbour by its package": (
        "own_pkg.nets:make",
        {"own_pkg/__init__.py": "", "own_pkg/nets.py": net("from own_pkg import layers", "return layers.act(x)")},
        "own_pkg/layers.py",
    ),
    "a folder without __init__": ("own_space.nets:make", {"own_space/nets.py": net("from .layers import act")},
                                  "own_space/layers.py"),
    "a package's own file": (
        "own_pkg.nets:make",
        {"own_pkg/nets.py": net("import own_pkg", "return own_pkg.act(x)")},
        "own_pkg/__init__.py",
    ),
    "a factory that is passed on": (
        "own_pkg:make",
        {"own_pkg/__init__.py": "from own_pkg.nets import make", "own_pkg/nets.py": net("from .layers import act")},
        "own_pkg/layers.py",
    ),
    "a factory in a package's own file": (
        "own_pkg:make", {"own_pkg/__init__.py": net("from .layers import act")}, "own_pkg/layers.py",
    ),
    "an import within forward": (
        "own_net:make",
        {"own_net.py": net("", "from own_helper import act; return act(self.a(x))")},
        "own_helper.py",
    ),
    "an import by a computed name": (
        "own_net:make",
        {"own_net.py": net("import importlib; act = importlib.import_module('own_' + 'helper').act")},
        "own_helper.py",
    ),
    "a function that a layer holds": (
        "own_net:make",
        {"own_net.py": net("import importlib", "return self.act(x)",
                           "self.act = importlib.import_module('own_' + 'helper').act")},
        "own_helper.py",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("path", "files", "edited"), LAYOUTS.values(), ids=LAYOUTS)
def test_another_file_that_the_network_runs_makes_another_network(
    folder: Path, path: str, files: dict[str, str], edited: str
) -> None:
    write(folder, {**files, edited: HELPER})
    before = fresh(path)
    assert fresh(path) == before
    write(folder, {edited: HELPER.replace("1.0", "3.0")})
    assert fresh(path) != before
    write(folder, {edited: HELPER})
    assert fresh(path) == before


def test_files_that_it_does_not_run_make_no_difference(folder: Path) -> None:
    write(folder, {"own_pkg/__init__.py": "", "own_pkg/nets.py": net("from .layers import act")})
    write(folder, {"own_pkg/layers.py": HELPER, "own_pkg/data.py": "N = 1", "own_other.py": "import own_pkg.nets"})
    before = fresh("own_pkg.nets:make")
    forget()
    for name in ("own_other", "own_pkg.data"):
        importlib.import_module(name)
    assert identity("own_pkg.nets:make", from_path("own_pkg.nets:make")()) == before, "what is loaded beside it"
    write(folder, {"own_pkg/data.py": "N = 2", "own_other.py": "import own_pkg.data"})
    assert fresh("own_pkg.nets:make") == before


def test_only_files_of_the_users_own_are_read(folder: Path) -> None:
    write(folder, {"own_net.py": net("import json, torch, tombola.models\nfrom own_helper import act"),
                   "own_helper.py": HELPER})  # fmt: skip
    assert set(sources("own_net:make", from_path("own_net:make")())) == {"own_net", "own_helper"}


def test_another_process_and_another_folder_give_the_same(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = {"own_pkg/__init__.py": "from own_pkg.nets import make", "own_pkg/nets.py": net("from .layers import act"),
             "own_pkg/layers.py": HELPER}  # fmt: skip
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(folder, files)
    write(elsewhere, files)
    code = """
import sys
from tombola.models import from_path, identity
print(identity("own_pkg:make", from_path("own_pkg:make")()), "pytest" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(elsewhere), "PYTHONHASHSEED": "7"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == [fresh("own_pkg:make"), "False"]


def test_a_loaded_file_counts_as_it_was_until_it_is_loaded_again(folder: Path) -> None:
    write(folder, {"own_net.py": net("from own_helper import act"), "own_helper.py": HELPER})
    before = fresh()
    write(folder, {"own_helper.py": HELPER.replace("1.0", "30.0")})
    assert identity("own_net:make", from_path("own_net:make")()) == before, "the old code is what runs here"
    importlib.reload(sys.modules["own_helper"])
    again = identity("own_net:make", from_path("own_net:make")())
    assert again != before
    assert again == fresh()


def test_of_what_is_installed_the_version_counts(folder: Path) -> None:
    site = folder / "site-packages"
    about = "Metadata-Version: 2.1\nName: own-layers\nVersion: {}\n"
    write(folder, {"own_net.py": net("from own_installed import act")})
    write(site, {"own_installed.py": HELPER, "own_layers-1.dist-info/METADATA": about.format("1.0"),
                 "own_layers-1.dist-info/RECORD": "own_installed.py,,\n"})  # fmt: skip
    sys.path.insert(0, str(site))
    try:
        before = fresh_installed()
        write(site, {"own_installed.py": "# Its distribution says what it is.\n" + HELPER})
        assert fresh_installed() == before
        write(site, {"own_layers-1.dist-info/METADATA": about.format("1.1")})
        newer = fresh_installed()
        assert newer != before
        for file in (site / "own_layers-1.dist-info").iterdir():
            file.unlink()
        nobodys = fresh_installed()
        assert nobodys not in (before, newer)
        write(site, {"own_installed.py": HELPER})
        assert fresh_installed() != nobodys, "without a distribution its file counts"
    finally:
        sys.path.remove(str(site))
        _forget_installed()


def fresh_installed() -> str:
    _forget_installed()
    return fresh()


def _forget_installed() -> None:
    _distributions.cache_clear()
    _version.cache_clear()


CELL = """
from torch import nn
K = 1.0
unrelated = 1
def act(x):
    return x * K
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)
    def forward(self, x):
        return act(self.a(x)) if x.dim() in {1, 2} else x
def make():
    return Net()
"""


def test_a_network_typed_into_a_notebook_is_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(cell: str) -> str:
        main = ModuleType("__main__")
        exec(cell, vars(main))
        monkeypatch.setitem(sys.modules, "__main__", main)
        return identity("__main__:make", from_path("__main__:make")())

    before = typed(CELL)
    assert typed("\n\n" + CELL.replace("unrelated = 1", "unrelated = 2")) == before
    for old, new in (("K = 1.0", "K = 3.0"), ("x * K", "x + K"), ("{1, 2}", "{1, 3}")):
        assert typed(CELL.replace(old, new)) != before


def test_tombolas_own_networks_stay_the_networks_they_are() -> None:
    with torch.random.fork_rng(devices=()):
        module = build("lenet-300-100", (1, 8, 8), 10)
    assert identity("lenet-300-100", module) == "c0c51294513853f94eb359999069ac72f198995fb21a66b160a47712eb39da55"
    assert identity("lenet-300-100", nn.Sequential(module)) != identity("lenet-300-100", module)
