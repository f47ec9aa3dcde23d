"""Subset sums: the nearest is the nearest, whoever computes it; and a layer is solved or says that it is not."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.strong.kernels import library, reference
from tombola.strong.subset_sum import MOST, Solved, ladder_for, nearest, solve

COMPILED = pytest.mark.skipif(not library.available(), reason="the compiled solver is not here")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOMBOLA_KERNELS", "none")
    assert not library.available()


def problems(count: int, rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Products of U[0, 1] and U[-1, 1], and targets from U[-1/2, 1/2]."""
    rng = torch.Generator().manual_seed(seed)
    u, v = torch.rand(rows, count, generator=rng), torch.rand(rows, count, generator=rng) * 2 - 1
    return u.double() * v.double(), torch.rand(rows, generator=rng, dtype=torch.float64) - 0.5


def brute(items: Tensor, targets: Tensor) -> Tensor:
    codes = torch.arange(1 << items.shape[1])
    members = (codes[:, None] >> torch.arange(items.shape[1]) & 1).double()
    return (items @ members.T - targets[:, None]).abs().min(1).values


@pytest.mark.parametrize("count", range(15))
def test_the_error_is_that_of_trying_every_subset(count: int) -> None:
    items, targets = problems(count, 100, count)
    found = nearest(items, targets)
    assert (found.errors - brute(items, targets)).abs().max() < 1e-12
    members = (found.codes[:, None] >> torch.arange(count) & 1).double()
    assert torch.equal(found.sums, (items * members).sum(1)), "the code decodes to its sum"
    assert torch.equal(found.errors, (found.sums - targets).abs())
    assert bool((found.codes < 1 << count).all())


@pytest.mark.parametrize(("count", "rows"), [(15, 4), (20, 3)])
def test_a_solver_of_integer_programs_finds_nothing_nearer(count: int, rows: int) -> None:
    """HiGHS: least t with -t <= x'm - w <= t over m in {0, 1}; its gaps are closed, or they are as large as t."""
    items, targets = (one.numpy() for one in problems(count, rows, 3))
    found = nearest(torch.from_numpy(items), torch.from_numpy(targets)).errors
    scale = 1e6  # feasibility is kept to 1e-6 and the errors are as small, so in other units they are not
    for row in range(rows):
        both = np.vstack([np.append(items[row] * scale, -1), np.append(items[row] * scale, 1)])
        answer = milp(
            np.append(np.zeros(count), 1.0),
            constraints=LinearConstraint(both, [-np.inf, targets[row] * scale], [targets[row] * scale, np.inf]),
            integrality=np.append(np.ones(count), 0),
            bounds=Bounds(np.zeros(count + 1), np.append(np.ones(count), np.inf)),
            options={"mip_rel_gap": 0.0},
        )
        assert answer.success
        chosen = np.round(answer.x[:count])
        assert float(found[row]) <= abs(items[row] @ chosen - targets[row]) + 1e-12
        assert float(found[row]) == pytest.approx(answer.fun / scale, abs=2e-9)


