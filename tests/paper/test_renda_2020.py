"""Comparing rewinding and fine-tuning (Renda et al. 2020): the three ways to go on after a cut."""

import torch

from tombola.prune.rewinding import fine_tune, restart, rewind_learning_rate, rewind_to_step
from tombola.types import Snapshot

MOMENTS = {"w": {"momentum": torch.ones(3)}}
INIT, AT_K, END = (Snapshot(k, {"w": torch.full((3,), float(k))}, {}, MOMENTS) for k in (0, 100, 5000))


def test_the_three_differ_in_weights_and_position() -> None:
    found = {
        policy.name: restart(policy, init=INIT, at_step=AT_K, end=END)
        for policy in (fine_tune(), rewind_learning_rate(100), rewind_to_step(100))
    }
    where = {name: (one.step, float(one.params["w"][0])) for name, one in found.items()}
    assert where == {"finetune": (5000, 5000.0), "lr": (100, 5000.0), "step": (100, 100.0)}
