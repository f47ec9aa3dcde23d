"""The checks pass on ours and fail on every fault that published code has, so they are known to see it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import prune_checks as checks
import prune_faults as faults
import pytest
from torch import Tensor

from tombola.prune import pruner, select
from tombola.prune.allocation import Uniform
from tombola.prune.controls import CONTROLS
from tombola.prune.counting import Cut, apportion, exact
from tombola.prune.evidence import Evidence
from tombola.prune.masks import apply, pack
from tombola.prune.schedules import geometric
from tombola.prune.scope import choose
from tombola.types import Params

Check = Callable[[Any], None]


def our_cut(weights: Tensor, mask: Tensor, rate: str) -> Tensor:
    """Make one round with the pruner: level 1 is the mask that is there, level 2 removes the fraction."""
    schedule = {1: Cut(keep=int(mask.sum())), 2: Cut(rate=exact(rate))}
    composed = pruner.Pruner(allocation=Uniform(), schedule=schedule.__getitem__)
    return composed.prune(2, {"w": weights}, {"w": mask}, Evidence())["w"]


def our_rounds(density: str, rounds: int) -> Sequence[float]:
    """Read the schedule's densities."""
    schedule = geometric(density, rounds)
    return [float(schedule(level).density or 0) for level in range(rounds + 1)]


def our_choice(params: Params, kinds: Mapping[str, str]) -> Sequence[str]:
    """Choose with the default scope."""
    return choose(params, kinds).prunable


OURS: list[tuple[Check, Any]] = [
    *((check, our_cut) for check in (
        checks.distinct_scores, checks.half_tied, checks.all_tied, checks.decimals, checks.halves,
        checks.alive_zeros, checks.large_weights,
    )),
    (checks.equal_rounds, our_rounds),
    (checks.weights_only, our_choice),
    (checks.shuffles, CONTROLS["shuffle"]),
    (checks.draws_at_random, CONTROLS["random"]),
    (checks.signed_constant, CONTROLS["sign"]),
    (checks.exact_zeros, apply),
    (checks.numpys_bits, pack),
    (checks.exact_shares, apportion),
]  # fmt: skip

PLANTED: list[tuple[Check, Any, str]] = [
    (checks.distinct_scores, faults.google, "201 were removed, 200"),
    (checks.half_tied, faults.google, "500 were removed, 200"),
    (checks.distinct_scores, faults.open_lth, "201 were removed, 200"),
    (checks.half_tied, faults.open_lth, "500 were removed, 200"),
    (checks.decimals, faults.open_lth, "9 were removed, 7"),
    (checks.half_tied, faults.synaptic_flow, "500 were removed, 200"),
    (checks.all_tied, faults.synaptic_flow, "1000 were removed, 200"),
    (checks.alive_zeros, faults.synaptic_flow, "0 of 50 are left, not 40"),
    (checks.halves, faults.python_round, "2 were removed, 3"),
    (checks.decimals, faults.float_ceil, "8 were removed, 7"),
    (checks.alive_zeros, faults.dead_among_the_living, "dead weights came back"),
    (checks.large_weights, faults.sentinel, "50 of 50 are left, not the 40 largest"),
    (checks.equal_rounds, faults.naive_rounds, "rounds keep"),
    (checks.equal_rounds, faults.literal_fraction, "ends at"),
    (checks.equal_rounds, faults.literal_percent, "ends at 0.85"),
    (checks.weights_only, faults.with_biases, "0.bias"),
    (checks.weights_only, faults.with_norms, "1.weight"),
    (checks.weights_only, faults.linear_only, r"prunes \['3.weight'\]"),
    (checks.shuffles, faults.no_shuffle, "a shares 800 with the original"),
    (checks.shuffles, faults.one_permutation, "two layers have one permutation"),
    (checks.shuffles, faults.across_layers, "weights, not 800"),
    (checks.draws_at_random, faults.even_random, r"keeps \{'a': 900, 'b': 360\}"),
    (checks.signed_constant, faults.survivors_sigma, "sigma is"),
    (checks.exact_zeros, faults.product, "nan"),
    (checks.numpys_bits, faults.little_endian, "the bytes are"),
    (checks.exact_shares, faults.round_each, "60 of 50"),
]


@pytest.mark.parametrize(("check", "ours"), [pytest.param(*one, id=one[0].__name__) for one in OURS])
def test_ours_passes(check: Check, ours: object) -> None:
    check(ours)


@pytest.mark.parametrize(
    ("check", "fault", "sentence"),
    [pytest.param(*one, id=f"{one[0].__name__}-{one[1].__name__}") for one in PLANTED],
)
def test_a_planted_fault_is_seen(check: Check, fault: object, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check(fault)


def test_every_check_sees_a_fault() -> None:
    assert {check for check, _ in OURS} == {check for check, *_ in PLANTED}


def test_a_fault_planted_in_the_selection_reaches_the_pruner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over-pruning inside ``select`` is seen from outside, through the whole composition."""
    real = select.keep_top

    def greedy(scores: Tensor, count: int, *rest: Any) -> Tensor:
        return real(scores, max(0, count - 1), *rest)

    monkeypatch.setattr(select, "keep_top", greedy)
    with pytest.raises(AssertionError, match="201 were removed, 200"):
        checks.distinct_scores(our_cut)


def test_a_criterion_that_revives_the_dead_is_held_back_by_the_contract_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the contract, dead weights come back; the check sees it."""

    def trusting(_: Any, params: Params, masks: Mapping[str, Tensor], *__: Any) -> Any:
        return {name: params[name].abs() for name in masks}

    monkeypatch.setattr(pruner, "scored", trusting)
    with pytest.raises(AssertionError, match="dead weights came back"):
        checks.alive_zeros(our_cut)
