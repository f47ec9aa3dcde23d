"""The package as a whole: what it imports, what it says of itself."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import tombola
from tombola.citations import _BY_TOPIC, _ENTRIES, citations
from tombola.errors import UnknownName

ROOT = Path(__file__).parent.parent


def test_version_is_told_once() -> None:
    assert tombola.__version__ == version("tombola")
    assert f"## {tombola.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {tombola.__version__}" in (ROOT / "CITATION.cff").read_text()


_TORCH_FREE = ["tombola", "tombola.types", "tombola.errors", "tombola.seeds", "tombola.stats", "tombola.train.recipe",
               "tombola.train.presets", "tombola.search.settings"]  # fmt: skip


@pytest.mark.parametrize("module", _TORCH_FREE)
def test_torch_free_modules(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_public_names_open_their_rooms() -> None:
    code = """if True:
        import sys, tombola
        assert "torch" not in sys.modules
        assert set(tombola._PUBLIC) <= set(dir(tombola))
        import torch
        net = torch.nn.Linear(2, 1)
        with tombola.attach(net, {"weight": torch.tensor([[True, False]])}):
            assert net.weight[0, 1] == 0
        for name in tombola._PUBLIC:
            assert callable(getattr(tombola, name)), name
        from tombola.attach import attach
        assert tombola.attach.attach is attach
        import tombola.attach as room
        assert room is tombola.attach
    """
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'fnd'"):
        tombola.fnd  # noqa: B018


def test_the_readmes_loop_runs(tmp_path: Path) -> None:
    """As it stands there, with a network and data put in, and a search of seconds."""
    import torch
    from torch import nn

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = next(block for block in blocks if "tombola.find(" in block)
    short = {
        "iterations=2000, rounds=8, replicates=5": "iterations=6, rounds=2, replicates=3, progress=False",
        "% 100": "% 3",
        '"my-ticket"': "folder",
    }
    for there, here in short.items():
        assert there in code
        code = code.replace(there, here)
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()

    def batches(seed: int, iterations: int) -> Any:
        g = torch.Generator().manual_seed(seed)
        return ((x[batch], y[batch]) for batch in torch.randint(40, (iterations, 8), generator=g))

    def accuracy(model: nn.Module) -> float:
        return float((model(x).argmax(1) == y).float().mean())

    names = {
        "torch": torch, "MyNetwork": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
        "loss_of": nn.functional.cross_entropy, "batches": batches, "folder": tmp_path, "test_accuracy": accuracy,
        "validation_loss": lambda model: nn.functional.cross_entropy(model(x[40:]), y[40:]),
    }  # fmt: skip
    exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "ticket.safetensors").is_file()


def test_every_topic_has_its_papers_and_every_paper_its_topic() -> None:
    cited = {key for keys in _BY_TOPIC.values() for key in keys}
    assert cited == set(_ENTRIES)
    with pytest.raises(UnknownName, match="Did you mean 'erk'"):
        citations("erkk", version="1")


def test_the_readme_commands_exist() -> None:
    text = (ROOT / "README.md").read_text()
    assert "./setup.sh && .venv/bin/tombola find" in text
    assert "./check.sh" in text
    for script in ("setup.sh", "check.sh", ".ci/run"):
        assert (ROOT / script).stat().st_mode & 0o111
    assert "./check.sh" in (ROOT / ".ci/run").read_text()
