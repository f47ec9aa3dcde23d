"""Deconstructing lottery tickets (Zhou et al. 2019, section 2): nine mask criteria besides magnitude and chance."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tombola.errors import MissingEvidence, ShapeMismatch
from tombola.prune.criteria.large_final_diff_sign import large_final_diff_sign
from tombola.prune.criteria.large_final_same_sign import large_final_same_sign
from tombola.prune.criteria.large_init import large_init
from tombola.prune.criteria.large_init_large_final import large_init_large_final
from tombola.prune.criteria.magnitude_increase import magnitude_increase
from tombola.prune.criteria.magnitude_increase_diff_sign import magnitude_increase_diff_sign
from tombola.prune.criteria.magnitude_increase_same_sign import magnitude_increase_same_sign
from tombola.prune.criteria.movement import movement
from tombola.prune.criteria.small_final import small_final
from tombola.prune.criteria.small_init import small_init
from tombola.prune.criteria.small_init_small_final import small_init_small_final
from tombola.prune.evidence import Criterion, Evidence
from tombola.prune.select import keep_top

W0 = torch.tensor([1.0, -2.0, 3.0, -4.0, 0.5])
W = torch.tensor([3.0, 1.0, -3.5, -3.0, 9.0])
MASK = torch.tensor([True, True, True, True, False])

BY_HAND: dict[Criterion, list[float]] = {
    small_final: [-3.0, -1.0, -3.5, -3.0],
    large_init: [1.0, 2.0, 3.0, 4.0],
    small_init: [-1.0, -2.0, -3.0, -4.0],
    movement: [2.0, 3.0, 6.5, 1.0],
    magnitude_increase: [2.0, -1.0, 0.5, -1.0],
}
OF_THE_INITIAL = [c for c in BY_HAND if c is not small_final] + [
    large_final_same_sign, large_final_diff_sign, magnitude_increase_same_sign, magnitude_increase_diff_sign,
    large_init_large_final, small_init_small_final,
]  # fmt: skip
HALVES = {
    large_final_same_sign: (True, lambda _, b: b.abs()),
    large_final_diff_sign: (False, lambda _, b: b.abs()),
    magnitude_increase_same_sign: (True, lambda a, b: b.abs() - a.abs()),
    magnitude_increase_diff_sign: (False, lambda a, b: b.abs() - a.abs()),
}


def score(criterion: Criterion, w0: Tensor = W0, w: Tensor = W, mask: Tensor = MASK) -> Tensor:
    """Score one tensor."""
    return criterion({"w": w, "bias": torch.ones(1)}, {"w": mask}, Evidence(theta_0={"w": w0}))["w"]


@pytest.mark.parametrize("criterion", BY_HAND)
def test_its_score_is_the_tables(criterion: Criterion) -> None:
    assert score(criterion).tolist() == [*BY_HAND[criterion], -torch.inf]


@pytest.mark.parametrize("criterion", HALVES)
@pytest.mark.parametrize("shift", [1e-30, 1.0, 1e8])
def test_the_named_half_is_as_without_signs_and_the_other_below_it_in_every_tensor(
    criterion: Criterion, shift: float
) -> None:
    """Also where every named weight shrank, where products of signs underflow, and where 1 is lost in rounding."""
    rng = torch.Generator().manual_seed(3)
    wants_same, base = HALVES[criterion]
    theta_0 = {n: (5 * torch.rand(40, generator=rng) + 1) * shift for n in "ab"}
    params = {n: torch.randn(40, generator=rng) * shift * size for n, size in (("a", 0.1), ("b", 1.0))}
    masks = {n: torch.rand(40, generator=rng) < 0.8 for n in "ab"}
    found = criterion(params, masks, Evidence(theta_0=theta_0))
    named, others = [], []
    for n, scores in found.items():
        half = ((params[n] > 0) == (theta_0[n] > 0)) == wants_same
        assert torch.equal(scores[half & masks[n]], base(theta_0[n], params[n])[half & masks[n]])
        assert bool((scores[~masks[n]] == -torch.inf).all())
        named.append(scores[half & masks[n]])
        others.append(scores[~half & masks[n]])
    assert torch.cat(others).isfinite().all()
    assert torch.cat(others).max() < torch.cat(named).min()
    assert torch.cat(others).unique().numel() == 1, "the others tie"


@pytest.mark.parametrize("criterion", HALVES)
def test_the_two_halves_are_all_weights_and_zero_is_alike_to_zero_only(criterion: Criterion) -> None:
    w0, w = torch.tensor([0.0, 0.0, 1.0, -1.0, 1.0]), torch.tensor([0.0, 2.0, 0.0, -3.0, -3.0])
    wants_same, base = HALVES[criterion]
    same = torch.tensor([True, False, False, True, False])
    found = score(criterion, w0, w, torch.ones(5, dtype=torch.bool))
    half = same == wants_same
    assert torch.equal(found[half], base(w0, w)[half])
    assert found[~half].max() < found[half].min()


@pytest.mark.parametrize("criterion", HALVES)
def test_a_half_without_a_weight_is_no_error(criterion: Criterion) -> None:
    wants_same, _ = HALVES[criterion]
    w0 = torch.tensor([1.0, 2.0])
    found = score(criterion, w0, -w0 if wants_same else w0, torch.ones(2, dtype=torch.bool))
    assert bool(found.isfinite().all())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("criterion", "key"),
    [(large_init_large_final, torch.abs), (small_init_small_final, lambda values: -values.abs())],
)
@pytest.mark.parametrize(("levels", "seed"), [(3, 0), (3, 1), (3, 2), (3, 3), (1000, 0)])
def test_the_best_k_are_the_intersection_at_one_quantile_for_every_k(
    criterion: Criterion, key: Callable[[Tensor], Tensor], levels: int, seed: int
) -> None:
    """By brute force over all quantiles, among the weights left, with ties (3 levels of magnitude) and without."""
    rng = torch.Generator().manual_seed(seed)
    w0, w = (torch.randint(-levels, levels + 1, (30,), generator=rng) / levels for _ in range(2))
    mask = torch.rand(30, generator=rng) < 0.8
    found = score(criterion, w0, w, mask)
    assert found.dtype is torch.float64, "float32 counts to 2^24 only"
    sets = {}
    for m in range(int(mask.sum())):
        cut0, cut = (key(v)[mask].sort().values[m] for v in (w0, w))
        inside = (key(w0) > cut0) & (key(w) > cut) & mask
        sets[int(inside.sum())] = inside
    sets[int(mask.sum())] = mask
    assert len(sets) > (2 if levels == 3 else 15)
    for k in range(int(mask.sum()) + 1):
        top = keep_top(found, k)
        if k in sets:
            assert torch.equal(top, sets[k])
        else:
            below, above = (sets[f([i for i in sets if (i < k) == (f is max)])] for f in (max, min))
            assert bool((below <= top).all())
            assert bool((top <= above).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_differences_of_short_floats_are_not_rounded_to_them(dtype: torch.dtype) -> None:
    w0, w = torch.tensor([1.0, 1.0], dtype=dtype), torch.tensor([-(2.0**-12), -(2.0**-13)], dtype=dtype)
    found = score(movement, w0, w, torch.ones(2, dtype=torch.bool))
    assert found[0] > found[1]


@pytest.mark.parametrize("criterion", OF_THE_INITIAL)
def test_the_initial_values_are_required_and_checked(criterion: Criterion) -> None:
    with pytest.raises(MissingEvidence, match="theta_0"):
        criterion({"w": W}, {"w": MASK}, Evidence())
    with pytest.raises(ShapeMismatch, match=r"has shape \(5,\), its parameter has \(4,\)"):
        criterion({"w": W}, {"w": MASK}, Evidence(theta_0={"w": W0[:4]}))


@pytest.mark.parametrize("criterion", [*OF_THE_INITIAL, small_final])
def test_nothing_that_is_given_is_written_to_or_handed_back(criterion: Criterion) -> None:
    for mask in (MASK, torch.ones(5, dtype=torch.bool)):
        w0, w = W0.clone(), W.clone()
        score(criterion, w0, w, mask).fill_(7.0)
        assert torch.equal(w0, W0)
        assert torch.equal(w, W)
