"""Controls: what a ticket is compared with, each differing from it in one named thing only.

All controls share the ticket's density, budget, data order and recipe; the small dense networks come as close to its
density, or to its multiply-adds, as whole units do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, final

import torch
from torch import Tensor

from tombola.errors import ImpossibleDensity, InvalidValue, UnknownName
from tombola.prune.allocation.erk import ERK
from tombola.prune.allocation.uniform import Uniform
from tombola.prune.counting import Counts, Cut, at_least
from tombola.prune.masks import counts, kept, ones, sizes
from tombola.prune.select import select
from tombola.prune.structure.places import Group, left_on_axes, product_masks, usable
from tombola.prune.structure.shares import Shares
from tombola.prune.structure.units import kept_counts
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
        groups: the network's units, for the small dense networks.
        macs: name -> multiply-adds of one example in the dense network, for the one that has as many.
    """

    start: Snapshot
    masks: Masks
    fresh: Callable[[], Snapshot]
    one_shot: Callable[[], Masks]
    generator: torch.Generator
    groups: Sequence[Group] | None = None
    macs: Mapping[str, int] | None = None


SMALL_DENSE: Final = "small-dense"
"""How the names of the controls begin that need the network's units."""

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


def small_dense(case: Case) -> tuple[Snapshot, Masks]:
    """Train a small dense network with as many prunable weights, from values of its own: was a smaller one enough?

    Liu et al. (2019), section 3 (the pruned architecture, trained from scratch). Of every group of units it has the
    first ones, the same fraction, such that its weights are the closest to the ticket's and not more. It is given as a
    mask, rows times columns, under which the network computes what the small one does, layer norms over units aside.

    It starts from a fresh draw. A prunable tensor is multiplied by
    ``sqrt((fan_in + fan_out) / (small fan_in + small fan_out))``, so that its variance is the one that Glorot's rule,
    the built-in networks' own, gives the small tensor; under another initialiser it is still that rule. Biases are as
    drawn. Trained from step 0 for the whole budget.

    Raises:
        InvalidValue: there are no groups, or none that a mask can take units from.
        ImpossibleDensity: the ticket has fewer weights than one unit of each group.
    """
    return _small(case, "small-dense", None)


def small_dense_flops(case: Case) -> tuple[Snapshot, Masks]:
    """Train a small dense network with as many multiply-adds; otherwise as :func:`small_dense`.

    Liu et al. (2019), section 3: equal cost rather than equal size, which differ where weights are used many times. A
    ticket's multiply-adds are the dense ones of each tensor times its density there.

    Raises:
        InvalidValue: as :func:`small_dense`; or multiply-adds are missing.
        ImpossibleDensity: the ticket has fewer multiply-adds than one unit of each group.
    """
    if case.macs is None or not case.masks.keys() <= case.macs.keys():
        missing = sorted(case.masks.keys() - (case.macs or {}).keys())
        raise InvalidValue(
            f"the control small-dense-flops needs the multiply-adds of {', '.join(missing)}, which are not known. Use "
            "small-dense, which counts weights."
        )
    return _small(case, "small-dense-flops", case.macs)


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
    "small-dense": small_dense,
    "small-dense-flops": small_dense_flops,
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


def _small(case: Case, name: str, macs: Mapping[str, int] | None) -> tuple[Snapshot, Masks]:
    """Make the small dense network that costs the most up to the ticket's cost."""
    if case.groups is None:
        raise InvalidValue(
            f"the control {name} leaves out whole units, and the network's units are not known. Pass "
            f"Case(groups=...), as models.groups finds them, or leave {name} out."
        )
    shapes = {n: tuple(mask.shape) for n, mask in case.masks.items()}
    groups, dense = usable(case.groups, shapes), sizes(case.masks)
    # Each weight of a tensor is used equally often.
    price = {n: Fraction(1) if macs is None else Fraction(macs[n], dense[n]) for n in shapes}

    def cost(left: Counts) -> Fraction:
        return sum((price[n] * count for n, count in left.items()), Fraction(0))

    shares, most = Shares(tuple(group.size for group in groups), least=1), cost(counts(case.masks))
    step = shares.last(lambda units: cost(kept_counts(groups, units, shapes)), most)
    if step < 0:
        least = cost(kept_counts(groups, shares.at(0), shapes))
        raise ImpossibleDensity(
            f"the ticket has {float(most):,.0f} {'weights' if macs is None else 'multiply-adds'}, and the smallest "
            f"dense network, one unit in each group, has {float(least):,.0f}. Leave {name} out at this density."
        )
    units = shares.at(step)
    first = {group.name: torch.arange(group.size) < count for group, count in zip(groups, units, strict=True)}
    start, sides = case.fresh(), left_on_axes(groups, units, shapes)
    params = dict(start.params)
    for n, shape in shapes.items():
        if len(shape) > 1:
            params[n] = params[n] * math.sqrt(sum(shape[:2]) / sum(sides[n][:2]))
    return replace(start, params=params), product_masks(groups, first, ones(case.masks, case.masks))
