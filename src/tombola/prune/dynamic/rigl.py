"""RigL: the weakest weights make room for those that the loss asks for most."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, final

import torch

from tombola.errors import InvalidValue, MissingEvidence
from tombola.prune.counting import exact, half_up
from tombola.prune.dynamic.base import check_positions, identity, swap
from tombola.prune.masks import check, counts
from tombola.types import Masks, Params, Scores, Step


@final
@dataclass(frozen=True)
class RigL:
    r"""Rigging the lottery.

    Evci et al. (2020), Algorithm 1: at each position and in each tensor the fraction :math:`\frac{\alpha}{2}(1 +
    \cos(\pi t / T_{end}))` of the weights that is nearest to zero is dropped, and as many grow where the gradient of
    the loss is largest in magnitude. They grow with the value zero and without moments. As in Algorithm 1 a weight that
    was just dropped may grow again, and as in the authors' code it then goes on as it was.

    The gradient is that of the batch that comes next. Departures: in Algorithm 1 the change takes the place of that
    batch's step, here the batch is trained on afterwards, under the new masks; and the untrained network is left as it
    is, where Algorithm 1 begins at t = 0.

    Attributes:
        end: :math:`T_{end}`; before it masks change, from it on they stay. See :func:`rigl`.
        every: :math:`\Delta T`, iterations between two changes; they are its multiples, counted from initialisation.
        fraction: :math:`\alpha`, in (0, 1].

    Raises:
        InvalidValue: a fraction out of range, or positions that are none.
    """

    end: Step
    every: Step = 100
    fraction: float | str | Fraction = Fraction(3, 10)

    def __post_init__(self) -> None:
        check_positions(self.every, end=self.end)
        # Written in another way it is the same fraction, and has the same name in records.
        object.__setattr__(self, "fraction", exact(self.fraction))
        if not 0 < exact(self.fraction) <= 1:
            raise InvalidValue(f"the fraction to drop is {float(exact(self.fraction)):g}; it lies above 0, up to 1.")

    @property
    def steps(self) -> tuple[Step, ...]:
        """Give the positions."""
        return tuple(range(self.every, self.end, self.every))

    def wants_gradient(self, step: Step) -> bool:  # noqa: ARG002
        """Say that every change needs it."""
        return True

    def fraction_at(self, step: Step) -> Fraction:
        r"""Give the fraction that is dropped at a position.

        Evci et al. (2020), section 3: :math:`f(t) = \frac{\alpha}{2}(1 + \cos(\pi t / T_{end}))`, 0 from the end on.

        Example:
            >>> [str(RigL(end=100, fraction=0.3).fraction_at(t)) for t in (0, 50, 100)]
            ['3/10', '3/20', '0']
        """
        if step >= self.end:
            return Fraction(0)
        return exact(self.fraction) * Fraction((1 + math.cos(math.pi * step / self.end)) / 2)

    def update(
        self,
        step: Step,
        params: Params,
        masks: Masks,
        gradient: Params | None,
        moved: Params | None,  # noqa: ARG002
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Drop the weakest and grow by the gradient; see :class:`~tombola.types.Updates`.

        Returns:
            name -> bool, each with as many true entries as before.

        Raises:
            MissingEvidence: there is no gradient of a tensor.
            ShapeMismatch: a gradient of another shape than its tensor.
            InvalidScores: a weight or a gradient is NaN.
        """
        check(params, masks)
        if gradient is None or masks.keys() - gradient.keys():
            raise MissingEvidence(
                f"RigL grows weights by their gradient, and there is {'none' if gradient is None else 'not one'} for "
                f"every tensor with a mask ({', '.join(masks)}). Give the gradient of the loss by every entry."
            )
        check(gradient, masks)
        fraction, found = self.fraction_at(step), gradient
        drops = {name: half_up(fraction * count) for name, count in counts(masks).items()}

        def growth(stay: Masks) -> Scores:
            return {name: found[name].detach().abs() for name in stay}

        return swap(params, masks, drops, growth, generator)

    def describe(self) -> Mapping[str, Any]:
        """Identify it by all of its fields."""
        return {"updates": "rigl", **{name: identity(value) for name, value in vars(self).items()}}


def rigl(
    iterations: int,
    *,
    every: Step = 100,
    fraction: float | str | Fraction = Fraction(3, 10),
    until: float | str | Fraction = Fraction(3, 4),
) -> RigL:
    """Give RigL for a run of so many iterations.

    Evci et al. (2020), section 4: changes every 100 iterations, of 30 % at first, during the first three quarters.

    Args:
        iterations: of the run, T.
        every: iterations between two changes.
        fraction: dropped at first, in (0, 1].
        until: the part of the run during which masks change, in (0, 1].

    Raises:
        InvalidValue: one of them out of range.

    Example:
        >>> rigl(1000).end
        750
    """
    part = exact(until)
    if not 0 < part <= 1:
        raise InvalidValue(f"masks change until {float(part):g} of the run; it is a fraction above 0, up to 1.")
    return RigL(math.floor(part * iterations), every, fraction)
