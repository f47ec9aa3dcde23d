"""Faults of published code, each as small as it can be said, to plant where the checks must see them."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from tombola.prune.controls import Case
from tombola.types import Masks, Params, Snapshot


def google(weights: Tensor, mask: Tensor, rate: str) -> Tensor:
    """google-research/lottery-ticket-hypothesis: the cutoff's index is inclusive, so round(p n) + 1 go."""
    alive = weights[mask].abs().sort().values
    cutoff = alive[round(float(rate) * alive.numel())]
    return mask & (weights.abs() > cutoff)


def open_lth(weights: Tensor, mask: Tensor, rate: str) -> Tensor:
    """facebookresearch/open_lth: ceil(p n) sorted weights, and everything not above the next one goes."""
    alive = weights[mask].abs().sort().values
    return mask & (weights.abs() > alive[math.ceil(float(rate) * alive.numel())])


def synaptic_flow(weights: Tensor, mask: Tensor, rate: str) -> Tensor:
    """ganguli-lab/Synaptic-Flow: everything at the threshold goes with it."""
    scores = weights.abs() * mask
    threshold = scores.kthvalue(max(1, int(float(rate) * scores.numel()))).values
    return mask & ~(scores <= threshold)


def python_round(weights: Tensor, mask: Tensor, rate: str) -> Tensor:
    """Halves go to the even neighbour."""
    return _smallest(weights, mask, round(float(rate) * int(mask.sum())))


def float_ceil(weights: Tensor, mask: Tensor, rate: str) -> Tensor:
    """0.07 * 100 is 7.000000000000001."""
    return _smallest(weights, mask, math.ceil(float(rate) * int(mask.sum())))


def dead_among_the_living(weights: Tensor, mask: Tensor, rate: str) -> Tensor:
    """Dead weights are ranked as zeros, with the living that are zero."""
    dead = int((~mask).sum())
    order = (weights.abs() * mask).argsort(stable=True, descending=True)
    found = torch.zeros_like(mask)
    found[order[: mask.numel() - dead - math.floor(float(rate) * int(mask.sum()) + 0.5)]] = True
    return found


def sentinel(weights: Tensor, mask: Tensor, rate: str) -> Tensor:
    """uber-research/deconstructing-lottery-tickets: dead weights get 9999, so that they are not pruned again."""
    scores = torch.where(mask, weights.abs(), torch.tensor(9999.0))
    order = scores.argsort(stable=True)
    found = mask.clone()
    found[order[: math.floor(float(rate) * int(mask.sum()) + 0.5)]] = False
    return found


def _smallest(weights: Tensor, mask: Tensor, count: int) -> Tensor:
    order = torch.where(mask, weights.abs(), torch.inf).argsort(stable=True)
    found = mask.clone()
    found[order[:count]] = False
    return found


def naive_rounds(density: str, rounds: int) -> Sequence[float]:
    """Remove p / n of the original in every round."""
    return [1 - (1 - float(density)) * level / rounds for level in range(rounds + 1)]


def literal_fraction(density: str, rounds: int) -> Sequence[float]:
    """Remove p^(1/n) of the survivors, p a fraction."""
    return [(1 - (1 - float(density)) ** (1 / rounds)) ** level for level in range(rounds + 1)]


def literal_percent(density: str, rounds: int) -> Sequence[float]:
    """Remove p^(1/n) % of the survivors, p in percent."""
    return [(1 - (100 - 100 * float(density)) ** (1 / rounds) / 100) ** level for level in range(rounds + 1)]


def with_biases(params: Params, kinds: Mapping[str, str]) -> Sequence[str]:
    """Lightning: weights and biases by default."""
    return [name for name in params if kinds[name] in ("linear", "conv", "bias")]


def with_norms(params: Params, _: Mapping[str, str]) -> Sequence[str]:
    """A tutorial: everything called weight."""
    return [name for name in params if name.endswith("weight")]


def linear_only(params: Params, kinds: Mapping[str, str]) -> Sequence[str]:
    """torch.ao: linear layers, and nothing is said of the others."""
    return [name for name in params if kinds[name] == "linear"]


def no_shuffle(case: Case) -> tuple[Snapshot, Masks]:
    """Synaptic-Flow: the shuffled mask is bound to a local name and lost."""
    for mask in case.masks.values():
        shuffled = mask.reshape(-1)[torch.randperm(mask.numel(), generator=case.generator)]
        del shuffled
    return case.start, case.masks


def one_permutation(case: Case) -> tuple[Snapshot, Masks]:
    """RigL's JAX code: one key for all layers, so layers of one size get one permutation."""
    state = case.generator.get_state()
    found = {}
    for name, mask in case.masks.items():
        rng = torch.Generator()
        rng.set_state(state)
        found[name] = mask.reshape(-1)[torch.randperm(mask.numel(), generator=rng)].reshape(mask.shape)
    return case.start, found


def across_layers(case: Case) -> tuple[Snapshot, Masks]:
    """A layerwise shuffle that draws every layer at the common density."""
    total = sum(int(mask.sum()) for mask in case.masks.values()) / sum(m.numel() for m in case.masks.values())
    return case.start, {n: torch.rand(m.shape, generator=case.generator) < total for n, m in case.masks.items()}


def even_random(case: Case) -> tuple[Snapshot, Masks]:
    """open_lth's ``even``: keeps the sparsity instead of the density."""
    density = sum(int(mask.sum()) for mask in case.masks.values()) / sum(m.numel() for m in case.masks.values())
    return case.start, {
        n: (torch.randperm(m.numel(), generator=case.generator) < round((1 - density) * m.numel())).reshape(m.shape)
        for n, m in case.masks.items()
    }


def survivors_sigma(case: Case) -> tuple[Snapshot, Masks]:
    """The standard deviation of the survivors alone."""
    params = {n: v.sign() * v[case.masks[n]].std(correction=0) for n, v in case.start.params.items()}
    return Snapshot(0, params), case.masks


def product(params: Params, masks: Masks) -> Mapping[str, Tensor]:
    """``w * mask``: NaN and infinity outlive it."""
    return {name: value * masks[name] for name, value in params.items()}


def little_endian(mask: Tensor) -> Tensor:
    """The first entry in the lowest bit."""
    bits = torch.cat([mask, mask.new_zeros(-mask.numel() % 8)]).reshape(-1, 8).int()
    return (bits << torch.arange(8)).sum(1)


def round_each(ideal: Mapping[str, Fraction], *_: object) -> Mapping[str, int]:
    """Round every share by itself."""
    return {name: math.floor(float(share) + 0.5) for name, share in ideal.items()}
