"""Studies made of numbers, for the tests of the verdict."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from tombola.stats import LevelResults, Results, Run

Study = Callable[..., Results]


def _study(
    gaps: Mapping[float, Sequence[float]] | Mapping[float, float],
    *,
    controls: Mapping[str, float] | None = None,
    replicates: int = 5,
    dense: int = 3,
    sd: float = 0.001,
    seed: int = 0,
    iterations: tuple[int, int] | None = None,
) -> Results:
    """Draw a study: ``gaps`` maps density -> ticket minus dense, ``controls`` name -> ticket minus control."""
    rng = np.random.default_rng(seed)

    def run(accuracy: float, iteration: int | None) -> Run:
        value = float(accuracy + sd * rng.standard_normal())
        if iteration is None:
            return Run(value)
        return Run(value, value - 0.001, round(iteration * float(np.exp(0.02 * rng.standard_normal()))))

    fast, slow = iterations or (None, None)
    dense_runs = tuple(tuple(run(0.97, slow) for _ in range(dense)) for _ in range(replicates))
    levels = []
    for density, gap in gaps.items():
        arms = {"ticket": tuple(run(0.97 + gap, fast) for _ in range(replicates))}
        for name, above in (controls or {}).items():
            arms[name] = tuple(run(0.97 + gap - above, slow) for _ in range(replicates))
        levels.append(LevelResults(density, arms))
    return Results(tuple(range(replicates)), dense_runs, tuple(levels))


@pytest.fixture
def study() -> Study:
    """Return a function that draws a study."""
    return _study
