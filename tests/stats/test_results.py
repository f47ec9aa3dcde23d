"""Arranging runs, and leaving incomplete families out."""

import dataclasses
import math

import pytest

from tombola.errors import InvalidResults
from tombola.stats import LevelResults, Results, Run, drop_incomplete

RUNS = (Run(0.9), Run(0.91), Run(0.92))


def results() -> Results:
    return Results(
        (4, 7, 9),
        ((RUNS[0],), (RUNS[1],), (RUNS[2],)),
        (LevelResults(0.5, {"ticket": RUNS, "reinit": RUNS}), LevelResults(0.2, {"ticket": RUNS})),
    )


def with_level(index: int, **arms: tuple[Run | None, ...]) -> Results:
    base = results()
    levels = list(base.levels)
    levels[index] = LevelResults(levels[index].density, {**levels[index].arms, **arms})
    return dataclasses.replace(base, levels=tuple(levels))


def test_complete_results_stay_as_they_are() -> None:
    assert drop_incomplete(results()) == (results(), ())


@pytest.mark.parametrize("hole", [None, Run(math.nan)])
def test_a_missing_cell_takes_its_replicate_from_every_level(hole: Run | None) -> None:
    kept, dropped = drop_incomplete(with_level(1, ticket=(RUNS[0], hole, RUNS[2])))
    assert kept.replicates == (4, 9)
    assert kept.dense == ((RUNS[0],), (RUNS[2],))
    assert [len(runs) for level in kept.levels for runs in level.arms.values()] == [2, 2, 2]
    assert dropped == ("Replicate 7 is left out at every level: no result (diverged or missing) for ticket at 20.0 %.",)


def test_controls_and_dense_runs_count_too() -> None:
    holes = with_level(0, reinit=(None, RUNS[1], RUNS[2]))
    holes = dataclasses.replace(holes, dense=((RUNS[0],), (), (RUNS[2], Run(math.nan))))
    kept, dropped = drop_incomplete(holes)
    assert kept.replicates == ()
    assert [sentence.split(" for ")[1] for sentence in dropped] == ["reinit at 50.0 %.", "dense.", "dense."]


def test_a_long_list_of_missing_cells_is_cut() -> None:
    nothing = (None, RUNS[1], RUNS[2])
    holes = dataclasses.replace(with_level(0, ticket=nothing, reinit=nothing), dense=((), (RUNS[1],), (RUNS[2],)))
    levels = (holes.levels[0], LevelResults(0.2, {"ticket": nothing}))
    _, dropped = drop_incomplete(dataclasses.replace(holes, levels=levels))
    assert "for dense, ticket at 50.0 %, reinit at 50.0 % and 1 more." in dropped[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replicates": (1, 1, 2)}, "name one twice"),
        ({"dense": ((RUNS[0],),)}, "3 replicates and dense runs for 1"),
        ({"levels": ()}, "nothing to judge"),
        ({"levels": results().levels[::-1]}, "Sort the levels"),
        ({"levels": (LevelResults(1.0, {"ticket": RUNS}),)}, "strictly within"),
        ({"levels": (LevelResults(0.5, {"reinit": RUNS}),)}, "no ticket at density 0.5"),
        ({"levels": (LevelResults(0.5, {"ticket": RUNS[:2]}),)}, "2 runs for 3 replicates"),
        ({"levels": (LevelResults(0.5, {"ticket": (Run(97.0), *RUNS[1:])}),)}, "accuracy of 97"),
        ({"levels": (LevelResults(0.5, {"ticket": (Run(0.9, -0.1), *RUNS[1:])}),)}, "accuracy of -0.1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidResults, match=message):
        drop_incomplete(dataclasses.replace(results(), **change))  # type: ignore[arg-type]
