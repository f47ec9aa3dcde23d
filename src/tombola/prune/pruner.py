"""The composition: a criterion, an allocation, a schedule and a rewind make a pruner."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import final

from torch import Tensor

from tombola.errors import EmptiedLayer, InvalidValue
from tombola.prune.allocation import Allocation, Global, LayerRates
from tombola.prune.counting import Counts, Shapes, at_least, size_of
from tombola.prune.criteria import magnitude
from tombola.prune.criteria.known import Compensate
from tombola.prune.dynamic import Updates
from tombola.prune.evidence import Criterion, Evidence, scored
from tombola.prune.masks import check, counts, ones, sizes
from tombola.prune.rewinding import Rewind, fine_tune, rewind_to_init
from tombola.prune.schedules import Schedule, ladder
from tombola.prune.schedules import one_shot as one_shot_schedule
from tombola.prune.select import select
from tombola.prune.structure import Structure
from tombola.types import Masks, Params, ScoreRule


@final
@dataclass(frozen=True)
class During:
    """Masks that change while the network trains.

    Attributes:
        updates: gives the changes of a run that is to end with these counts in the tensors.
        starts_dense: a run starts with all weights; otherwise with a level's mask.
        rewinds: the mask it ends with is put on the start values, and that is trained again: a ticket.
        scores: what is trained, and pruned, are scores and not the weights; ``None`` for the weights.
    """

    updates: Callable[[Counts], Updates]
    starts_dense: bool
    rewinds: bool = False
    scores: ScoreRule | None = None


@final
@dataclass(frozen=True)
class Pruner:
    """How a subnetwork is found.

    Attributes:
        criterion: scores the weights.
        allocation: divides a level's total among the tensors.
        schedule: says how much each level cuts.
        rewind: says what the survivors restart from.
        from_dense: every level cuts the dense run directly (one-shot); otherwise each cuts the last level's survivors.
        at_init: every level cuts the initial network, before anything is trained.
        during: masks change while a level's network trains; its initial ones are then made as ``at_init``.
        structure: what is kept or pruned together; ``None`` for single weights.
        compensate: changes the survivors of a cut to make up for the deleted, where they keep their trained weights.
        recalibrate: batch norm's statistics are taken anew after a cut whose survivors keep their trained weights.
        looks: the criterion looks at the network and at data, not at weights alone.
        moved: the criterion needs what training accumulates.
        min_keep: keep at least this many weights in every tensor, taking them from the largest ones; 0 stops with an
            error when a tensor would be emptied.
    """

    criterion: Criterion = magnitude
    allocation: Allocation = field(default_factory=LayerRates)
    schedule: Schedule = field(default_factory=ladder)
    rewind: Rewind = field(default_factory=rewind_to_init)
    from_dense: bool = False
    at_init: bool = False
    during: During | None = None
    structure: Structure | None = None
    compensate: Compensate | None = None
    recalibrate: bool = False
    looks: bool = False
    moved: bool = False
    min_keep: int = 0

    def __post_init__(self) -> None:
        if self.min_keep < 0:
            raise InvalidValue(f"min_keep is {self.min_keep}; it is a number of weights, 0 for no minimum.")

    def plan(self, shapes: Shapes, levels: int) -> tuple[dict[str, int], ...]:
        """Count what each level will keep, before anything is trained.

        Args:
            shapes: name -> shape of each prunable tensor.
            levels: how many cuts.

        Returns:
            One name -> count per level, level 0 (dense) first. The sums are those of the masks to come; under an
            allocation by score the division among tensors is provisional.

        Raises:
            ImpossibleDensity: a level would keep nothing, more than the level before, or less than ``min_keep`` in
                every tensor takes.
            EmptiedLayer: a tensor would be left without weights.
        """
        planned = [{name: size_of(shape) for name, shape in shapes.items()}]
        for level in range(1, levels + 1):
            cut = self.schedule(level)
            if self.structure is None:
                counted = self.allocation.plan(shapes, planned[-1], cut)
            else:
                counted = self.structure.plan(shapes, planned[-1], cut, self.allocation)
            planned.append(self._filled(counted, planned[-1]))
        return tuple(planned)

    @property
    def keeps_start_values(self) -> bool:
        """Whether what is found is a ticket: survivors that train from early values under a mask that stays."""
        return self.rewind.keeps_start_values and (self.during is None or self.during.rewinds)

    @property
    def each_from_dense(self) -> bool:
        """Whether a level's mask is made from the dense network, trained or not, and not from the level before."""
        return self.from_dense or self.at_init or self.during is not None

    def prune(self, level: int, params: Params, masks: Masks, evidence: Evidence) -> dict[str, Tensor]:
        """Make the mask of a level.

        Args:
            level: 1 or more.
            params: the trained weights: of the level before, or of the dense run where ``from_dense``; the initial ones
                where ``at_init``.
            masks: the masks they were trained under, over the prunable tensors.
            evidence: what else the criterion looks at; ``generator`` breaks ties.

        Returns:
            name -> bool tensor; nested in ``masks``.

        Raises:
            InvalidValue: the level is below 1.
            InvalidScores: the criterion gave NaN, or broke its contract in another way.
            ShapeMismatch: scores or masks of another shape than their parameter.
            ImpossibleDensity: fewer weights are left than the level keeps.
            EmptiedLayer: a tensor would lose all its weights and ``min_keep`` is 0.
        """
        if level < 1:
            raise InvalidValue(f"level {level} is not made by pruning: 0 is the dense network, cuts count from 1.")
        check(params, masks)
        planned = self.plan({name: tuple(mask.shape) for name, mask in masks.items()}, level)[level]
        aimed = replace(evidence, density=sum(planned.values()) / sum(sizes(masks).values()))
        scores = scored(self.criterion, params, masks, aimed)
        if self.structure is not None:
            return self.structure.choose(scores, masks, planned, evidence.generator)
        placed = self.allocation.place(scores, masks, planned, evidence.generator)
        return select(scores, self._filled(placed, counts(masks)), evidence.generator)

    def prune_dense(self, level: int, params: Params, names: Sequence[str], evidence: Evidence) -> dict[str, Tensor]:
        """Make the mask of a level by one cut of dense weights, whatever the strategy."""
        return self.prune(level, params, ones(params, names), evidence)

    def survivors(self, params: Params, before: Masks, after: Masks, evidence: Evidence) -> Params:
        """Give what trained weights become by a cut, before the mask is put on."""
        return params if self.compensate is None else self.compensate(params, before, after, evidence)

    def _filled(self, planned: Counts, alive: Counts) -> dict[str, int]:
        """Keep the stated minimum, and refuse an emptied tensor."""
        # Whole units have counts of their own, which single weights cannot be added to.
        filled = at_least(planned, self.min_keep, alive) if self.structure is None else dict(planned)
        for name, count in filled.items():
            if count == 0:
                raise EmptiedLayer(
                    f"the cut would empty {name!r}: 0 of its {alive[name]} weights would be left, and nothing passes "
                    "an empty layer. Prune less, choose another allocation (erk and lamp spare small layers), or ask "
                    "for a minimum per layer (--min-keep 1; in Python min_keep=1)."
                )
        return filled


