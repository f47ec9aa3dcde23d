"""N:M: in every M neighbours along the input, N are kept."""

from dataclasses import dataclass
from fractions import Fraction
from typing import final

import torch
from torch import Tensor

from tombola.errors import ImpossibleDensity, InvalidValue
from tombola.prune.allocation.base import Allocation
from tombola.prune.counting import Counts, Cut, Shapes, size_of
from tombola.prune.select import select
from tombola.types import Masks, Scores


@final
@dataclass(frozen=True)
class NM:
    """Keep the best N of every M consecutive weights along the input.

    Zhou et al. (2021), section 3; 2:4 is what the sparse matrix units of graphics processors run. The input is axis 1:
    the columns of a linear layer, the input channels of a convolution at each place of its kernel. Where its length is
    no multiple of M, the last weights of it are in no group and stay, and so do tensors of one axis.

    The first level is the pattern, exactly N in every group, whatever the schedule's rate; of a density, N/M asks for
    it. Later levels prune single weights inside the pattern, and so does a first one that keeps less.

    Attributes:
        keep: N, at least 1.
        of: M, above N.

    Raises:
        InvalidValue: numbers out of range.
    """

    keep: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.keep < self.of:
            raise InvalidValue(f"the structure {self.name} keeps {self.keep} of {self.of}. Keep 1 to M - 1, as in 2:4.")

    @property
    def name(self) -> str:
        """``N:M``."""
        return f"{self.keep}:{self.of}"

    def pattern(self, shapes: Shapes) -> dict[str, int]:
        """Count what the pattern keeps in each tensor.

        Example:
            >>> NM(2, 4).pattern({"fc": (3, 10), "bias": (3,)})
            {'fc': 18, 'bias': 3}
        """
        return {name: size_of(shape) - self._pruned(shape) for name, shape in shapes.items()}

    def plan(self, shapes: Shapes, planned_before: Counts, cut: Cut, allocation: Allocation) -> dict[str, int]:
        """Give the pattern first, then what the allocation keeps inside it.

        See :class:`~tombola.prune.structure.base.Structure`.

        Raises:
            ImpossibleDensity: more than the pattern is asked for, or more than is left.
            InvalidValue: no tensor has M inputs.
        """
        pattern = self.pattern(shapes)
        sizes = {name: size_of(shape) for name, shape in shapes.items()}
        if pattern == sizes:
            raise InvalidValue(
                f"the pattern {self.name} leaves everything: no prunable tensor has {self.of} inputs. Take a smaller "
                "M, or prune single weights."
            )
        first = any(planned_before[name] > count for name, count in pattern.items())
        left = {name: min(count, planned_before[name]) for name, count in pattern.items()}
        if (first and cut.rate is not None) or (cut.density == self._density and left == pattern):
            return left
        if first:
            total, size = cut.total(sum(sizes.values()), sum(sizes.values())), sum(sizes.values())
            if total > sum(pattern.values()):
                raise ImpossibleDensity(
                    f"the first cut keeps {total} of {size} weights ({total / size:.4g}), and {self.name} leaves "
                    f"{sum(pattern.values())}. The first level is the pattern: ask for the density {self._written} "
                    f"(--densities {self._written}), or for less."
                )
        return allocation.plan(shapes, left, cut)

    def choose(
        self, scores: Scores, masks: Masks, planned: Counts, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Keep the best N of every group, and of these the best; see the contract.

        Raises:
            ImpossibleDensity: more is planned than the pattern leaves.
        """
        inside = {}
        for name, score in scores.items():
            kept = self._best(score, generator) & masks[name]
            inside[name] = score.masked_fill(~kept, -torch.inf)
        return select(inside, planned, generator)

    @property
    def _density(self) -> Fraction:
        return Fraction(self.keep, self.of)

    @property
    def _written(self) -> str:
        short = f"{float(self._density):g}"
        return short if Fraction(short) == self._density else f"{self.keep}/{self.of}"

    def _pruned(self, shape: tuple[int, ...]) -> int:
        if len(shape) < 2:
            return 0
        return size_of(shape) // shape[1] * (shape[1] // self.of) * (self.of - self.keep) if shape[1] else 0

    def _best(self, score: Tensor, generator: torch.Generator | None) -> Tensor:
        """Mark the best N of every group, and what is in none."""
        found = torch.ones_like(score, dtype=torch.bool)
        if score.dim() < 2 or score.shape[1] < self.of:
            return found
        whole = score.shape[1] // self.of * self.of
        last = score.movedim(1, -1)[..., :whole]
        groups = last.reshape(-1, self.of)
        if bool((torch.count_nonzero(groups > -torch.inf, dim=1) <= self.keep).all()):
            # The pattern is there already, and to sort all groups would take longer than all else.
            return found
        marks = torch.zeros_like(groups, dtype=torch.bool)
        marks.scatter_(1, _order(groups, self.keep, generator)[:, : self.keep], True)
        found.movedim(1, -1)[..., :whole] = marks.reshape(last.shape)
        return found


def _order(groups: Tensor, keep: int, generator: torch.Generator | None) -> Tensor:
    """Sort each row, best first; equal scores by position, or at random where that decides what is kept."""
    order = groups.argsort(dim=1, descending=True, stable=True)
    if generator is None:
        return order
    ranked = groups.gather(1, order)
    tied = (ranked[:, keep - 1] == ranked[:, keep]) & (ranked[:, keep] > -torch.inf)
    rows = tied.nonzero().reshape(-1)
    if rows.numel():
        drawn = torch.rand(rows.numel(), groups.shape[1], generator=generator).to(groups.device).argsort(dim=1)
        again = groups[rows].gather(1, drawn).argsort(dim=1, descending=True, stable=True)
        order[rows] = drawn.gather(1, again)
    return order
