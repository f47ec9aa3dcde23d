"""Controls: what a ticket is compared with, each differing from it in one named thing only.

All controls share the ticket's density, budget, data order and recipe.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from torch import Tensor

from tombola.errors import InvalidValue, UnknownName
from tombola.prune.allocation.erk import ERK
from tombola.prune.allocation.uniform import Uniform
from tombola.prune.counting import Cut, at_least
from tombola.prune.masks import kept, sizes
from tombola.prune.select import select
from tombola.types import Masks, Snapshot


@final
@dataclass(frozen=True)
class Case:
    """A ticket, and what a control may need to depart from it.

    Attributes:
        start: what the ticket starts from, before its mask is put on.
        masks: the ticket's mask.
        fresh: draws theta_0 anew from the model's own initialiser, with another seed.
        one_shot: gives the mask of a single cut of the dense run to the same level.
        generator: a CPU generator for this control at this level; the same bits every time.
    """

    start: Snapshot
    masks: Masks
    fresh: Callable[[], Snapshot]
    one_shot: Callable[[], Masks]
    generator: torch.Generator


Control = Callable[[Case], tuple[Snapshot, Masks]]
"""Gives what the control starts from, before masking, and its mask."""


def reinit(case: Case) -> tuple[Snapshot, Masks]:
    """Keep the mask, draw new initial values; trained from step 0 for the whole budget.

    The random reinitialisation of Frankle & Carbin (2019), section 1: are the *values* needed?
    """
    return case.fresh(), case.masks


def permute(case: Case) -> tuple[Snapshot, Masks]:
    """Keep the mask, permute the start values inside each prunable tensor.

    Zhou et al. (2019), section 3 (reshuffle of init): the values stay, their places do not.
    """
    params = dict(case.start.params)
    for name in case.masks:
        params[name] = _permuted(params[name], case.generator)
    return replace(case.start, params=params), case.masks


def shuffle(case: Case) -> tuple[Snapshot, Masks]:
    """Keep the start values and each tensor's count, permute the mask inside each tensor.

    Frankle et al. (2021), section 4 (layerwise shuffling): is it *which* weights, or only how many in each layer?
    """
    return case.start, {name: _permuted(mask, case.generator) for name, mask in case.masks.items()}


def global_shuffle(case: Case) -> tuple[Snapshot, Masks]:
    """Keep the start values and the total, permute the mask across all tensors together.

    Frankle et al. (2021), section 4, shuffles within layers; across them the layers' counts are lost as well, and a
    small tensor may be left without weights.
    """
    pooled = torch.cat([mask.reshape(-1) for mask in case.masks.values()])
    parts = _permuted(pooled, case.generator).split([mask.numel() for mask in case.masks.values()])
    return case.start, {
        name: part.reshape(mask.shape) for (name, mask), part in zip(case.masks.items(), parts, strict=True)
    }


def random_uniform(case: Case) -> tuple[Snapshot, Masks]:
    """Keep the start values and the total, draw a random mask of the same density in every tensor.

    The randomly sampled sparse networks of Frankle & Carbin (2019), Figure 1. Every tensor keeps at least one weight.
    """
    return case.start, _random(case, Uniform())


def random_erk(case: Case) -> tuple[Snapshot, Masks]:
    """Keep the start values and the total, draw a random mask with ERK's layer densities.

    Evci et al. (2020), section 3. Every tensor keeps at least one weight.
    """
    return case.start, _random(case, ERK())


def sign_constant(case: Case) -> tuple[Snapshot, Masks]:
    """Keep the mask and the signs, replace each magnitude by its tensor's standard deviation.

    Zhou et al. (2019), section 3: the standard deviation is that of the whole tensor, pruned entries included.
    """
    params = dict(case.start.params)
    for name in case.masks:
        params[name] = params[name].sign() * params[name].std(correction=0)
    return replace(case.start, params=params), case.masks


def one_shot(case: Case) -> tuple[Snapshot, Masks]:
    """Keep the start values, take the mask of one cut of the dense run at equal density.

    One-shot pruning, Frankle & Carbin (2019), section 2: is iterating needed?
    """
    return case.start, case.one_shot()


def noise(times: float) -> Control:
    """Keep the mask, add Gaussian noise of so many times each tensor's standard deviation to the start values.

    Frankle & Carbin (2019), appendix on the winning tickets' initialisation: how exactly are the values needed? The
    standard deviation is that of the whole tensor, pruned entries included.
    """

    def control(case: Case) -> tuple[Snapshot, Masks]:
        params = dict(case.start.params)
        for name in case.masks:
            value = params[name]
            drawn = torch.randn(value.shape, generator=case.generator, dtype=torch.float32).to(value)
            params[name] = value + times * value.std(correction=0) * drawn
        return replace(case.start, params=params), case.masks

    return control


def named(name: str) -> Control:
    """Give a control by name; ``noise:K`` takes a number of standard deviations above 0.

    Raises:
        UnknownName: no such control.
        InvalidValue: a ``noise`` without such a number.
    """
    word, _, number = name.partition(":")
    if word == "noise":
        try:
            times = float(number)
        except ValueError:
            times = math.nan
        if not (math.isfinite(times) and times > 0):
            raise InvalidValue(f"{name!r} is no control. Write how many standard deviations of noise: noise:0.5.")
        return noise(times)
    if name not in CONTROLS:
        raise UnknownName.among("control", name, (*CONTROLS, "noise:K"), "For no controls: none.")
    return CONTROLS[name]


CONTROLS: Final[dict[str, Control]] = {
    "reinit": reinit,
    "permute": permute,
    "shuffle": shuffle,
    "global-shuffle": global_shuffle,
    "random": random_uniform,
    "random-erk": random_erk,
    "sign": sign_constant,
    "one-shot": one_shot,
}


def _permuted(tensor: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    return tensor.reshape(-1)[order].reshape(tensor.shape)


def _random(case: Case, allocation: Uniform | ERK) -> dict[str, Tensor]:
    shapes = {name: tuple(mask.shape) for name, mask in case.masks.items()}
    dense = sizes(case.masks)
    # An emptied tensor would make the control fail for a reason that the ticket does not share.
    counts = at_least(allocation.plan(shapes, dense, Cut(keep=kept(case.masks))), 1, dense)
    scores = {
        name: torch.rand(mask.shape, dtype=torch.float64, generator=case.generator).to(mask.device)
        for name, mask in case.masks.items()
    }
    return select(scores, counts)
