"""Every method names the paper it comes from."""

import re
from collections.abc import Iterator
from fractions import Fraction

import pytest

from tombola.prune import pruner, rewinding, schedules
from tombola.prune.allocation import ALLOCATIONS
from tombola.prune.controls import CONTROLS
from tombola.prune.criteria import CRITERIA

CITATION = re.compile(r"[A-Z]\w+ (?:et al\.|& [A-Z]\w+)[ ,]*\(?(19|20)\d\d")
PLACE = re.compile(r"section|equation|Algorithm|Figure|figure|table", re.IGNORECASE)


def methods() -> Iterator[tuple[str, object]]:
    """Walk the registries."""
    yield from ((f"criterion {name}", _function(known.score)) for name, known in CRITERIA.items())
    yield from ((f"allocation {name}", type(make({"w": Fraction(1)}))) for name, make in ALLOCATIONS.items())
    yield from ((f"control {name}", control) for name, control in CONTROLS.items())
    yield from ((f"strategy {f.__name__}", f) for f in (pruner.imp, pruner.one_shot, pruner.train_prune_finetune))
    yield from ((f"schedule {c.__name__}", c) for c in (schedules.Ladder, schedules.Geometric))
    named = (name for name, value in vars(rewinding).items() if callable(value))
    makers = [name for name in named if name.startswith("rewind_") or name == "fine_tune"]
    assert len(makers) == 4
    yield from ((f"rewind {name}", getattr(rewinding, name)) for name in makers)


def _function(score: object) -> object:
    """Give the function inside of one with settings; the doc of a partial is of partials."""
    return getattr(score, "func", score)


@pytest.mark.parametrize("name", CRITERIA)
def test_its_line_in_the_catalogue_cites_a_paper_and_the_place_in_it(name: str) -> None:
    source = CRITERIA[name].about.source
    assert CITATION.search(source), source
    assert PLACE.search(source), source


@pytest.mark.parametrize(("what", "method"), [pytest.param(*one, id=one[0]) for one in methods()])
def test_its_docstring_cites_a_paper_and_the_place_in_it(what: str, method: object) -> None:
    text = " ".join((method.__doc__ or "").split())
    assert CITATION.search(text), f"{what} cites no paper: {text}"
    assert PLACE.search(text), f"{what} does not say where in the paper"
