"""Linear mode connectivity: the barrier by hand, batch norm measured again, and the smallest stable step."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tombola.analysis.connectivity import Path, path, smallest_stable_step
from tombola.errors import InvalidValue, ShapeMismatch
from tombola.models import initial
from tombola.train.recalibrate import recalibrated
from tombola.types import Seed, Snapshot


def at(*values: float) -> Snapshot:
    return Snapshot(0, {"w": torch.tensor(values, dtype=torch.float64)})


def basins(snapshot: Snapshot) -> float:
    """Two basins at -1 and 1, with the analytic barrier 1 between them: (w^2 - 1)^2."""
    return float((snapshot.params["w"] ** 2 - 1).square().sum())


def test_a_convex_error_has_no_barrier() -> None:
    """Between ends of one height; between others it is half their difference, which no path goes below."""
    found = path(at(3.0, 1.0), at(-1.0, 3.0), lambda s: float(s.params["w"].square().sum()))
    assert len(found.alphas) == 30
    assert found.barrier == 0
    assert found.stable()
    assert path(at(3.0), at(1.0), lambda s: float(s.params["w"].square())).barrier == (9 - 1) / 2


def test_two_basins_have_the_analytic_barrier() -> None:
    found = path(at(1.0), at(-1.0), basins, 31)
    assert found.barrier == pytest.approx(1.0)
    assert found.alphas == tuple(i / 30 for i in range(31))
    assert not found.stable()


def test_the_barrier_is_over_the_mean_of_both_ends() -> None:
    """By hand: .30 at most, and the ends have .10 and .06."""
    found = Path((0.0, 0.5, 1.0), (0.10, 0.30, 0.06))
    assert found.barrier == pytest.approx(0.22)
    assert Path((0.0, 1.0), (0.10, 0.07)).stable()
    assert not Path((0.0, 1.0), (0.10, 0.06)).stable(), "two percent is not below two percent"


def test_alpha_one_is_the_first_network() -> None:
    found = path(at(math.inf), at(2.0), lambda s: float(s.params["w"]), 2)
    assert found.errors == (2.0, math.inf)
    assert path(at(8.0), at(4.0), lambda s: float(s.params["w"]), 5).errors == (4.0, 5.0, 6.0, 7.0, 8.0)


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def test_statistics_are_measured_again_at_every_point_and_never_mixed() -> None:
    first = initial(batch_norm, Seed(0))
    second = initial(batch_norm, Seed(1))
    second = replace(second, buffers={**second.buffers, "1.running_mean": torch.ones(4)})
    with pytest.raises(InvalidValue, match=r"differ in 1 buffers, such as '1\.running_mean'"):
        path(first, second, lambda _: 0.0)
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    seen = []

    def evaluate(snapshot: Snapshot) -> float:
        hidden = x @ snapshot.params["0.weight"].T + snapshot.params["0.bias"]
        seen.append(float((snapshot.buffers["1.running_mean"] - hidden.mean(0)).abs().max()))
        return 0.0

    path(first, second, evaluate, 5, recalibrate=lambda s: recalibrated(batch_norm, s, {}, [x]))
    assert len(seen) == 5
    assert max(seen) < 1e-5


def test_networks_of_two_kinds_are_not_connected() -> None:
    with pytest.raises(ShapeMismatch, match="the parameter 'w' has shape"):
        path(at(1.0), at(1.0, 2.0), basins)
    with pytest.raises(ShapeMismatch, match="only one of the two networks has the parameter v"):
        path(at(1.0), Snapshot(0, {"w": torch.ones(1), "v": torch.ones(1)}), basins)
    with pytest.raises(InvalidValue, match="a path of 1 points"):
        path(at(1.0), at(1.0), basins, 1)


@given(st.integers(0, 50), st.integers(0, 3000), st.integers(0, 4000))
def test_bisection_finds_the_step_and_looks_at_few(first: int, length: int, turn: int) -> None:
    last = first + length
    found = smallest_stable_step(lambda step: 0.019 if step >= turn else 0.5, last, first)
    assert found.step == (max(first, turn) if turn <= last else None)
    assert len(found.seen) <= 2 + math.ceil(math.log2(max(length, 1)))
    assert len(dict(found.seen)) == len(found.seen), "none is trained twice"


def test_without_monotony_the_step_is_stable_and_one_before_is_not() -> None:
    unstable = {0, 1, 2, 5, 6, 9}
    found = smallest_stable_step(lambda step: 0.1 if step in unstable else 0.0, 12)
    assert found.step is not None
    assert dict(found.seen)[found.step] == 0.0
    assert found.step - 1 in unstable


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(InvalidValue, match="the last step, 1, lies before the first, 2"):
        smallest_stable_step(lambda _: 0.0, 1, 2)
    with pytest.raises(InvalidValue, match="the instability at step 0 is NaN"):
        smallest_stable_step(lambda _: math.nan, 4)
