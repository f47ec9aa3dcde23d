"""What an allocation must do: exact sums, in plans and in placements, on tensors of every shape."""

import pickle
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

import torch
from torch import Tensor

from tombola.errors import ImpossibleDensity
from tombola.prune.allocation import Allocation
from tombola.prune.counting import Counts, Cut, Shapes, size_of
from tombola.testing.world import left_alone
from tombola.types import Masks, Scores

NETWORKS: Final[Mapping[str, Shapes]] = {
    "one tensor": {"a": (17,)},
    "one to four dimensions": {"a": (6,), "b": (8, 5), "c": (4, 3, 3), "d": (5, 4, 3, 3)},
    "a single weight beside many": {"a": (1,), "b": (30, 20), "c": (1, 1)},
    "many small tensors": {f"t{i}": (3, 1 + i % 3) for i in range(6)},
}
CUTS: Final = (
    Cut(density=Fraction(1)),
    Cut(density=Fraction(1, 2)),
    Cut(density=Fraction(1, 3)),
    Cut(density=Fraction(1, 20)),
    Cut(rate=Fraction(1, 5)),
    Cut(rate=Fraction(1, 2)),
    Cut(keep=1),
    Cut(keep=7),
    Cut(keep=13),
)
_WHO: Final = "the allocation"


