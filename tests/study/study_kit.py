"""A study of seconds, and comparisons of what runs leave behind."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from tombola.search.settings import Settings
from tombola.study.spec import Spec
from tombola.ticket.canonical import same
from tombola.types import Snapshot, TrainOutcome


def net() -> nn.Module:
    """Give a small chain that every engine trains."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 10))


def settings(**changes: Any) -> Settings:
    recipe = {"iterations": 30, "batch_size": 50, "lr": 3e-3, "eval_every": 6, **changes.pop("recipe", {})}
    base = {
        "model": "study_kit:net",
        "rounds": 3,
        "rate": 0.5,
        "replicates": 3,
        "dense_runs": 2,
        "workers": 2,
        "engine": "plain",
    }
    return Settings(**{**base, **changes}, recipe=recipe)


def spec(**changes: Any) -> Spec:
    return Spec(
        name="tiny",
        searches={
            "iterative": settings(**changes, controls=("reinit", "shuffle")),
            "one-shot": settings(**changes, strategy="one-shot", controls=()),
        },
    )


def same_bits(one: Snapshot, other: Snapshot) -> bool:
    """Whether two snapshots are equal in every bit, the optimiser's state included."""
    for kind in ("params", "buffers"):
        a, b = getattr(one, kind), getattr(other, kind)
        if list(a) != list(b) or not all(same(a[n], b[n]) for n in a):
            return False
    if (one.optimizer is None) != (other.optimizer is None) or one.step != other.step:
        return False
    return (
        one.optimizer is None
        or other.optimizer is None
        or all(
            same(value, other.optimizer[name][slot]) for name, of in one.optimizer.items() for slot, value in of.items()
        )
    )


def same_outcome(one: TrainOutcome, other: TrainOutcome) -> bool:
    """Whether two outcomes are equal in everything but the time they took."""
    for field in fields(TrainOutcome):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("end", "best"):
            if not same_bits(a, b):
                return False
        elif field.name == "saved":
            if list(a) != list(b) or not all(same_bits(a[step], b[step]) for step in a):
                return False
        elif field.name == "curve":
            if repr(a) != repr(b):
                return False
        elif field.name != "seconds" and a != b:
            return False
    return True


def results(folder: Path) -> dict[str, Any]:
    """Read everything that a study or a search wrote, without what the clock says and where the store is."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name.startswith("store"):
            continue
        if path.name == "result.json":
            body = json.loads(path.read_text())
            for key in ("wall", "ticket", "trained"):
                body.pop(key, None)
            if "cost" in body:
                del body["cost"]["wall"]
            found[name] = body
        elif path.name == "study.toml":
            found[name] = [line for line in path.read_text().splitlines() if not line.startswith("# store ")]
        else:
            found[name] = path.read_bytes()
    return found
