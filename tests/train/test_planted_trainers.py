"""Every check passes for the right routines and catches the fault it is there for."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import train_checks as checks
from train_kit import Make, naive, plain

from tombola.prune.rewinding import Rewind, restart
from tombola.types import Snapshot

CHECKS: tuple[Callable[[Make], None], ...] = (
    checks.check_all_ones_is_dense,
    checks.check_resuming_is_going_on,
    checks.check_pruned_stay_zero,
    checks.check_every_alive_weight_trains,
    checks.check_best_is_the_validation_minimum,
    checks.check_earliest_of_ties,
    checks.check_diverged_is_no_result,
)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("make", [plain, naive()], ids=["plain", "naive"])
def test_right_routines_pass(check: Callable[[Make], None], make: Make) -> None:
    check(make)


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (checks.check_pruned_stay_zero, "momentum not masked"),
        (checks.check_pruned_stay_zero, "mask only in forward"),
        (checks.check_every_alive_weight_trains, "negative gradients zeroed"),
        (checks.check_all_ones_is_dense, "another rate for round 0"),
        (checks.check_best_is_the_validation_minimum, "early stop on test"),
        (checks.check_earliest_of_ties, "last of ties"),
        (checks.check_diverged_is_no_result, "NaN run kept"),
    ],
)
def test_planted_faults_are_caught(check: Callable[[Make], None], fault: str) -> None:
    with pytest.raises(AssertionError):
        check(naive(fault))


def statistics_of_the_end(policy: Rewind, *, init: Snapshot, at_step: Snapshot | None, end: Snapshot) -> Snapshot:
    """Rewind the parameters and forget batch norm's running statistics."""
    return replace(restart(policy, init=init, at_step=at_step, end=end), buffers=end.buffers)


def optimiser_of_the_end(policy: Rewind, *, init: Snapshot, at_step: Snapshot | None, end: Snapshot) -> Snapshot:
    return replace(restart(policy, init=init, at_step=at_step, end=end), optimizer=end.optimizer)


@pytest.mark.parametrize("faulty", [statistics_of_the_end, optimiser_of_the_end])
@pytest.mark.parametrize("check", [checks.check_all_ones_is_dense, checks.check_resuming_is_going_on])
def test_planted_rewinding_faults_are_caught(check: Callable[..., None], faulty: checks.Restart) -> None:
    with pytest.raises(AssertionError):
        check(plain, faulty)