def check_allocation(allocation: Allocation, *, own_rates: bool = False) -> None:
    """Hold an allocation to its contract.

    A plan is made of sizes alone, before there are scores: a count for every tensor, from 0 to what is left there,
    with the sum that the cut asks for. A placement divides that very sum, and gives no tensor more than is left
    there. Both are the same whenever they are asked for, write to nothing, and draw from no generator but the one that
    they are given. More weights than are left, or none, are refused. It has a name, and survives being pickled.

    The sum is exact for a number of weights. Where an allocation rounds tensor by tensor, a density may miss it by one
    weight, and a rate by one in each tensor.

    Args:
        allocation: has ``name``, ``plan(shapes, alive, cut)`` and ``place(scores, masks, planned, generator)``.
        own_rates: some tensors have a rate of their own, so that a cut by a rate has another sum than the cut's.

    Raises:
        AssertionError: with a sentence naming what broke.

    Example:
        >>> from tombola.prune.allocation import ERK
        >>> check_allocation(ERK())
    """
    name: Any = allocation.name
    assert isinstance(name, str), f"the allocation's name is a {type(name).__name__}, not text"
    assert name, "the allocation's name is empty, and records call it by that"
    copied = _copy(allocation)
    for network, shapes in NETWORKS.items():
        for full in (True, False):
            alive = {n: size_of(shape) if full else (2 * size_of(shape) + 2) // 3 for n, shape in shapes.items()}
            for cut in CUTS:
                where = f"({network}, {'all' if full else 'two thirds'} of the weights left, {_told(cut)})"
                _check_cut(allocation, copied, shapes, alive, cut, own_rates, where)
            _check_refusals(allocation, shapes, alive, f"({network})")


def _told(cut: Cut) -> str:
    return next(f"{name} {value}" for name, value in vars(cut).items() if value is not None)


def _copy(allocation: Allocation) -> Allocation:
    try:
        copied: Allocation = pickle.loads(pickle.dumps(allocation))
    except Exception as error:
        raise AssertionError(
            f"the allocation cannot be pickled ({type(error).__name__}: {error}), and searches send it to other "
            "processes; make it a frozen dataclass at the top of a module"
        ) from error
    assert copied.name == allocation.name, "the allocation has another name after being pickled"
    return copied


def _check_cut(
    allocation: Allocation, copied: Allocation, shapes: Shapes, alive: Counts, cut: Cut, own_rates: bool, where: str
) -> None:
    size, left = sum(map(size_of, shapes.values())), sum(alive.values())
    try:
        total = cut.total(size, left)
    except ImpossibleDensity:
        return
    given = dict(shapes), dict(alive)
    with left_alone(_WHO, where):
        planned = _planned(allocation, shapes, alive, cut, where)
    assert (dict(shapes), dict(alive)) == given, f"the plan writes to the shapes or counts that it is given {where}"
    _check_counts(planned, alive, "plan", where)
    slack = 0 if cut.rate is None and cut.density is None else 1 if cut.rate is None else len(shapes)
    found = sum(planned.values())
    assert (own_rates and cut.rate is not None) or abs(found - total) <= slack, (
        f"the plan keeps {found} weights, and the cut asks for {total} {where}"
    )
    assert copied.plan(shapes, alive, cut) == planned, f"the plan is another one after being pickled {where}"
    _check_place(allocation, shapes, alive, planned, where)
    assert allocation.plan(shapes, alive, cut) == planned, (
        f"the plan is another one when asked again, or after scores were seen {where}"
    )


def _check_place(allocation: Allocation, shapes: Shapes, alive: Counts, planned: Counts, where: str) -> None:
    masks, scores = _drawn(shapes, alive)
    before = {n: value.clone() for n, value in scores.items()}, {n: value.clone() for n, value in masks.items()}
    sizes = dict(planned)
    for seed in (None, 0):
        with left_alone(_WHO, where):
            placed = _placed(allocation, scores, masks, planned, seed, where)
        _check_counts(placed, alive, "placement", where)
        assert sum(placed.values()) == sum(sizes.values()), (
            f"the placement keeps {sum(placed.values())} weights, and the plan {sum(sizes.values())} {where}"
        )
        assert dict(planned) == sizes, f"the placement writes to the plan that it is given {where}"
        again = _placed(allocation, scores, masks, planned, seed, where)
        assert again == placed, f"the placement is another one when asked again {where}"
    for held, now in zip(before, (scores, masks), strict=True):
        same = all(torch.equal(value, now[n]) for n, value in held.items())
        assert same, f"the placement writes to the scores or masks that it is given {where}"


def _planned(allocation: Allocation, shapes: Shapes, alive: Counts, cut: Cut, where: str) -> Any:
    try:
        return allocation.plan(shapes, alive, cut)
    except Exception as error:
        raise AssertionError(f"the plan failed with {type(error).__name__}: {error} {where}") from error


def _placed(
    allocation: Allocation, scores: Scores, masks: Masks, planned: Counts, seed: int | None, where: str
) -> dict[str, int]:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    try:
        return allocation.place(scores, masks, planned, generator)
    except Exception as error:
        raise AssertionError(f"the placement failed with {type(error).__name__}: {error} {where}") from error


def _check_counts(counts: Any, alive: Counts, what: str, where: str) -> None:
    assert isinstance(counts, Mapping), f"the {what} is a {type(counts).__name__}, not name -> count {where}"
    assert list(counts) == list(alive), f"the {what} is for {', '.join(counts)}, not {', '.join(alive)} {where}"
    for name, count in counts.items():
        whole = isinstance(count, int) and not isinstance(count, bool)
        assert whole, f"the {what} gives {name!r} {count!r}, not a whole number {where}"
        assert 0 <= count <= alive[name], (
            f"the {what} keeps {count} weights of {name!r}, which has {alive[name]} left {where}"
        )


def _check_refusals(allocation: Allocation, shapes: Shapes, alive: Counts, where: str) -> None:
    left = sum(alive.values())
    cuts = [Cut(keep=0), Cut(keep=left + 1), Cut(density=Fraction(0)), Cut(density=Fraction(2))]
    if left < sum(map(size_of, shapes.values())) - 1:
        cuts.append(Cut(density=Fraction(1)))
    for cut in cuts:
        try:
            allocation.plan(shapes, alive, cut)
            outcome = "plans"
        except ImpossibleDensity:
            continue
        except Exception as error:
            outcome = f"raises {type(error).__name__} for"
        raise AssertionError(
            f"the allocation {outcome} {_told(cut)} with {left} weights left {where}; it must raise ImpossibleDensity, "
            "as Cut.total does"
        )


def _drawn(shapes: Shapes, alive: Counts) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draw masks with these counts, and scores that are sizes, of different scale, many of them equal."""
    rng = torch.Generator().manual_seed(0)
    masks = {n: (torch.randperm(size_of(s), generator=rng) < alive[n]).reshape(s) for n, s in shapes.items()}
    scores = {
        n: (torch.rand(s, generator=rng) * 4).round().mul(1 + i).masked_fill(~masks[n], -torch.inf)
        for i, (n, s) in enumerate(shapes.items())
    }
    return masks, scores