def imp(
    rate: float | str | Fraction = Fraction(1, 5),
    *,
    criterion: Criterion = magnitude,
    allocation: Allocation | None = None,
    rewind: Rewind | None = None,
    schedule: Schedule | None = None,
) -> Pruner:
    """Train, prune ``rate`` of the survivors, reset the rest to their initial values, repeat.

    Iterative magnitude pruning: Frankle & Carbin (2019), section 2, strategy 1.

    Args:
        rate: fraction of the *surviving* weights to remove in a round, in (0, 1).
        criterion: scores the weights.
        allocation: divides a cut among the tensors; by default, every tensor at the same rate.
        rewind: what the survivors restart from; by default theta_0.
        schedule: takes the place of ``rate``.

    Raises:
        InvalidValue: a rate out of range.
    """
    return Pruner(
        criterion=criterion,
        allocation=allocation or LayerRates(),
        schedule=schedule or ladder(rate),
        rewind=rewind or rewind_to_init(),
    )


def one_shot(
    density: float | str | Fraction = Fraction(1, 5),
    *,
    criterion: Criterion = magnitude,
    allocation: Allocation | None = None,
    rewind: Rewind | None = None,
    schedule: Schedule | None = None,
) -> Pruner:
    """Train, prune once to ``density``, reset the survivors to their initial values.

    One-shot pruning: Frankle & Carbin (2019), section 1, steps 1 to 4. With a schedule of several levels, each of them
    is one cut of the same dense run.

    Args:
        density: fraction of the *original* prunable weights to keep, in (0, 1].
        criterion: scores the weights.
        allocation: divides a cut among the tensors; by default, every tensor at the same rate.
        rewind: what the survivors restart from; by default theta_0.
        schedule: takes the place of ``density``.

    Raises:
        ImpossibleDensity: a density out of range.
    """
    return Pruner(
        criterion=criterion,
        allocation=allocation or LayerRates(),
        schedule=schedule or one_shot_schedule(density),
        rewind=rewind or rewind_to_init(),
        from_dense=True,
    )


def train_prune_finetune(
    rate: float | str | Fraction = Fraction(1, 5),
    *,
    criterion: Criterion = magnitude,
    allocation: Allocation | None = None,
    schedule: Schedule | None = None,
    extra: int | None = None,
) -> Pruner:
    """Train, remove the superfluous, fine-tune what is left, repeat.

    Han et al. (2015), section 3: the survivors keep their trained weights.

    Args:
        rate: fraction of the *surviving* weights to remove in a round, in (0, 1).
        criterion: scores the weights.
        allocation: divides a cut among the tensors; by default, every tensor at the same rate.
        schedule: takes the place of ``rate``.
        extra: iterations of each fine-tuning; ``None`` for as many as the dense run had.

    Raises:
        InvalidValue: a rate out of range, or no iterations.
    """
    return Pruner(
        criterion=criterion,
        allocation=allocation or LayerRates(),
        schedule=schedule or ladder(rate),
        rewind=fine_tune(extra),
    )


def prune_at_init(
    density: float | str | Fraction = Fraction(1, 5),
    *,
    criterion: Criterion,
    allocation: Allocation | None = None,
    schedule: Schedule | None = None,
) -> Pruner:
    """Prune the initial network before anything is trained, then train what is left.

    Lee et al. (2019), Algorithm 1, with whatever criterion. With a schedule of several levels, each of them is one cut
    of the same initial network.

    Args:
        density: fraction of the *original* prunable weights to keep, in (0, 1].
        criterion: scores the initial weights.
        allocation: divides a cut among the tensors; by default the ranking of all tensors together, as the papers'.
        schedule: takes the place of ``density``.

    Raises:
        ImpossibleDensity: a density out of range.
    """
    return Pruner(
        criterion=criterion,
        allocation=allocation or Global(),
        schedule=schedule or one_shot_schedule(density),
        at_init=True,
    )
