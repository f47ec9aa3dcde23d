"""A small search whose masks and weights are the same bits as when they were stored.

The bits depend on torch and on the kernels that it picks for the processor, so they are stored by these; they do not
depend on the number of threads, since a trainer uses one. To store them for another machine or version (after looking
at why they changed, where they were known)::

    TOMBOLA_RECORD_GOLDEN=1 python -m pytest tests/golden
"""

import hashlib
import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tombola import models
from tombola.data import load
from tombola.prune.controls import CONTROLS
from tombola.prune.pruner import imp
from tombola.search.levels import TICKET, Family, Level, search
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import Recipe
from tombola.train.source import Splits
from tombola.types import Seed

STORE = Path(__file__).parent / "trajectories.json"
PRUNABLE = ("1.weight", "3.weight")


def network() -> nn.Module:
    """Two layers."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def key() -> str:
    """Name what the bits depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    vendor = next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "unknown vendor")
    capability = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {vendor}, {capability}"


def digest(tensors: list[tuple[str, Tensor]]) -> str:
    whole = hashlib.sha256()
    for name, value in tensors:
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        whole.update(value.contiguous().numpy().tobytes())
    return whole.hexdigest()


def trajectory() -> list[str]:
    """Run five rounds with two controls; give the digest of all masks and final weights of each level."""
    how = Recipe(iterations=40, batch_size=50, lr=3e-3, eval_every=10)
    trainer = PlainTrainer(network, Splits(partial(load, "digits")), how)
    seed = Seed(37)
    family = Family(seed, models.initial(network, seed), partial(models.initial, network))
    controls = {name: CONTROLS[name] for name in ("reinit", "shuffle")}
    levels = search(
        [family], trainer, imp(), PRUNABLE, iterations=40, levels=5, controls=controls, control_levels=(3, 5)
    )
    return [digest(contents(level)) for level in levels]


def contents(level: Level) -> list[tuple[str, Tensor]]:
    masks = [(f"mask {name}", mask) for name, mask in level.masks[0].items()]
    ends = [(f"{arm} {n}", v) for arm, runs in level.arms.items() for n, v in runs[0].end.params.items()]
    assert any(name.startswith(TICKET) for name, _ in ends)
    return masks + ends


def test_the_trajectory_is_the_stored_one() -> None:
    stored = json.loads(STORE.read_text())
    if os.environ.get("TOMBOLA_RECORD_GOLDEN"):
        stored[key()] = trajectory()
        STORE.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    if key() not in stored:
        pytest.skip(f"no trajectory is stored for {key()}; TOMBOLA_RECORD_GOLDEN=1 python -m pytest tests/golden does")
    found = trajectory()
    first = next((n for n, (a, b) in enumerate(zip(found, stored[key()], strict=True)) if a != b), None)
    assert first is None, f"from level {first} on the bits are not the stored ones"
