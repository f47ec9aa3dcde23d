"""``docs/extending.md``: what it shows runs, and its table is the evidence's."""

import re
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from tombola.prune.evidence import Evidence

TEXT = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_what_it_shows_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("mypackage")
    monkeypatch.setitem(sys.modules, "mypackage", module)
    run = [block for block in BLOCKS if "find(" not in block]
    assert len(run) == len(BLOCKS) - 1, "all but the search itself"
    for block in run:
        exec(compile(block, "docs/extending.md", "exec"), vars(module))
    assert {"growth", "LargestFirst", "bigger_first", "pruner"} <= vars(module).keys()
    levels = module.pruner.plan({"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}, levels=2)
    assert [sum(level.values()) for level in levels] == [266200, 133100, 106480]


def test_its_table_has_every_field_of_the_evidence() -> None:
    named = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    assert named == [field.name for field in fields(Evidence)]
