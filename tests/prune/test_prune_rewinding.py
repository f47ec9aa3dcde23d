"""What survivors restart from: field by field, for every policy."""

import math
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune.rewinding import (
    Rewind,
    fine_tune,
    masked,
    restart,
    rewind_learning_rate,
    rewind_to_init,
    rewind_to_step,
)
from tombola.types import Snapshot


def snapshot(step: int, *, moments: bool = True) -> Snapshot:
    """Make a network of one weight, one bias and batch-norm statistics, all telling their step."""
    value = float(step + 1)
    return Snapshot(
        step=step,
        params={"w": torch.full((2, 2), value), "b": torch.full((2,), value)},
        buffers={"running_mean": torch.full((2,), value), "num_batches_tracked": torch.tensor(step)},
        optimizer={"w": {"exp_avg": torch.full((2, 2), value), "step": torch.tensor(value)}} if moments else None,
    )


INIT, AT_STEP, END = snapshot(0, moments=False), snapshot(40), snapshot(1000)
POLICIES: list[tuple[Rewind, Snapshot, int, bool]] = [
    (rewind_to_init(), INIT, 0, False),
    (rewind_to_step(40), AT_STEP, 40, False),
    (rewind_to_step(40, "saved"), AT_STEP, 40, True),
    (rewind_to_step(0), INIT, 0, False),
    (rewind_learning_rate(), END, 0, False),
    (rewind_learning_rate(40), END, 40, False),
    (fine_tune(), END, 1000, True),
]


@pytest.mark.parametrize(("policy", "source", "step", "moments"), POLICIES)
def test_every_field_follows_the_policy(policy: Rewind, source: Snapshot, step: int, moments: bool) -> None:
    found = restart(policy, init=INIT, at_step=AT_STEP, end=END)
    assert {field.name for field in fields(Snapshot)} == {"step", "params", "buffers", "optimizer"}, "all are checked"
    assert found.step == step
    assert found.params is source.params
    assert found.buffers is source.buffers, "batch-norm statistics follow the weights"
    assert found.optimizer is (source.optimizer if moments else None)


def test_only_early_values_make_a_ticket() -> None:
    assert rewind_to_init().keeps_start_values
    assert rewind_to_step(5).keeps_start_values
    assert not rewind_learning_rate().keeps_start_values
    assert not fine_tune().keeps_start_values


def test_the_record_says_the_whole_policy() -> None:
    assert {policy.describe() for policy, *_ in POLICIES[:3]} == {
        "init: weights and batch-norm statistics of init, learning rate and data order from 0, optimiser fresh",
        "step: weights and batch-norm statistics of 40, learning rate and data order from 40, optimiser fresh",
        "step: weights and batch-norm statistics of 40, learning rate and data order from 40, optimiser saved",
    }
    assert fine_tune().describe() == (
        "finetune: weights and batch-norm statistics of end, learning rate and data order from end, optimiser saved"
    )


def test_a_missing_or_other_step_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"snapshot of that step, and there is none\. Train the dense run"):
        restart(rewind_to_step(40), init=INIT, at_step=None, end=END)
    with pytest.raises(InvalidValue, match="there is one of step 1000"):
        restart(rewind_to_step(40), init=INIT, at_step=END, end=END)
    with pytest.raises(InvalidValue, match="cannot rewind to step -1"):
        rewind_to_step(-1)
    with pytest.raises(InvalidValue, match="fine-tune for 0 iterations"):
        fine_tune(0)


MASK = torch.tensor([[True, False], [False, True]])


def test_a_mask_zeroes_pruned_weights_and_their_moments_only() -> None:
    found = masked(AT_STEP, {"w": MASK})
    assert found.params["w"].tolist() == [[41.0, 0.0], [0.0, 41.0]]
    assert found.params["b"] is AT_STEP.params["b"]
    assert found.buffers is AT_STEP.buffers
    assert found.step == 40
    assert found.optimizer is not None
    assert found.optimizer["w"]["exp_avg"].tolist() == [[41.0, 0.0], [0.0, 41.0]]
    assert found.optimizer["w"]["step"] == 41.0, "a counter is no moment"
    assert AT_STEP.params["w"].tolist() == 2 * [[41.0, 41.0]], "the snapshot is not written to"


def test_masking_cleans_what_a_diverged_dead_weight_left() -> None:
    bad: Tensor = torch.tensor([[1.0, math.nan], [math.inf, 2.0]])
    found = masked(Snapshot(3, {"w": bad}, {}, {"w": {"exp_avg": bad}}), {"w": MASK})
    assert found.params["w"].tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert found.optimizer is not None
    assert found.optimizer["w"]["exp_avg"].tolist() == [[1.0, 0.0], [0.0, 2.0]]


def test_a_full_mask_changes_no_bit_and_masking_twice_is_masking_once() -> None:
    assert torch.equal(masked(END, {"w": torch.ones_like(MASK)}).params["w"], END.params["w"])
    once = masked(END, {"w": MASK})
    assert torch.equal(masked(once, {"w": MASK}).params["w"], once.params["w"])
    with pytest.raises(ShapeMismatch, match="'v'"):
        masked(END, {"v": MASK})
