"""Sparse evolutionary training: the weakest weights make room for random ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, final

import torch

from tombola.errors import InvalidValue
from tombola.prune.counting import exact, half_up
from tombola.prune.dynamic.base import check_positions, identity, swap
from tombola.prune.masks import check, counts
from tombola.types import Masks, Params, Scores, Step


@final
@dataclass(frozen=True)
class SET:
    r"""Sparse evolutionary training.

    Mocanu et al. (2018), Algorithm 1: at each position and in each tensor the fraction :math:`\zeta` of the weights
    that is nearest to zero is dropped, and as many grow at random. Departures: the paper takes :math:`\zeta` of the
    positive and of the negative weights apart and draws the values of new ones; here all weights of a tensor are ranked
    together by magnitude and new ones are zero, as in the comparison of Evci et al. (2020), section 3. One that was
    dropped at this position may be drawn again, and then goes on as it was.

    Attributes:
        end: before it masks change, from it on they stay.
        every: iterations between two changes; they are the multiples of it, counted from initialisation.
        fraction: :math:`\zeta`, in (0, 1]; ``round(fraction * n)`` of n weights are dropped, halves upwards.

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
        """Say that no gradient is needed."""
        return False

    def update(
        self,
        step: Step,  # noqa: ARG002
        params: Params,
        masks: Masks,
        gradient: Params | None,  # noqa: ARG002
        moved: Params | None,  # noqa: ARG002
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Drop the weakest and grow at random; see :class:`~tombola.types.Updates`.

        Returns:
            name -> bool, each with as many true entries as before.

        Raises:
            InvalidScores: a weight is NaN.
        """
        check(params, masks)
        drops = {name: half_up(exact(self.fraction) * count) for name, count in counts(masks).items()}

        def growth(stay: Masks) -> Scores:
            # float64: among 10^7 float32 draws many would tie.
            return {
                name: torch.rand(mask.shape, dtype=torch.float64, generator=generator).to(mask.device)
                for name, mask in stay.items()
            }

        return swap(params, masks, drops, growth, generator)

    def describe(self) -> Mapping[str, Any]:
        """Identify it by all of its fields."""
        return {"updates": "set", **{name: identity(value) for name, value in vars(self).items()}}
