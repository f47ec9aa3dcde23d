"""``check_allocation`` passes what holds the contract, and names each way to break it."""

# ruff: noqa: ARG005 - a faulty part takes what a sound one is given.

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, final

import pytest
import torch

from tombola.errors import ImpossibleDensity
from tombola.prune.allocation import LayerRates, Uniform
from tombola.prune.allocation.by_score import Global
from tombola.prune.counting import Cut, apportion
from tombola.testing import check_allocation

CALLS = itertools.count()


@final
@dataclass(frozen=True)
class Largest:
    """Fill the largest tensors first; an allocation of one's own that holds the contract."""

    name: str = "largest"

    def plan(self, shapes: Any, alive: Any, cut: Cut) -> dict[str, int]:
        total = cut.total(sum(map(_size, shapes.values())), sum(alive.values()))
        planned = dict.fromkeys(shapes, 0)
        for name in sorted(alive, key=lambda n: -alive[n]):
            planned[name] = min(alive[name], total - sum(planned.values()))
        return planned

    def place(self, scores: Any, masks: Any, planned: Any, generator: Any) -> dict[str, int]:  # noqa: ARG002
        return dict(planned)


@dataclass(frozen=True)
class Wrong:
    """An allocation with one method put in another's place."""

    planning: Callable[..., Any] = Uniform().plan
    placing: Callable[..., Any] = Global().place
    name: Any = "wrong"

    def plan(self, shapes: Any, alive: Any, cut: Cut) -> Any:
        return self.planning(shapes, alive, cut)

    def place(self, scores: Any, masks: Any, planned: Any, generator: Any) -> Any:
        return self.placing(scores, masks, planned, generator)


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def one_more(shapes: Any, alive: Any, cut: Cut) -> dict[str, int]:
    """Keep one weight more than a number that was asked for."""
    planned = Uniform().plan(shapes, alive, cut)
    name = next(iter(planned))
    return {**planned, name: planned[name] + 1} if cut.keep == 13 and planned[name] < alive[name] else planned


def two_more(shapes: Any, alive: Any, cut: Cut) -> dict[str, int]:
    """Round so that a density is missed by two weights."""
    total = cut.total(sum(map(_size, shapes.values())), sum(alive.values()))
    more = 2 if cut.density is not None and total + 2 <= sum(alive.values()) else 0
    return apportion(alive, total + more, alive)


def first_takes_all(shapes: Any, alive: Any, cut: Cut) -> dict[str, int]:
    total = cut.total(sum(map(_size, shapes.values())), sum(alive.values()))
    return {name: total if name == next(iter(shapes)) else 0 for name in shapes}


def debt(shapes: Any, alive: Any, cut: Cut) -> dict[str, int]:
    """Take from a tensor what it does not have."""
    planned = Uniform().plan(shapes, alive, cut)
    names = list(planned)
    if len(names) > 1 and planned[names[0]] == 0 and planned[names[1]] < alive[names[1]]:
        planned[names[0]], planned[names[1]] = -1, planned[names[1]] + 1
    return planned


def restless(shapes: Any, alive: Any, cut: Cut) -> dict[str, int]:
    """Give the odd weight to another tensor each time."""
    names = list(alive)
    turned = names[next(CALLS) % len(names):] + names  # fmt: skip
    total = cut.total(sum(map(_size, shapes.values())), sum(alive.values()))
    planned = dict.fromkeys(names, 0)
    for name in turned[: len(names)]:
        planned[name] = min(alive[name], total - sum(planned.values()))
    return planned


def generous(shapes: Any, alive: Any, cut: Cut) -> dict[str, int]:
    """Keep what there is where a cut is impossible."""
    try:
        return Uniform().plan(shapes, alive, cut)
    except ImpossibleDensity:
        return dict(alive)


def dividing(shapes: Any, alive: Any, cut: Cut) -> dict[str, int]:
    if cut.keep == 0:
        raise ZeroDivisionError("division by zero")
    return Uniform().plan(shapes, alive, cut)


def writing(shapes: Any, alive: Any, cut: Cut) -> dict[str, int]:
    planned = Uniform().plan(shapes, alive, cut)
    alive.update(planned)
    return planned


def drawing(*given: Any) -> Any:
    torch.rand(1)
    return Uniform().plan(*given)


def placed_at_random(scores: Any, masks: Any, planned: Any, generator: Any) -> dict[str, int]:  # noqa: ARG001
    alive = {n: int(mask.sum()) for n, mask in masks.items()}
    return restless({n: mask.shape for n, mask in masks.items()}, alive, Cut(keep=sum(planned.values())))


def crowded(scores: Any, masks: Any, planned: Any, generator: Any) -> dict[str, int]:  # noqa: ARG001
    return {n: sum(planned.values()) if n == next(iter(masks)) else 0 for n in masks}


