"""Gradual pruning: a little at a time while the network trains, by a cubic most of it early."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, final

import torch

from tombola.errors import EmptiedLayer, InvalidValue
from tombola.prune.allocation import Allocation, LayerRates
from tombola.prune.counting import Counts, at_least, half_up
from tombola.prune.criteria.magnitude import magnitude
from tombola.prune.dynamic.base import check_positions, identity
from tombola.prune.evidence import Criterion, Evidence, scored
from tombola.prune.masks import check, counts, kept, sizes
from tombola.prune.select import select
from tombola.types import Masks, Params, Step


@final
@dataclass(frozen=True)
class Gradual:
    r"""Gradual magnitude pruning along a cubic.

    Zhu & Gupta (2017), equation 1: :math:`s_t = s_f + (s_i - s_f)(1 - (t - t_0) / (n \Delta t))^3`. In counts a tensor
    that begins with :math:`N` weights and ends with :math:`k` keeps :math:`k + (N - k)(1 - (t - t_0) / (n \Delta
    t))^3` at position t, rounded to the nearest integer, halves upwards. Counts are exact and masks are nested: in the
    paper's code a pruned weight that was large when it was pruned can come back, here none does.

    Along a geometric sequence instead every change prunes the same share of what is left, as the freezing of
    Sreenivasan et al. (2022), Algorithm 1, does: :math:`N (k / N)^{(t - t_0) / (n \Delta t)}`.

    An allocation by score (global, LAMP) divides the sum of these counts anew at every change, so that only the total
    follows the curve.

    Attributes:
        final: name and count of each tensor at the end, as an allocation planned them.
        begin: the first position, :math:`t_0`.
        end: the last, :math:`t_0 + n \Delta t`; a job that prunes to the end stops behind it.
        every: iterations between two changes; the last of them may be shorter.
        criterion: scores the weights; of its evidence there are ``moved``, where the job accumulates it, ``density``
            and ``generator``.
        allocation: divides the total where it looks at the scores.
        initial: name and count of each tensor at the beginning; by default all of its weights.
        min_keep: keep at least this many weights in every tensor, taking them from the largest; 0 stops with an error
            where a tensor would be emptied.
        geometric: go along a geometric sequence, and not along the cubic.

    Raises:
        InvalidValue: positions that are none, or an end that is not behind the beginning; counts below 0, or of other
            tensors at the beginning than at the end, or more at the end.
    """

    final: tuple[tuple[str, int], ...]
    begin: Step
    end: Step
    every: Step = 100
    criterion: Criterion = magnitude
    allocation: Allocation = field(default_factory=LayerRates)
    initial: tuple[tuple[str, int], ...] | None = None
    min_keep: int = 0
    geometric: bool = False

    def __post_init__(self) -> None:
        check_positions(self.every, begin=self.begin, end=self.end)
        if self.end <= self.begin:
            raise InvalidValue(
                f"gradual pruning begins at {self.begin} and ends at {self.end}; the end comes behind the beginning."
            )
        first, last = dict(self.initial or self.final), dict(self.final)
        if first.keys() != last.keys() or any(not 0 <= last[name] <= first[name] for name in last):
            raise InvalidValue(
                f"the tensors keep {first} at the beginning and {last} at the end. Give the same tensors, and for each "
                "no more at the end than at the beginning."
            )
        if self.min_keep < 0:
            raise InvalidValue(f"min_keep is {self.min_keep}; it is a number of weights, 0 for no minimum.")

    @property
    def steps(self) -> tuple[Step, ...]:
        """Give the positions, ``begin`` and ``end`` among them."""
        return (*range(self.begin, self.end, self.every), self.end)

    def wants_gradient(self, step: Step) -> bool:  # noqa: ARG002
        """Say that no gradient is needed."""
        return False

    def planned(self, step: Step, sizes: Counts) -> dict[str, int]:
        """Give what each tensor keeps from a position on, by Zhu & Gupta (2017), equation 1, or geometrically.

        Args:
            step: any position; before the beginning and behind the end it is as there.
            sizes: name -> how many weights it has.

        Raises:
            InvalidValue: tensors other than those of ``final``, or of fewer weights than it keeps.

        Example:
            >>> [Gradual((("w", 20),), 0, 100, 50).planned(t, {"w": 100})["w"] for t in (0, 50, 100)]
            [100, 30, 20]
            >>> [Gradual((("w", 4),), 0, 100, 50, geometric=True).planned(t, {"w": 100})["w"] for t in (0, 50, 100)]
            [100, 20, 4]
        """
        last, first = dict(self.final), {**sizes, **dict(self.initial or ())}
        if last.keys() != sizes.keys() or any(first[name] > sizes[name] or last[name] > sizes[name] for name in last):
            raise InvalidValue(
                f"gradual pruning ends with {last}, and the masks are over tensors of {dict(sizes)} weights. Plan it "
                "for the tensors that have masks."
            )
        position = min(max(step, self.begin), self.end)
        gone = Fraction(position - self.begin, self.end - self.begin)
        if self.geometric:
            shares = {name: (last[name] / first[name]) ** float(gone) if first[name] else 0.0 for name in sizes}
            return {name: max(last[name], half_up(Fraction(first[name] * shares[name]))) for name in sizes}
        return {name: half_up(last[name] + (first[name] - last[name]) * (1 - gone) ** 3) for name in sizes}

    def update(
        self,
        step: Step,
        params: Params,
        masks: Masks,
        gradient: Params | None,  # noqa: ARG002
        moved: Params | None,
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Cut to the counts of a position; see :class:`~tombola.types.Updates`.

        Returns:
            name -> bool; nested in ``masks``, and they themselves where no more is left than the position keeps.

        Raises:
            InvalidValue: as :meth:`planned`.
            InvalidScores: the criterion broke its contract.
            MissingEvidence: the criterion needs more than there is during training.
            ImpossibleDensity: a tensor has less left than its count.
            EmptiedLayer: a tensor would lose all its weights and ``min_keep`` is 0.
        """
        check(params, masks)
        planned, alive = self.planned(step, sizes(masks)), counts(masks)
        if sum(planned.values()) >= kept(masks):
            return dict(masks)
        density = sum(planned.values()) / sum(sizes(masks).values())
        evidence = Evidence(moved=moved, generator=generator, density=density)
        scores = scored(self.criterion, params, masks, evidence)
        placed = at_least(self.allocation.place(scores, masks, planned, generator), self.min_keep, alive)
        for name, count in placed.items():
            if count == 0:
                raise EmptiedLayer(
                    f"gradual pruning would empty {name!r} at position {step}: 0 of its {alive[name]} weights would be "
                    "left, and nothing passes an empty layer. Prune less, choose another allocation (erk and lamp "
                    "spare small layers), or ask for a minimum per layer (--min-keep 1; in Python min_keep=1)."
                )
        return select(scores, placed, generator)

    def describe(self) -> Mapping[str, Any]:
        """Identify it by its fields."""
        # There were cubics before there was a choice; they are known without it.
        told = {name: value for name, value in vars(self).items() if name != "geometric" or value}
        return {"updates": "gradual", **{name: identity(value) for name, value in told.items()}}
