"""Each control differs from the ticket only as its name says, field by field."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tombola.errors import InvalidValue, UnknownName
from tombola.prune.allocation.erk import erk_densities
from tombola.prune.controls import CONTROLS, Case, named
from tombola.prune.masks import counts, kept, overlap, sizes
from tombola.types import Masks, Snapshot

SHAPES = {"fc1": (60, 50), "fc2": (50, 60), "out": (10, 20)}
DENSITY = {"fc1": 0.1, "fc2": 0.1, "out": 0.5}


def start(seed: int = 0, step: int = 7) -> Snapshot:
    """Make what a ticket starts from: three prunable tensors, biases, batch-norm statistics, moments."""
    rng = torch.Generator().manual_seed(seed)
    params = {name: torch.randn(shape, generator=rng) for name, shape in SHAPES.items()}
    params["bias"] = torch.randn(10, generator=rng)
    buffers = {"running_mean": torch.randn(10, generator=rng)}
    return Snapshot(step, params, buffers, {"fc1": {"exp_avg": torch.randn(SHAPES["fc1"], generator=rng)}})


def ticket_masks() -> dict[str, Tensor]:
    """Draw the ticket's masks; fc1 and fc2 get the very same bits."""
    rng = torch.Generator().manual_seed(5)
    bits = {n: torch.randperm(math.prod(s), generator=rng) < DENSITY[n] * math.prod(s) for n, s in SHAPES.items()}
    bits["fc2"] = bits["fc1"]
    return {name: bits[name].reshape(shape) for name, shape in SHAPES.items()}


ONE_SHOT = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in SHAPES.items()}


def case(seed: int = 0, masks: Masks | None = None) -> Case:
    """Make a case; the generator is at the start of its stream."""
    return Case(
        start=start(),
        masks=ticket_masks() if masks is None else masks,
        fresh=lambda: start(seed=99, step=0),
        one_shot=lambda: ONE_SHOT,
        generator=torch.Generator().manual_seed(seed),
    )


def same_params(first: Snapshot, second: Snapshot, *names: str) -> bool:
    """Say whether the named parameters are the same bits."""
    return all(torch.equal(first.params[name], second.params[name]) for name in names)


def same_masks(first: Masks, second: Masks) -> bool:
    """Say whether two masks are the same bits in the same order of names."""
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


NEW_MASK = ("shuffle", "global-shuffle", "random", "random-erk", "one-shot")
NEW_VALUES = ("permute", "sign", "noise:0.5")


def test_every_control_is_checked_here() -> None:
    elsewhere = {"small-dense", "small-dense-flops"}
    assert set(CONTROLS) - elsewhere == {*NEW_MASK, *NEW_VALUES, "reinit"} - {"noise:0.5"}


@pytest.mark.parametrize("name", NEW_MASK)
def test_a_mask_control_keeps_the_start_and_changes_the_mask(name: str) -> None:
    one = case()
    found, masks = CONTROLS[name](one)
    assert found is one.start, "every field, bit for bit"
    assert not same_masks(masks, one.masks)
    assert all(mask.dtype is torch.bool and mask.shape == one.masks[n].shape for n, mask in masks.items())
    assert list(masks) == list(one.masks)


@pytest.mark.parametrize("name", NEW_VALUES)
def test_a_value_control_keeps_the_mask_and_changes_prunable_values_only(name: str) -> None:
    one = case()
    found, masks = named(name)(one)
    assert masks is one.masks
    assert replace(found, params={}) == replace(one.start, params={}), "step, buffers and moments"
    assert list(found.params) == list(one.start.params)
    assert same_params(found, one.start, "bias")
    assert all(not torch.equal(found.params[n], one.start.params[n]) for n in SHAPES)
    assert all(found.params[n].dtype is one.start.params[n].dtype for n in SHAPES)
    assert same_params(one.start, start(), *SHAPES), "the ticket's start is not written to"


def test_reinit_is_another_draw_of_the_initialiser_under_the_same_mask() -> None:
    one = case()
    found, masks = CONTROLS["reinit"](one)
    assert masks is one.masks
    assert found.step == 0, "trained for the whole budget"
    assert same_params(found, start(seed=99), *SHAPES, "bias")


def test_permute_keeps_the_multiset_of_each_tensor() -> None:
    one = case()
    found, _ = CONTROLS["permute"](one)
    for name in SHAPES:
        before, after = one.start.params[name].reshape(-1), found.params[name].reshape(-1)
        assert torch.equal(before.sort().values, after.sort().values)
        assert int((before == after).sum()) < 10


def test_sign_constant_is_plus_or_minus_sigma_of_the_whole_tensor() -> None:
    one = case()
    found, _ = CONTROLS["sign"](one)
    for name in SHAPES:
        value = one.start.params[name]
        sigma = float(value.double().var(correction=0).sqrt())
        assert found.params[name].abs().unique().numel() == 1
        assert float(found.params[name].abs().max()) == pytest.approx(sigma, rel=1e-6)
        assert torch.equal(found.params[name].sign(), value.sign())


