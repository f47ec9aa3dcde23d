"""Random subset sums: which of a few random numbers add up to a weight.

The mathematics of Lueker (1998), on which Pensia et al. (2020) and da Cunha et al. (2022) rest. Each problem is
solved exactly by meeting in the middle, Horowitz & Sahni (1974), in time and memory of 2^(n/2).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.strong.bounds import candidates
from tombola.strong.kernels import library, reference

MOST: Final = 30
"""Candidates in one problem at most: 2^15 sums a side, and a median error near 1e-9."""

_ROWS: Final = 1 << 12
_ELEMENTS: Final = 1 << 20
"""Problems that a thread solves in one call, and their sums a side."""

_AT_ONCE: Final = 1 << 16
"""Problems whose candidates are put together at once."""

_SHIFT: Final = 5
"""Candidates further down in the order, for each further attempt at a weight that no rung reaches."""

_STEPS: Final = (0, 2, 4, 6, 10, 14, 18, 22)
"""What each further rung of a ladder adds to the first."""


@final
@dataclass(frozen=True)
class Nearest:
    """The nearest subset of each problem.

    Attributes:
        codes: int64 ``[rows]``; bit k says that candidate k is in the subset.
        sums: float64 ``[rows]``, of the subsets.
        errors: float64 ``[rows]``: how far the sum is from the target.
    """

    codes: Tensor
    sums: Tensor
    errors: Tensor


def nearest(candidates: Tensor, targets: Tensor, *, threads: int = 1) -> Nearest:
    """Find the subset of each row of candidates whose sum is nearest to the row's target.

    Exact for candidates and targets rounded to fixed point, which has 61 bits less those of the code of half the
    candidates: errors are the least ones to about 1e-15 of the row's largest sum at n = 10, and 3e-12 at n = 30. The
    answer does not depend on the number of threads, on which rows come together, or on whether the compiled solver is
    there.

    Args:
        candidates: float64 ``[rows, n]``, n at most 30; on the CPU or a GPU.
        targets: float64 ``[rows]``.
        threads: how many share the work, on the CPU with the compiled solver; elsewhere torch's own.

    Raises:
        ShapeMismatch: they do not belong together.
        InvalidValue: more than 30 candidates, another dtype, or a value that is not finite.

    Example:
        >>> found = nearest(torch.tensor([[0.5, 0.25, -0.3]], dtype=torch.float64), torch.tensor([0.21]).double())
        >>> found.codes.tolist(), [round(value, 3) for value in found.errors.tolist()]
        ([5], [0.01])
    """
    if candidates.dim() != 2 or targets.shape != candidates.shape[:1]:
        raise ShapeMismatch(
            f"candidates have shape {tuple(candidates.shape)} and targets {tuple(targets.shape)}; expected [rows, n] "
            "and [rows]."
        )
    _check(candidates, "candidates")
    _check(targets, "targets")
    count = candidates.shape[1]
    if count > MOST:
        raise InvalidValue(
            f"there are {count} candidates for each target, and this solver takes at most {MOST}: its work doubles "
            "with every second one. Choose among them, such as the largest."
        )
    bits = max(1, count - count // 2)
    if candidates.device.type != "cpu" or not library.available():
        return _decoded(candidates, targets, reference.nearest(*_fixed(candidates, targets, bits), bits))

    def work(part: slice) -> Nearest:
        items, aims = _fixed(candidates[part], targets[part], bits)
        codes = torch.empty(len(aims), dtype=torch.int64)
        library.nearest(items, aims, bits, codes)
        return _decoded(candidates[part], targets[part], codes)

    # Some hundredths of a second each, so that every thread has a part to the end.
    rows = min(_ROWS, max(16, _ELEMENTS >> bits))
    parts = [slice(at, at + rows) for at in range(0, len(targets), rows)] or [slice(0, 0)]
    found = list(_spread(work, parts, threads))
    return Nearest(*(torch.cat([getattr(one, name) for one in found]) for name in ("codes", "sums", "errors")))


def _decoded(candidates: Tensor, targets: Tensor, codes: Tensor) -> Nearest:
    sums = (candidates * _members(codes, candidates.shape[1])).sum(1)
    return Nearest(codes, sums, (sums - targets).abs())


@final
@dataclass(frozen=True)
class Solved:
    """Which candidates of a random layer stand for each of its weights.

    Attributes:
        codes: int64 ``[groups, columns]``; bit r says that candidate ``order[group, first + r]`` is in the subset.
        first: int64 ``[groups, columns]``; above 0 where the largest candidates gave no sum that is near enough.
        order: int64 ``[groups, N]``, the candidates of each group, largest first, those of no use last.
        effective: float64 ``[groups, columns]``, the sums.
        errors: float64 ``[groups, columns]``: how far they are from the targets.
        tried: int8 ``[groups, columns]``, the candidates that were looked at; 0 where the empty subset does.
        error: what each was to reach.
    """

    codes: Tensor
    first: Tensor
    order: Tensor
    effective: Tensor
    errors: Tensor
    tried: Tensor
    error: float

    @property
    def unresolved(self) -> int:
        """How many are further from their target than they were to be."""
        return int((self.errors > self.error).sum())

    @property
    def kept(self) -> int:
        """How many candidates are kept, over all subsets."""
        return sum(int((self.codes >> bit & 1).sum()) for bit in range(MOST))

    def masks(self) -> Tensor:
        """Give the masks: bool ``[groups, N, columns]``."""
        groups, columns = self.codes.shape
        found = torch.zeros(groups, self.order.shape[1], columns, dtype=torch.bool)
        for bit in range(min(MOST, self.order.shape[1])):
            group, column = (self.codes >> bit & 1).nonzero(as_tuple=True)
            found[group, self.order[group, self.first[group, column] + bit], column] = True
        return found


def solve(
    u: Tensor,
    v: Tensor,
    targets: Tensor,
    error: float,
    *,
    sign: int = 1,
    ladder: Sequence[int] | None = None,
    threads: int = 1,
    told: Callable[[int, int], object] = lambda done, total: None,  # noqa: ARG005
) -> Solved:
    """Solve every weight of a layer as a subset sum of products.

    Pensia et al. (2020), Lemma 1: target (g, c) is to be a sum of ``u[g, k] * v[g, k, c]`` over a subset of k, where
    only candidates whose ``u`` has the sign pass anything on. The empty subset comes first, so a weight that is zero
    or within the error of it costs nothing. Then more and more candidates are tried, those of the largest ``|u|``
    first, and more only for weights that fewer do not reach: lists of too small candidates are what misses come from.
    A weight that the last rung does not reach is tried with other candidates of the group, further down in its order.

    Args:
        u: float32 ``[groups, N]``, shared by the columns of a group: the first layer's weights.
        v: float32 ``[groups, N, columns]``: the second layer's.
        targets: float64 ``[groups, columns]``.
        error: what is to be reached, in the targets' units.
        sign: 1 or -1.
        ladder: the numbers of candidates, increasing; by default :func:`ladder_for` the error.
        threads: as for :func:`nearest`.
        told: is given weights done and their total, now and then.

    Raises:
        ShapeMismatch: they do not belong together.
        InvalidValue: a value that is not finite, a dtype, an error that is not above 0, or a ladder that is none.
    """
    if u.dim() != 2 or v.shape[:2] != u.shape or v.dim() != 3 or targets.shape != (v.shape[0], v.shape[2]):
        raise ShapeMismatch(
            f"u has shape {tuple(u.shape)}, v {tuple(v.shape)} and the targets {tuple(targets.shape)}; expected "
            "[groups, N], [groups, N, columns] and [groups, columns]."
        )
    if not error > 0:
        raise InvalidValue(f"the error to reach is {error}; it is a number above 0, such as 0.001.")
    _check(targets, "targets")
    for name, value in (("u", u), ("v", v)):
        _check(value, name, torch.float32)
    rungs = ladder_for(error) if ladder is None else tuple(ladder)
    if not rungs or list(rungs) != sorted(set(rungs)) or not 1 <= rungs[0] <= rungs[-1] <= MOST:
        raise InvalidValue(f"the ladder is {list(rungs)}; it is increasing numbers of candidates, from 1 to {MOST}.")
    useful = u * sign > 0
    order = torch.where(useful, u.abs(), -1.0).argsort(dim=1, descending=True, stable=True)
    many = useful.sum(1)
    codes, first = torch.zeros(targets.shape, dtype=torch.int64), torch.zeros(targets.shape, dtype=torch.int64)
    effective, errors = torch.zeros_like(targets), targets.abs()
    tried = torch.zeros(targets.shape, dtype=torch.int8)
    last = int(many.max()) if len(many) else 0
    attempts = [(rung, 0) for rung in rungs] + [(rungs[-1], start) for start in range(_SHIFT, last, _SHIFT)]
    for rung, start in attempts:
        usable = (many - start).clamp(min=0, max=rung)[:, None]
        # Further down a list has to be whole, or it is a part of one that was tried.
        open_ = (errors > error) & ((tried < usable) if start == 0 else (usable == rung))
        for count in sorted(set(usable[open_.any(1)].flatten().tolist())):
            groups, columns = torch.nonzero(open_ & (usable == count), as_tuple=True)
            at_once = max(512, min(_AT_ONCE, 1 << (34 - count)))
            for at in range(0, len(groups), at_once):
                group, column = groups[at : at + at_once], columns[at : at + at_once]
                which = order[group, start : start + count]
                products = u[group[:, None], which].double() * v[group[:, None], which, column[:, None]].double()
                found = nearest(products, targets[group, column], threads=threads)
                better = found.errors < errors[group, column]
                group, column = group[better], column[better]
                codes[group, column], first[group, column] = found.codes[better], start
                effective[group, column], errors[group, column] = found.sums[better], found.errors[better]
                told(targets.numel() - int((errors > error).sum()), targets.numel())
            tried[groups, columns] = count
    return Solved(codes, first, order, effective, errors, tried, error)


def ladder_for(error: float) -> tuple[int, ...]:
    """Give the numbers of candidates to try for an error: from where most weights are reached, up to 30.

    Example:
        >>> ladder_for(1e-3)
        (10, 12, 14, 16, 20, 24, 28, 30)
    """
    first = min(MOST, max(4, math.ceil(candidates(error) + 0.5)))
    return tuple(sorted({MOST, *(min(MOST, first + step) for step in _STEPS)}))


def _spread(work: Callable[[slice], Nearest], parts: Sequence[slice], threads: int) -> Iterator[Nearest]:
    if threads <= 1 or len(parts) <= 1:
        yield from map(work, parts)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, parts)


def _fixed(candidates: Tensor, targets: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Write each row in a fixed point of its own: whole multiples of a power of two, whose sums are exact."""
    largest = candidates.abs().sum(1) + targets.abs()
    # One bit for the sign, and one for what rounding may add.
    shift = 61 - bits - torch.frexp(largest).exponent.to(torch.float64)
    shift = shift.clamp(max=1000.0)
    items = torch.ldexp(candidates, shift[:, None]).round().to(torch.int64)
    return items.contiguous(), torch.ldexp(targets, shift).round().to(torch.int64)


def _members(codes: Tensor, count: int) -> Tensor:
    """Give the subsets as zeros and ones: float64 ``[rows, count]``."""
    return (codes[:, None] >> torch.arange(count, device=codes.device) & 1).to(torch.float64)


def _check(values: Tensor, name: str, dtype: torch.dtype = torch.float64) -> None:
    if values.dtype is not dtype:
        raise InvalidValue(f"{name} are {values.dtype}, expected {dtype}. Convert them.")
    if not bool(values.isfinite().all()):
        bad = int((~values.isfinite()).sum())
        raise InvalidValue(
            f"{bad} of {values.numel()} {name} are not finite. A weight that is NaN or infinite is no sum."
        )
