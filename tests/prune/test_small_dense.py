"""The small dense networks: whole units, as many weights or multiply-adds as the ticket, Glorot's scale."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tombola.errors import ImpossibleDensity, InvalidValue
from tombola.prune.controls import CONTROLS, Case
from tombola.prune.masks import counts, kept
from tombola.prune.structure import Group, Slice, alive_units
from tombola.types import Snapshot

SHAPES = {"conv": (8, 2, 3, 3), "fc1": (40, 32), "out": (5, 40)}
GROUPS = (
    Group("conv", 8, (Slice("conv", 0), Slice("conv.bias", 0), Slice("fc1", 1, 4))),
    Group("fc1", 40, (Slice("fc1", 0), Slice("fc1.bias", 0), Slice("out", 1))),
)
MACS = {"conv": 144 * 49, "fc1": 1280, "out": 200}


def start(seed: int, step: int = 7) -> Snapshot:
    rng = torch.Generator().manual_seed(seed)
    params = {name: torch.randn(shape, generator=rng) for name, shape in SHAPES.items()}
    return Snapshot(step, {**params, "conv.bias": torch.randn(8, generator=rng), "fc1.bias": torch.ones(40)})


def case(keep: int, macs: Mapping[str, int] | None = None, groups: tuple[Group, ...] | None = GROUPS) -> Case:
    """Make a ticket of so many weights, drawn over all tensors."""
    rng = torch.Generator().manual_seed(1)
    marks = (torch.randperm(1624, generator=rng) < keep).split([144, 1280, 200])
    masks = {name: mark.reshape(SHAPES[name]) for name, mark in zip(SHAPES, marks, strict=True)}
    fresh = start(99, step=0)
    return Case(start(0), masks, lambda: fresh, lambda: masks, torch.Generator(), groups, macs)


def units_of(masks: Mapping[str, Tensor]) -> tuple[int, int]:
    alive = alive_units(GROUPS, masks)
    return int(alive["conv"].sum()), int(alive["fc1"].sum())


def weights(channels: int, neurons: int) -> int:
    return 18 * channels + 4 * channels * neurons + 5 * neurons


def multiply_adds(channels: int, neurons: int) -> int:
    return 18 * 49 * channels + 4 * channels * neurons + 5 * neurons


def ladder() -> list[tuple[int, int]]:
    """Give every uniform fraction's numbers, half up, at least one; written without the code's own."""
    found = {(1, 1)}
    for step in range(1, 641):
        found.add((max(1, math.floor(8 * step / 640 + 0.5)), max(1, math.floor(40 * step / 640 + 0.5))))
    return sorted(found)


@pytest.mark.parametrize("keep", [27, 60, 200, 325, 812, 1300, 1624])
def test_it_is_the_first_units_with_the_most_weights_up_to_the_tickets(keep: int) -> None:
    one = case(keep)
    found, masks = CONTROLS["small-dense"](one)
    channels, neurons = units_of(masks)
    assert (channels, neurons) == max((pair for pair in ladder() if weights(*pair) <= keep), key=lambda p: weights(*p))
    assert kept(masks) == weights(channels, neurons)
    assert bool(masks["conv"][:channels].all())
    assert bool(masks["fc1"][:neurons, : 4 * channels].all())
    assert bool(masks["out"][:, :neurons].all())
    assert found.step == 0, "trained for the whole budget"


@pytest.mark.parametrize("keep", [300, 812, 1624])
def test_with_multiply_adds_it_costs_up_to_what_the_ticket_does(keep: int) -> None:
    one = case(keep, MACS)
    masks = CONTROLS["small-dense-flops"](one)[1]
    most = sum(MACS[name] * count / one.masks[name].numel() for name, count in counts(one.masks).items())
    best = max((pair for pair in ladder() if multiply_adds(*pair) <= most), key=lambda pair: multiply_adds(*pair))
    assert units_of(masks) == best
    if keep == 300:
        assert units_of(masks) != units_of(CONTROLS["small-dense"](one)[1]), "cost is not size"


def test_its_values_are_the_fresh_draw_at_the_scale_of_the_small_tensors() -> None:
    one = case(325)
    found, masks = CONTROLS["small-dense"](one)
    channels, neurons = units_of(masks)
    drawn = start(99).params
    sides = {"conv": (8 + 2, channels + 2), "fc1": (40 + 32, neurons + 4 * channels), "out": (5 + 40, 5 + neurons)}
    for name, (full, small) in sides.items():
        torch.testing.assert_close(found.params[name], drawn[name] * math.sqrt(full / small))
    assert torch.equal(found.params["conv.bias"], drawn["conv.bias"]), "biases as drawn"
    assert torch.equal(one.fresh().params["fc1"], drawn["fc1"]), "the draw is not written to"
    full = CONTROLS["small-dense"](case(1624))
    assert all(torch.equal(full[0].params[name], drawn[name]) for name in SHAPES), "nothing to scale"


def test_what_is_missing_is_said() -> None:
    for name in ("small-dense", "small-dense-flops"):
        with pytest.raises(InvalidValue, match="units are not known"):
            CONTROLS[name](case(300, MACS, None))
        with pytest.raises(ImpossibleDensity, match="one unit in each group, has"):
            CONTROLS[name](case(20, MACS))
    for macs in (None, {"conv": 1, "fc1": 1}):
        with pytest.raises(InvalidValue, match="out"):
            CONTROLS["small-dense-flops"](case(300, macs))
    with pytest.raises(InvalidValue, match="Widen the scope"):
        CONTROLS["small-dense"](replace(case(300), groups=(Group("x", 4, (Slice("x", 0), Slice("y", 1))),)))