def wearing(scores: Any, masks: Any, planned: Any, generator: Any) -> dict[str, int]:
    found = Global().place(scores, masks, planned, generator)
    next(iter(scores.values())).zero_()
    return found


def unmasking(scores: Any, masks: Any, planned: Any, generator: Any) -> dict[str, int]:
    found = Global().place(scores, masks, planned, generator)
    next(iter(masks.values())).fill_(True)
    return found


def emptying(scores: Any, masks: Any, planned: Any, generator: Any) -> dict[str, int]:
    found = Global().place(scores, masks, planned, generator)
    for name in planned:
        planned[name] = 0
    return found


def drawn(scores: Any, masks: Any, planned: Any, generator: Any) -> dict[str, int]:
    torch.rand(1)
    return Global().place(scores, masks, planned, generator)


class Local:
    """Pickled to another name."""

    def __init__(self, name: str) -> None:
        self.name = name

    plan, place = Wrong.planning, staticmethod(Global().place)

    def __reduce__(self) -> Any:
        return Local, ("another",)


@dataclass(frozen=True)
class Forgetful:
    """Pickled without what it was told."""

    multipliers: Mapping[str, Fraction]
    name: str = "forgetful"

    def plan(self, shapes: Any, alive: Any, cut: Cut) -> dict[str, int]:
        return LayerRates(self.multipliers).plan(shapes, alive, cut)

    def place(self, scores: Any, masks: Any, planned: Any, generator: Any) -> dict[str, int]:  # noqa: ARG002
        return dict(planned)

    def __reduce__(self) -> Any:
        return Forgetful, ({},)


FAULTS: dict[str, Any] = {
    "the plan keeps 14 weights, and the cut asks for 13": Wrong(one_more),
    "the plan keeps 11 weights, and the cut asks for 9 .one tensor, all of the weights left, density 1/2": Wrong(
        two_more
    ),
    r"the plan keeps \d+ weights of 'a', which has \d+ left": Wrong(first_takes_all),
    "the plan keeps -1 weights": Wrong(debt),
    "the plan is a list, not name -> count": Wrong(lambda *given: list(Uniform().plan(*given).values())),
    "the plan is for d, c, b, a, not a, b, c, d": Wrong(lambda *given: dict(reversed(Uniform().plan(*given).items()))),
    "not a whole number": Wrong(lambda *given: {n: float(c) for n, c in Uniform().plan(*given).items()}),
    "the plan is another one": Wrong(restless),
    "plans keep 0 with 17 weights left": Wrong(generous),
    "raises ZeroDivisionError for keep 0": Wrong(dividing),
    "writes to the shapes or counts": Wrong(writing),
    "the plan failed with KeyError": Wrong(lambda shapes, alive, cut: {"a": alive["fc1"]}),
    "draws from torch's global generator": Wrong(drawing),
    "the placement is another one": Wrong(placing=placed_at_random),
    r"the placement keeps \d+ weights of 'a'": Wrong(placing=crowded),
    r"the placement keeps 0 weights, and the plan 17": Wrong(placing=lambda s, m, p, g: dict.fromkeys(p, 0)),
    "the placement writes to the scores or masks": Wrong(placing=wearing),
    "the placement writes to the scores or masks that it": Wrong(placing=unmasking),
    "the placement writes to the plan": Wrong(placing=emptying),
    "the allocation draws from torch's global generator": Wrong(placing=drawn),
    "the placement failed with AttributeError": Wrong(placing=lambda s, m, p, g: (g.get_state(), dict(p))[1]),
    "cannot be pickled": Wrong(placing=lambda s, m, p, g: dict(p)),
    "name is a NoneType, not text": Wrong(name=None),
    "name is empty": Wrong(name=""),
    "another name after being pickled": Local("local"),
    "another one after being pickled": Forgetful({"a": Fraction(1, 2)}),
}
PICKLED = ("cannot be pickled",)


@pytest.mark.parametrize("allocation", [Largest(), Uniform(), Wrong()], ids=lambda one: one.name)
def test_what_holds_the_contract_passes(allocation: Any) -> None:
    check_allocation(allocation)


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_fault_is_named(sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if sentence not in PICKLED and "pickled" not in sentence:
        # A lambda cannot be pickled, and that would be the first fault found.
        monkeypatch.setattr("tombola.testing.allocation._copy", lambda allocation: allocation)
    with pytest.raises(AssertionError, match=sentence):
        check_allocation(FAULTS[sentence])


def test_rates_of_its_own_are_allowed_where_they_are_announced() -> None:
    own = LayerRates({"a": Fraction(1, 2), "b": Fraction(1, 10)})
    check_allocation(own, own_rates=True)
    with pytest.raises(AssertionError, match=r"the plan keeps \d+ weights, and the cut asks for \d+ .*rate 1/2"):
        check_allocation(own)
