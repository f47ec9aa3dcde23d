"""What every allocation promises, and every composition with it, from one table."""

import itertools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tombola.errors import ImpossibleDensity
from tombola.prune.allocation import ALLOCATIONS, Allocation
from tombola.prune.counting import Cut, half_up
from tombola.prune.criteria import CRITERIA
from tombola.prune.evidence import Evidence
from tombola.prune.masks import counts, kept, nested, ones
from tombola.prune.pruner import Pruner
from tombola.prune.schedules import (
    Densities,
    Geometric,
    Ladder,
    Schedule,
    at_densities,
    geometric,
    ladder,
    one_shot,
)
from tombola.testing import check_allocation
from tombola.types import Masks

SHAPES = {"conv": (8, 3, 3, 3), "fc": (40, 30), "fc2": (30, 31), "out": (10, 20)}
MULTIPLIERS = {"out": Fraction(1, 2), "conv": Fraction(3, 4)}
LEVELS = 6
SIZE = sum(map(math.prod, SHAPES.values()))

SCHEDULES: Mapping[str, Callable[[], Schedule]] = {
    "ladder 20 %": ladder,
    "ladder 7 %": lambda: ladder("0.07"),
    "geometric": lambda: geometric("0.1", 5),
    "one shot": lambda: one_shot("0.15"),
    "densities": lambda: at_densities(["0.9", "0.5", "1/3", "0.1", "0.07", "0.05"]),
}
COMPOSED = ("magnitude", "random")
"""Two are enough here: what an allocation makes of scores does not depend on where they come from."""
BY_LAYER, BY_SCORE = ("layer-rates", "uniform"), ("global", "lamp")
TABLE = list(itertools.product(ALLOCATIONS, COMPOSED, SCHEDULES, (False, True)))


def allocation_of(name: str) -> Allocation:
    """Make an allocation with the table's multipliers."""
    return ALLOCATIONS[name](MULTIPLIERS)


def weights(level: int) -> dict[str, Tensor]:
    """Draw the weights at the end of a level: half precision, so that ties are many."""
    rng = torch.Generator().manual_seed(level)
    return {name: torch.randn(shape, generator=rng).to(torch.bfloat16).float() for name, shape in SHAPES.items()}


def expected(name: str, schedule: Schedule, level: int, before: Mapping[str, int]) -> tuple[int, int]:
    """Say what a level keeps in total, by the definitions alone, and how far a count may be from it."""
    if isinstance(schedule, Geometric):
        # Half a unit in floating point is far above the error of the power at these sizes.
        share = SIZE * float(schedule.density) ** (min(level, schedule.rounds) / schedule.rounds)
        return math.floor(share + 0.5), int(name == "uniform")
    if isinstance(schedule, Densities):
        return math.floor(SIZE * schedule.densities[level - 1] + Fraction(1, 2)), int(name == "uniform")
    assert isinstance(schedule, Ladder)
    if name not in BY_LAYER:
        alive = sum(before.values())
        return alive - half_up(schedule.rate * alive), 0
    rates = {n: schedule.rate * (MULTIPLIERS.get(n, 1) if name == "layer-rates" else 1) for n in SHAPES}
    return sum(alive - half_up(rates[n] * alive) for n, alive in before.items()), 0


@pytest.mark.parametrize(("allocation", "criterion", "schedule", "from_dense"), TABLE)
def test_masks_nest_and_densities_follow_the_schedule(
    allocation: str, criterion: str, schedule: str, from_dense: bool
) -> None:
    pruner = Pruner(
        CRITERIA[criterion].score, allocation_of(allocation), SCHEDULES[schedule](), from_dense=from_dense, min_keep=1
    )
    planned = pruner.plan(SHAPES, LEVELS)
    dense: Masks = ones(weights(0), SHAPES)
    masks = dense
    for level in range(1, LEVELS + 1):
        params = weights(0 if from_dense else level)
        outer = dense if from_dense else masks

        def cut(level: int = level, params: dict[str, Tensor] = params, outer: Masks = outer) -> Masks:
            return pruner.prune(level, params, outer, Evidence(generator=torch.Generator().manual_seed(level)))

        found, again = cut(), cut()
        assert all(torch.equal(found[name], again[name]) for name in SHAPES), "deterministic, given the generator"
        assert nested(found, outer)
        total, slack = expected(allocation, pruner.schedule, level, planned[level - 1])
        assert kept(found) == sum(planned[level].values())
        assert abs(kept(found) - total) <= slack
        assert allocation in BY_SCORE or counts(found) == planned[level]
        assert min(counts(found).values()) >= 1
        assert list(found) == list(outer)
        masks = found


@pytest.mark.parametrize("name", ALLOCATIONS)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=6),
    st.one_of(
        st.fractions(0, 1, max_denominator=50).map(lambda d: Cut(density=d)),
        st.fractions(0, 1, max_denominator=50).map(lambda r: Cut(rate=r)),
        st.integers(1, 1000).map(lambda k: Cut(keep=k)),
    ),
    st.data(),
)
@settings(deadline=None)
def test_a_plan_never_grows_and_a_placement_keeps_its_sum(
    name: str, shapes: list[tuple[int, int]], cut: Cut, data: st.DataObject
) -> None:
    named = {f"t{i}": shape for i, shape in enumerate(shapes)}
    alive = {n: data.draw(st.integers(1, math.prod(shape))) for n, shape in named.items()}
    allocation = allocation_of(name)
    try:
        planned = allocation.plan(named, alive, cut)
    except ImpossibleDensity:
        wanted = (
            cut.keep if cut.keep is not None else half_up((cut.density or Fraction(0)) * sum(map(math.prod, shapes)))
        )
        assert cut.rate or wanted < 1 or wanted > sum(alive.values()), "refused only where no mask has it"
        return
    assert list(planned) == list(named)
    assert all(0 <= planned[n] <= alive[n] for n in named)
    rng = torch.Generator().manual_seed(0)
    masks = {n: (torch.randperm(math.prod(s), generator=rng) < alive[n]).reshape(s) for n, s in named.items()}
    scores = {
        n: (torch.rand(s, generator=rng) * 4).round().masked_fill(~masks[n], -torch.inf) for n, s in named.items()
    }
    placed = allocation.place(scores, masks, planned, rng)
    assert sum(placed.values()) == sum(planned.values())
    assert all(0 <= placed[n] <= alive[n] for n in named)


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_it_holds_the_public_contract(name: str) -> None:
    check_allocation(ALLOCATIONS[name]({}))
    check_allocation(ALLOCATIONS[name]({"a": Fraction(1, 2), "b": Fraction(3, 4)}), own_rates=True)


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_a_name_in_the_registry_is_the_name_in_records(name: str) -> None:
    assert allocation_of(name).name == name


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_nothing_is_cut_at_density_one(name: str) -> None:
    alive = {n: math.prod(shape) for n, shape in SHAPES.items()}
    assert allocation_of(name).plan(SHAPES, alive, Cut(density=Fraction(1))) == alive