@pytest.mark.parametrize("times", [0.5, 3.0])
def test_noise_has_so_many_standard_deviations_of_its_tensor(times: float) -> None:
    base = case()
    # Not of standard deviation 1, so that a variance is not taken for one.
    small = {name: 0.05 * value for name, value in base.start.params.items()}
    one = replace(base, start=replace(base.start, params=small))
    found, _ = named(f"noise:{times}")(one)
    added = {name: found.params[name] - one.start.params[name] for name in SHAPES}
    for name in ("fc1", "fc2"):
        sigma = float(one.start.params[name].double().std(correction=0))
        # 3,000 draws: the relative standard error of a standard deviation is 1.3 %.
        assert float(added[name].double().std()) == pytest.approx(times * sigma, rel=0.07)
        assert abs(float(added[name].mean())) < 5 * times * sigma / math.sqrt(3000)


@pytest.mark.parametrize("name", ["noise", "noise:", "noise:-1", "noise:nan", "noise:much"])
def test_noise_says_how_much(name: str) -> None:
    with pytest.raises(InvalidValue, match=r"noise:0\.5"):
        named(name)


def test_an_unknown_control_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="'shuffle'"):
        named("shufle")


def test_shuffle_keeps_each_count_and_forgets_each_place() -> None:
    one = case()
    _, masks = CONTROLS["shuffle"](one)
    assert counts(masks) == counts(one.masks)
    for name, law in overlap(one.masks, masks).items():
        assert abs(law.shared - law.expected) < 5 * law.deviation, name
        assert law.shared < law.first
    assert not torch.equal(masks["fc1"].reshape(-1), masks["fc2"].reshape(-1)), "another permutation in each layer"


def test_global_shuffle_keeps_the_total_only() -> None:
    one = case()
    _, masks = CONTROLS["global-shuffle"](one)
    assert kept(masks) == kept(one.masks)
    expected = kept(one.masks) * sizes(masks)["out"] / sum(sizes(masks).values())
    assert abs(counts(masks)["out"] - expected) < 5 * math.sqrt(expected), "the layers' own counts are lost"


def test_random_masks_keep_the_total_by_their_allocation() -> None:
    one = case()
    total, size = kept(one.masks), sum(sizes(one.masks).values())
    _, uniform = CONTROLS["random"](one)
    _, erk = CONTROLS["random-erk"](case())
    assert kept(uniform) == kept(erk) == total
    assert all(abs(counts(uniform)[n] - sizes(uniform)[n] * total / size) < 1 for n in SHAPES)
    densities = erk_densities(SHAPES, total)
    assert all(abs(counts(erk)[n] - densities[n] * sizes(erk)[n]) < 1 for n in SHAPES)
    for masks in (uniform, erk):
        assert all(abs(o.shared - o.expected) < 5 * o.deviation for o in overlap(one.masks, masks).values())
        assert not torch.equal(masks["fc1"].reshape(-1), masks["fc2"].reshape(-1))


@pytest.mark.parametrize("name", ["random", "random-erk"])
def test_a_random_mask_leaves_no_tensor_empty_where_the_ticket_does_not(name: str) -> None:
    shapes = {"big": (100, 100), "tiny": (3,), "small": (2, 2)}
    masks = {n: torch.arange(math.prod(s)).reshape(s) < (50 if n == "big" else 1) for n, s in shapes.items()}
    _, found = CONTROLS[name](case(masks=masks))
    assert kept(found) == 52
    assert min(counts(found).values()) >= 1


def test_random_positions_are_uniform() -> None:
    masks = {"w": torch.arange(8) < 2}
    chosen = torch.zeros(8)
    one = case(masks=masks)
    for _ in range(2000):
        chosen += CONTROLS["random"](one)[1]["w"]
    assert float((chosen - 500).abs().max()) < 5 * math.sqrt(2000 * 0.25 * 0.75)


def test_one_shot_takes_the_mask_it_is_given() -> None:
    assert CONTROLS["one-shot"](case())[1] is ONE_SHOT


@pytest.mark.parametrize("name", [*NEW_MASK, *NEW_VALUES, "reinit"])
def test_the_same_generator_gives_the_same_bits_twice_and_no_other_is_touched(name: str) -> None:
    before = torch.random.get_rng_state()
    first, second, other = (named(name)(case(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same_params(first[0], second[0], *SHAPES)
    assert same_masks(first[1], second[1])
    drawn: Callable[[tuple[Snapshot, Masks]], bool] = lambda found: (  # noqa: E731
        same_params(found[0], first[0], *SHAPES) and same_masks(found[1], first[1])
    )
    assert drawn(other) == (name in ("reinit", "sign", "one-shot")), "these draw nothing from the generator"


@pytest.mark.parametrize("name", ["shuffle", "global-shuffle", "random", "random-erk"])
def test_a_full_mask_stays_full(name: str) -> None:
    full = {n: torch.ones(s, dtype=torch.bool) for n, s in SHAPES.items()}
    assert same_masks(CONTROLS[name](case(masks=full))[1], full)
