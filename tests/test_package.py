"""The package as a whole: what it imports, what it says of itself."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

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
