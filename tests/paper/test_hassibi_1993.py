"""Hassibi & Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon" (1993)."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import InvalidValue
from tombola.models import view
from tombola.prune.criteria.obd import obd
from tombola.prune.criteria.obs import obs, obs_compensate
from tombola.prune.curvature import damping, examples, losses, updates
from tombola.prune.evidence import Evidence
from tombola.prune.masks import apply, ones
from tombola.testing import check_criterion
from tombola.types import Snapshot

LAMBDA = 1e-3


def quadratic(blocks: int = 3, size: int = 7) -> tuple[Tensor, Tensor]:
    """Give weights at the minimum of quadratics, and their matrices."""
    rng = torch.Generator().manual_seed(0)
    roots = torch.randn(blocks, size, 5, dtype=torch.float64, generator=rng)
    return torch.randn(blocks, size, dtype=torch.float64, generator=rng), roots @ roots.mT


def rise(matrices: Tensor, change: Tensor) -> Tensor:
    whole = matrices + LAMBDA * torch.eye(matrices.shape[-1], dtype=torch.float64)
    return torch.einsum("bi,bij,bj->b", change, whole, change) / 2


@pytest.mark.parametrize("place", range(7))
def test_the_loss_rises_by_the_score_and_by_less_than_plain_deletion(place: int) -> None:
    weights, matrices = quadratic()
    gone = torch.zeros_like(weights, dtype=torch.bool)
    gone[:, place] = True
    new = updates(weights, matrices, LAMBDA, gone)
    predicted = losses(weights, matrices, LAMBDA)[:, place]
    actual = rise(matrices, new - weights)
    assert torch.allclose(actual, predicted, rtol=1e-10, atol=1e-13)
    assert (actual < rise(matrices, -weights * gone)).all()
    assert not new[:, place].any()


def test_several_deletions_follow_the_papers_formula_and_no_change_of_the_others_is_better() -> None:
    weights, matrices = quadratic()
    gone = torch.zeros_like(weights, dtype=torch.bool)
    gone[:, [1, 4, 5]] = True
    new = updates(weights, matrices, LAMBDA, gone)
    q = gone[0]
    inverse = torch.linalg.inv(matrices + LAMBDA * torch.eye(7, dtype=torch.float64))
    lagrange = torch.linalg.solve(inverse[:, q][:, :, q], weights[:, q].unsqueeze(-1))
    assert torch.allclose(new - weights, -(inverse[:, :, q] @ lagrange).squeeze(-1), rtol=1e-8, atol=1e-10)
    predicted = (weights[:, q].unsqueeze(1) @ lagrange).reshape(-1) / 2
    least = rise(matrices, new - weights)
    assert torch.allclose(least, predicted, rtol=1e-10, atol=1e-13)
    assert (least < rise(matrices, -weights * gone)).all()
    rng = torch.Generator().manual_seed(1)
    for _ in range(20):
        nudge = 0.01 * torch.randn(weights.shape, dtype=torch.float64, generator=rng) * ~gone
        assert (rise(matrices, new - weights + nudge) > least).all()


def test_nothing_deleted_changes_nothing() -> None:
    weights, matrices = quadratic()
    assert torch.equal(updates(weights, matrices, LAMBDA, torch.zeros_like(weights, dtype=torch.bool)), weights)


def regression() -> tuple[dict[str, Tensor], Evidence]:
    """Least squares at its minimum: the loss is a quadratic, and the matrix its Hessian."""
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(40, 6, dtype=torch.float64, generator=rng) @ torch.randn(6, 6, dtype=torch.float64, generator=rng)
    y = torch.randn(40, 2, dtype=torch.float64, generator=rng)
    params = {"weight": torch.linalg.lstsq(x, y).solution.T.contiguous()}
    with torch.random.fork_rng():
        seen = view(nn.Linear(6, 2, bias=False).double(), Snapshot(0, params))
    return params, Evidence(forward=seen.forward, uses=seen.uses, loss=functional.mse_loss, batches=[(x, y)])


def loss_of(params: Any, evidence: Evidence) -> Tensor:
    assert evidence.forward is not None
    assert evidence.batches is not None
    (x, y) = evidence.batches[0]
    return functional.mse_loss(evidence.forward(params, x), y)


@pytest.mark.parametrize("fast", [True, False])
def test_the_score_is_the_rise_of_a_quadratic_loss(fast: bool) -> None:
    params, evidence = regression()
    evidence = evidence if fast else replace(evidence, uses=None)
    masks = ones(params, params)
    scores = obs(params, masks, evidence, block=6, fraction=1e-12)["weight"]
    for place in (0, 5, 6, 10):
        after = {"weight": masks["weight"].clone()}
        after["weight"].view(-1)[place] = False
        new = obs_compensate(params, masks, after, evidence, block=6, fraction=1e-12)
        rose = loss_of(new, evidence) - loss_of(params, evidence)
        assert torch.isclose(rose, scores.view(-1)[place], rtol=1e-7)
        assert rose < loss_of(apply(params, after), evidence) - loss_of(params, evidence)
        assert new["weight"].view(-1)[place] == 0.0


def test_the_update_stays_in_its_block_and_pruned_weights_stay_zero() -> None:
    params, evidence = regression()
    before = ones(params, params)
    before["weight"][0, 2] = False
    after = {"weight": before["weight"].clone()}
    after["weight"][0, 0] = False
    found = obs_compensate(params, before, after, evidence, block=3)["weight"]
    # The first block of weights that are left is 0, 1 and 3; 0 is deleted and 2 was pruned before.
    start = apply(params, before)["weight"]
    assert not found[0, [0, 2]].any()
    assert (found[0, [1, 3]] != start[0, [1, 3]]).all()
    assert torch.equal(found[0, 4:], start[0, 4:])
    assert torch.equal(found[1], start[1])


def test_a_cut_of_nothing_and_one_that_revives() -> None:
    params, evidence = regression()
    whole = ones(params, params)
    found = obs_compensate({**params, "other": torch.ones(1)}, {}, whole, evidence)
    assert torch.equal(found["weight"], params["weight"])
    assert torch.equal(found["other"], torch.ones(1))
    none = {"weight": torch.zeros_like(whole["weight"])}
    with pytest.raises(InvalidValue, match="keep weights that the masks before it had pruned"):
        obs_compensate(params, none, whole, evidence)
    with pytest.raises(InvalidValue, match="above 0"):
        obs(params, whole, evidence, fraction=0.0)
    with pytest.raises(InvalidValue, match="at least 1"):
        obs(params, whole, evidence, block=0)


def test_half_precision_keeps_its_dtype() -> None:
    params, evidence = regression()
    half = {"weight": params["weight"].bfloat16()}
    after = ones(half, half)
    after["weight"][0, 0] = False
    assert obs_compensate(half, {}, after, evidence)["weight"].dtype is torch.bfloat16


def test_a_weight_may_lie_in_memory_as_it_likes() -> None:
    params, evidence = regression()
    after = ones(params, params)
    after["weight"][0, 0] = False
    other = {"weight": params["weight"].T.contiguous().T}
    found, want = (obs_compensate(one, {}, after, evidence)["weight"] for one in (other, params))
    assert torch.allclose(found, want, rtol=1e-12)
    assert torch.allclose(obs(other, after, evidence)["weight"], obs(params, after, evidence)["weight"], rtol=1e-12)


def test_blocks_of_one_are_optimal_brain_damage() -> None:
    params, evidence = regression()
    masks = ones(params, params)
    scores = obs(params, masks, evidence, block=1, fraction=1e-12)["weight"]
    assert torch.allclose(scores, obd(params, masks, evidence)["weight"], rtol=1e-9)


def test_what_is_added_is_a_fraction_of_the_mean_diagonal_of_the_weights_left() -> None:
    params, evidence = regression()
    masks = ones(params, params)
    masks["weight"][:, 0] = False
    assert evidence.batches is not None
    ((x, _),) = evidence.batches
    want = 0.1 * x.square().mean(0)[1:].mean()
    assert damping(examples(params, masks, evidence), masks, evidence, 0.1) == pytest.approx(float(want), rel=1e-12)


def test_contract() -> None:
    check_criterion(obs)