@COMPILED
@pytest.mark.parametrize("count", [0, 1, 2, 7, 12, 19, 22])
def test_the_compiled_solver_gives_the_codes_of_the_plain_one(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items, targets = problems(count, 40, 5)
    fast = nearest(items, targets)
    monkeypatch.setenv("TOMBOLA_KERNELS", "none")
    assert torch.equal(fast.codes, nearest(items, targets).codes)


@COMPILED
def test_equally_near_subsets_are_told_apart_by_one_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few values, so that most sums occur many times over."""
    rng = torch.Generator().manual_seed(1)
    items = torch.randint(-2, 3, (500, 11), generator=rng).double() / 4
    targets = torch.randint(-9, 10, (500,), generator=rng).double() / 8
    fast = nearest(items, targets)
    monkeypatch.setenv("TOMBOLA_KERNELS", "none")
    assert torch.equal(fast.codes, nearest(items, targets).codes)
    assert torch.equal(fast.errors, brute(items, targets))


def test_thirty_candidates_and_rows_of_any_size_come_near() -> None:
    items, targets = problems(MOST, 12)
    assert nearest(items, targets).errors.max() < 1e-6
    factor = torch.tensor([1e-12, 1.0, 1e12], dtype=torch.float64)[torch.arange(12) % 3]
    scaled = nearest(items[:, :12] * factor[:, None], targets * factor)
    whole = nearest(items[:, :12], targets)
    assert torch.allclose(scaled.errors / factor, whole.errors, atol=1e-12), "each row has a fixed point of its own"


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_neither_threads_nor_company_change_an_answer(threads: int) -> None:
    items, targets = problems(9, 9000)
    whole = nearest(items, targets, threads=threads)
    assert torch.equal(whole.codes, nearest(items, targets).codes)
    assert torch.equal(whole.codes[8500:], nearest(items[8500:], targets[8500:]).codes)


@pytest.mark.usefixtures("plain")
def test_the_plain_solver_alone_does_it_all() -> None:
    items, targets = problems(13, 50)
    assert (nearest(items, targets).errors - brute(items, targets)).abs().max() < 1e-12
    assert nearest(items[:0], targets[:0]).codes.shape == (0,)


def test_nothing_to_choose_from_and_nothing_to_reach() -> None:
    assert nearest(torch.zeros(2, 0).double(), torch.tensor([0.0, -0.5]).double()).errors.tolist() == [0.0, 0.5]
    assert nearest(torch.zeros(2, 5).double(), torch.zeros(2).double()).errors.tolist() == [0.0, 0.0]
    assert nearest(torch.zeros(0, 5).double(), torch.zeros(0).double()).codes.shape == (0,)


@pytest.mark.parametrize(
    ("items", "targets", "error", "says"),
    [
        (torch.zeros(2, 3).double(), torch.zeros(3).double(), ShapeMismatch, "expected \\[rows, n\\]"),
        (torch.zeros(3).double(), torch.zeros(3).double(), ShapeMismatch, "expected \\[rows, n\\]"),
        (torch.zeros(1, 31).double(), torch.zeros(1).double(), InvalidValue, "at most 30"),
        (torch.zeros(1, 3), torch.zeros(1).double(), InvalidValue, "candidates are torch.float32"),
        (torch.full((1, 3), math.nan).double(), torch.zeros(1).double(), InvalidValue, "3 of 3 candidates"),
        (torch.zeros(1, 3).double(), torch.full((1,), math.inf).double(), InvalidValue, "1 of 1 targets"),
    ],
)
def test_what_is_no_problem_is_refused(items: Tensor, targets: Tensor, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        nearest(items, targets)


def layer(groups: int = 6, count: int = 40, columns: int = 9, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    u = torch.rand(groups, count, generator=rng) * 2 - 1
    v = torch.rand(groups, count, columns, generator=rng) * 2 - 1
    return u, v, torch.rand(groups, columns, generator=rng, dtype=torch.float64) - 0.5


def effective(found: Solved, u: Tensor, v: Tensor) -> Tensor:
    return (found.masks().double() * u[:, :, None].double() * v.double()).sum(1)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("error", [1e-2, 1e-4])
def test_the_masks_of_a_layer_add_up_to_its_weights(sign: int, error: float) -> None:
    u, v, targets = layer(count=72)
    found = solve(u, v, targets, error, sign=sign)
    assert found.unresolved == 0
    assert found.errors.max() <= error
    assert torch.allclose(effective(found, u, v), found.effective, atol=1e-14)
    assert torch.equal((found.effective - targets).abs(), found.errors)
    masks = found.masks()
    assert found.kept == int(masks.sum())
    assert not bool(masks[(u * sign <= 0)].any()), "a neuron that passes nothing on is not kept"


def test_a_weight_within_the_error_of_zero_costs_nothing() -> None:
    u, v, targets = layer()
    targets[0] = 0
    targets[1] = 0.009
    found = solve(u, v, targets, 1e-2)
    assert not found.codes[:2].any()
    assert not found.tried[:2].any()
    assert not found.masks()[:2].any()
    assert found.codes[2:].bool().any(1).all()


def test_more_candidates_are_tried_for_what_fewer_do_not_reach_alone() -> None:
    u, v, targets = layer(20, 70, 50)
    ladder = (8, 12, 20)
    found = solve(u, v, targets, 1e-3, ladder=ladder)
    assert set(found.tried.flatten().tolist()) <= {0, *ladder}
    once = (found.tried == 8) & (found.first == 0)
    assert bool(once.any())
    assert bool((found.errors[once] <= 1e-3).all())
    for rung, fewer in ((12, 8), (20, 12)):
        later = (found.tried == rung) & (found.first == 0)
        before = solve(u, v, targets, 1e-12, ladder=(fewer,))
        top = later & (before.first == 0)
        assert bool(top.any())
        assert bool((before.errors[top] > 1e-3).all())


def test_the_largest_candidates_come_first() -> None:
    u, v, targets = layer()
    found = solve(u, v, targets, 1e-3, ladder=(10,))
    for group in range(len(u)):
        best = u[group].clamp(min=0).topk(10).indices
        kept = found.masks()[group][:, found.first[group] == 0].any(1).nonzero().flatten()
        assert set(kept.tolist()) <= set(best.tolist())
        assert len(kept) > 5


def test_other_candidates_are_tried_where_the_largest_do_not_reach() -> None:
    u, v, targets = layer(30, 72, 60)
    found = solve(u, v, targets, 1e-2, ladder=(6,))
    assert bool((found.first > 0).any())
    assert found.unresolved < 0.04 * targets.numel(), "six at a time reach a third at once, and nearly all in the end"
    assert torch.allclose(effective(found, u, v), found.effective, atol=1e-14)
    assert torch.equal((found.effective - targets).abs(), found.errors)
    many = (u > 0).sum(1)
    assert bool((found.first + 6 <= many[:, None])[found.first > 0].all()), "further down, lists are whole"


def test_what_is_not_reached_is_said_and_the_best_is_kept() -> None:
    u, v, targets = layer(count=6)
    u[0] = -u[0].abs()
    found = solve(u, v, targets, 1e-6)
    assert found.unresolved > 0
    assert found.unresolved == int((found.errors > 1e-6).sum())
    assert torch.equal(found.errors[0], targets[0].abs()), "nobody passes anything on in the first group"
    assert not found.masks()[0].any()
    assert (found.errors <= targets.abs()).all()


def test_progress_ends_where_everything_is_done() -> None:
    u, v, targets = layer()
    heard: list[tuple[int, int]] = []
    solve(u, v, targets, 1e-3, told=lambda done, total: heard.append((done, total)))
    assert heard == sorted(heard)
    assert heard[-1] == (54, 54)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"error": 0.0}, InvalidValue, "the error to reach is 0.0"),
        ({"error": math.nan}, InvalidValue, "the error to reach is nan"),
        ({"ladder": (8, 8)}, InvalidValue, "the ladder is"),
        ({"ladder": ()}, InvalidValue, "the ladder is"),
        ({"ladder": (31,)}, InvalidValue, "the ladder is"),
        ({"u": torch.zeros(6, 40).double()}, InvalidValue, "u are torch.float64"),
        ({"v": torch.full((6, 40, 9), math.nan)}, InvalidValue, "2160 of 2160 v are not finite"),
        ({"targets": torch.zeros(6, 8).double()}, ShapeMismatch, "expected \\[groups, N\\]"),
    ],
)
def test_a_layer_that_is_none_is_refused(change: dict[str, object], error: type[Exception], says: str) -> None:
    u, v, targets = layer()
    with pytest.raises(error, match=says):
        solve(**{"u": u, "v": v, "targets": targets, "error": 1e-3, **change})  # type: ignore[arg-type]


def test_a_ladder_begins_where_the_law_has_most_weights() -> None:
    assert [ladder_for(10.0**-k)[0] for k in (2, 3, 4, 5)] == [7, 10, 14, 17]
    assert all(ladder_for(10.0**-k)[-1] == MOST for k in range(1, 12))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_the_same_codes() -> None:
    items, targets = problems(16, 500)
    assert torch.equal(nearest(items.cuda(), targets.cuda()).codes.cpu(), nearest(items, targets).codes)


def test_the_reference_is_one_algorithm_on_every_device() -> None:
    """Split into few rows at a time it is what it is in one piece."""
    items = torch.randint(-(1 << 40), 1 << 40, (70, 12))
    targets = torch.randint(-(1 << 40), 1 << 40, (70,))
    whole = reference.nearest(items, targets, 6)
    assert torch.equal(whole, torch.cat([reference.nearest(items[k : k + 7], targets[k : k + 7], 6)
                                         for k in range(0, 70, 7)]))  # fmt: skip


def test_a_broken_library_is_no_library() -> None:
    """Another file in its place: the plain solver is used, and nobody is hurt."""
    program = (
        "import tombola.strong.kernels.library as l, pathlib, sys\nl.__file__ = sys.argv[1]\nprint(l.available())\n"
    )
    from importlib.machinery import EXTENSION_SUFFIXES
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        from pathlib import Path

        (Path(folder) / f"_subset{EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF nonsense")
        said = subprocess.run(
            [sys.executable, "-c", program, str(Path(folder) / "library.py")],
            capture_output=True,
            text=True,
            check=True,
        )
    assert said.stdout.strip() == "False"
