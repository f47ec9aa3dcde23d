"""A unit is of the code that trained it: edited code is trained anew, and code edited meanwhile is refused."""

import importlib
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from study_kit import settings
from torch import nn

from tombola import models
from tombola.data import load
from tombola.errors import SourceChanged
from tombola.search.named import builder, prepare
from tombola.study.remembering import Remembering
from tombola.study.runner import Attempt
from tombola.study.running import run
from tombola.study.spec import Spec
from tombola.study.store import Store
from tombola.train.pool import Pool
from tombola.types import Seed, TrainJob

NET = """
from torch import nn
from kept_helper import act
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 24), nn.Linear(24, 10)
    def forward(self, x):
        return self.b(act(self.a(x.flatten(1))))
def make():
    return Net()
"""
HELPER = "import torch\nK = 1.0\ndef act(x): return torch.relu(x) * K\n"
EDITED = HELPER.replace("1.0", "3.0")


@pytest.fixture(autouse=True)
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the file that a network outside it runs."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "kept_net.py").write_text(NET)
    (folder / "kept_helper.py").write_text(HELPER)
    monkeypatch.syspath_prepend(folder)
    # Python takes an edit of the same second and length for no edit where it wrote bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    forget()
    yield folder / "kept_helper.py"
    forget()


def forget() -> None:
    """Let the next import read the files, as in a new process."""
    for name in ("kept_net", "kept_helper"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


@contextmanager
def here(one: Remembering) -> Iterator[tuple[Attempt, Callable[[], None], int]]:
    """Train units in this process."""
    yield one.train_one, lambda: None, 2


def study(folder: Path, store: Path) -> set[str]:
    forget()
    one = settings(model="kept_net:make", rounds=1, replicates=2, dense_runs=1, workers=1, controls=())
    run(Spec(name="tiny", searches={"one": one}), folder, store, here).save(folder)
    return set(Store(store).entries())


def test_edited_code_is_trained_anew_and_old_code_is_still_known(tmp_path: Path, helper: Path) -> None:
    first = study(tmp_path / "first", tmp_path / "store")
    assert len(first) == 4
    assert study(tmp_path / "again", tmp_path / "store") == first
    helper.write_text(EDITED)
    both = study(tmp_path / "edited", tmp_path / "store")
    assert len(both) == 8
    helper.write_text(HELPER)
    assert study(tmp_path / "back", tmp_path / "store") == both


def sent() -> Callable[[], nn.Module]:
    """Give a builder as another process gets it."""
    build = builder("kept_net:make", load("digits"))
    with torch.random.fork_rng(devices=()):
        build()
    data = pickle.dumps(build)
    forget()
    return lambda: pickle.loads(data)()


def test_another_process_with_the_same_code_builds_the_network() -> None:
    assert isinstance(sent()(), nn.Module)


@pytest.mark.parametrize("edited", [EDITED, "def act(x: half a", "another_name = 1"], ids=["other", "half", "renamed"])
def test_another_process_with_other_code_refuses(helper: Path, edited: str) -> None:
    build = sent()
    helper.write_text(edited)
    with pytest.raises(SourceChanged, match=r"'kept_net:make' has changed since the search began: kept_helper, as"):
        build()


def test_an_edit_after_the_import_is_seen_at_the_first_build(helper: Path) -> None:
    build = builder("kept_net:make", load("digits"))
    data = pickle.dumps(build)
    forget()
    there = pickle.loads(data)
    helper.write_text(EDITED)
    with pytest.raises(SourceChanged):
        there()


def test_code_is_compared_once_in_each_process(helper: Path) -> None:
    build = builder("kept_net:make", load("digits"))
    build()
    data = pickle.dumps(build)
    here_too = pickle.loads(data)
    here_too()
    helper.write_text(EDITED)
    forget()
    assert isinstance(build(), nn.Module), "it holds the code that it began with"
    assert isinstance(here_too(), nn.Module)
    with pytest.raises(SourceChanged):
        pickle.loads(data)()


def test_a_worker_that_starts_after_an_edit_trains_nothing(helper: Path) -> None:
    setup = prepare(settings(model="kept_net:make", controls=()))
    assert setup.alone is not None
    job = TrainJob(models.initial(setup.build, Seed(0)), {}, Seed(0), 30)
    helper.write_text(EDITED)
    with Pool(setup.alone, 2) as pool, pytest.raises(SourceChanged, match="kept_helper"):
        pool([job])
