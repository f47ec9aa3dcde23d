"""What two masks share: against chance within inputs, against chance at all, and over training."""

import math
from itertools import pairwise

import pytest
import torch
from analysis_kit import mask, rng
from torch import Tensor

from tombola.analysis.early import distances, settled
from tombola.analysis.overlap import agreement
from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune.masks import Overlap


def by_input(counts: Tensor, outputs: int, seed: int) -> Tensor:
    """Draw a mask that keeps so many weights of each input, anywhere among the outputs."""
    order = torch.rand(outputs, len(counts), generator=rng(seed)).argsort(0)
    return order < counts


UNLIKE = torch.randint(0, 60, (500,), generator=rng(0)) * (torch.arange(500) % 10 > 0)


def test_independent_masks_with_equal_counts_by_input_overlap_by_chance() -> None:
    """Golden value 7 of the theory sheet, on 1e5 weights with inputs as unlike as MNIST's pixels."""
    first, second = (by_input(UNLIKE, 200, seed) for seed in (1, 2))
    found = agreement({"w": first}, {"w": second})["w"]
    assert found.ratio is not None
    assert 0.97 < found.ratio < 1.03
    assert found.z is not None
    assert abs(found.z) < 4
    assert found.observed / found.plain.expected > 1.2, "chance over the whole tensor takes the inputs for agreement"
    by_output = agreement({"w": first.T}, {"w": second.T})["w"]
    assert by_output.ratio is not None
    assert by_output.ratio > 1.2, "so does chance within outputs"


def test_its_z_is_standard_normal_for_independent_masks() -> None:
    counts = UNLIKE[:40].clamp(max=20)
    masks = [by_input(counts, 30, seed) for seed in range(2000)]
    pairs = zip(masks[:1000], masks[1000:], strict=True)
    z = torch.tensor([agreement({"w": a}, {"w": b})["w"].z for a, b in pairs])
    # Of 1,000 draws the mean has a standard error of .032 and the standard deviation one of .022.
    assert abs(float(z.mean())) < 0.13
    assert abs(float(z.std()) - 1) < 0.09
    assert float((z.abs() > 1.96).double().mean()) == pytest.approx(0.05, abs=0.028)


def test_it_sums_the_hypergeometric_laws_of_the_inputs() -> None:
    first, second = torch.rand(6, 4, 3, 3, generator=rng(1)) < 0.4, torch.rand(6, 4, 3, 3, generator=rng(2)) < 0.6
    found = agreement({"w": first}, {"w": second})["w"]
    laws = [
        Overlap(0, int(a.sum()), int(b.sum()), 6)
        for a, b in zip(first.reshape(6, -1).T, second.reshape(6, -1).T, strict=True)
    ]
    assert found.expected == pytest.approx(sum(law.expected for law in laws))
    assert found.deviation == pytest.approx(math.sqrt(sum(law.deviation**2 for law in laws)))
    assert found.observed == int((first & second).sum())
    assert found.log_ratio == pytest.approx(math.log((found.observed + 0.5) / (found.expected + 0.5)))


def test_jaccard_and_its_chance() -> None:
    found = agreement({"w": mask("110 110")}, {"w": mask("101 110")})["w"]
    assert found.jaccard == 3 / 5
    assert found.expected == 2 * 2 / 2 + 2 * 1 / 2 + 0
    assert found.chance_jaccard == 3 / 5
    empty = agreement({"w": mask("00")}, {"w": mask("00")})["w"]
    assert (empty.ratio, empty.z, empty.log_ratio, empty.chance_jaccard) == (None, None, 0.0, 1.0)
    with pytest.raises(ShapeMismatch, match="only one of the two masks covers v"):
        agreement({"w": mask("1")}, {"v": mask("1")})


def test_the_corrected_distance_is_one_for_random_masks_at_every_density() -> None:
    for kept in (0.05, 0.21, 0.5, 0.9):
        first, second = (torch.rand(400, 500, generator=rng(seed)) < kept for seed in (1, 2))
        found = distances({"w": first}, {"w": second}).pooled
        assert found.hamming == pytest.approx(2 * kept * (1 - kept), rel=0.03)
        assert found.corrected == pytest.approx(1, rel=0.03)
        assert distances({"w": first}, {"w": first}).pooled.corrected == 0


def test_chance_is_taken_tensor_by_tensor() -> None:
    """Masks that agree on how dense the tensors are, and on nothing else, are at chance."""
    draw = [{"a": torch.rand(50_000, generator=rng(s)) < 0.9, "b": torch.rand(50_000, generator=rng(s + 9)) < 0.02}
            for s in (1, 2)]  # fmt: skip
    found = distances(*draw)
    assert found.pooled.corrected == pytest.approx(1, abs=0.03)
    assert found.layers["a"].corrected == pytest.approx(1, abs=0.03)
    by_hand = sum(one.hamming for one in found.layers.values()) / 2
    assert found.pooled.hamming == pytest.approx(by_hand)
    assert distances({"a": mask("11")}, {"a": mask("11")}).pooled.corrected == 0.0


def test_random_masks_pass_the_published_threshold_and_not_ours() -> None:
    """The trap of Early-Bird: at 5 % random masks are .095 apart, below .1."""
    history = [{"w": by_input(torch.full((500,), 20), 400, seed)} for seed in range(6)]
    published = max(distances(a, b).pooled.hamming for a in history[-5:] for b in history[-5:])
    assert published < 0.1
    assert not settled(history)


def test_it_settles_when_the_last_masks_are_alike_and_not_before() -> None:
    final, other = {"w": mask("1100 1010 0011")}, {"w": mask("0011 0101 1100")}
    assert settled([other, *[final] * 5])
    assert not settled([other, *[final] * 4])
    assert not settled([final] * 4), "four masks are no window of five"
    assert settled([other, final, final], window=2)
    assert not settled([final, other, final], window=3), "not the last against the one before alone"
    drift = [{"w": (torch.arange(100) >= 2 * step) & (torch.arange(100) < 2 * step + 50)} for step in range(5)]
    assert all(settled([a, b], window=2) for a, b in pairwise(drift))
    assert not settled(drift), "each is like the one before, and the last is not like the first"
    with pytest.raises(InvalidValue, match="a window of 1 masks"):
        settled([final], window=1)
    with pytest.raises(InvalidValue, match="the threshold is 1"):
        settled([final], threshold=1)


def test_jaccard_to_the_final_mask_is_there() -> None:
    assert distances({"w": mask("1100")}, {"w": mask("1010")}).pooled.jaccard == 1 / 3
