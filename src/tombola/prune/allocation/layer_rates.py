"""Per-layer rates: the paper's own rule, the output layer at half the rate of the others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import final

from tombola.errors import ImpossibleDensity, InvalidValue
from tombola.prune.allocation.base import BySize
from tombola.prune.counting import Counts, Cut, Shapes, apportion, half_up, size_of

_REFERENCE_RATE = Fraction(1, 5)


@final
@dataclass(frozen=True)
class LayerRates(BySize):
    """Prune each tensor at its own multiple of the schedule's rate.

    Frankle & Carbin (2019), Figure 2: LeNet 20 % a round and 10 % on the output layer; Conv-2 and Conv-4 10 % on
    convolutions; Conv-6 15 %.

    A rate removes ``floor(m r n + 1/2)`` of the ``n`` weights left in a tensor with multiplier ``m``. For a density
    ``d`` the paper has no rule; here the tensors stand where its ladder would pass ``d``: tensor densities
    ``(1 - m/5)^t`` with the (fractional) number of rounds ``t`` that gives exactly ``floor(d N + 1/2)`` weights.

    Attributes:
        multipliers: name -> multiple of the base rate, from 0 (never pruned) to below 5; a name that is absent has 1.

    Raises:
        InvalidValue: a multiplier outside that range.
    """

    multipliers: Mapping[str, Fraction] = field(default_factory=dict)
    name: str = "layer-rates"

    def __post_init__(self) -> None:
        for name, multiplier in self.multipliers.items():
            if not 0 <= multiplier * _REFERENCE_RATE < 1:
                raise InvalidValue(
                    f"the multiplier of {name!r} is {float(multiplier):g}; it is a multiple of the 20 % that the "
                    "others lose in a round, from 0 to below 5."
                )

    def plan(self, shapes: Shapes, alive: Counts, cut: Cut) -> dict[str, int]:
        """Divide the cut; see :class:`~tombola.prune.allocation.base.Allocation`.

        Raises:
            InvalidValue: a multiplier takes a rate above 1.
            ImpossibleDensity: see :meth:`Cut.total`; or the tensors that are never pruned hold more than the total.
        """
        multiplier = {name: self.multipliers.get(name, Fraction(1)) for name in shapes}
        if cut.rate is not None:
            return {
                name: alive[name] - half_up(_rate(name, m * cut.rate) * alive[name]) for name, m in multiplier.items()
            }
        sizes = {name: size_of(shape) for name, shape in shapes.items()}
        total = cut.total(sum(sizes.values()), sum(alive.values()))
        never = sum(size for name, size in sizes.items() if multiplier[name] == 0)
        if total < never:
            raise ImpossibleDensity(
                f"the schedule keeps {total} of {sum(sizes.values())} weights, and {never} of them are in tensors that "
                "are never pruned (rate 0). Keep more, or give these a rate."
            )
        keep = {name: float(1 - m * _REFERENCE_RATE) for name, m in multiplier.items()}
        rounds = _rounds(sizes, keep, total)
        return apportion({name: sizes[name] * keep[name] ** rounds for name in sizes}, total, alive)


def _rate(name: str, rate: Fraction) -> Fraction:
    if not 0 <= rate <= 1:
        raise InvalidValue(f"the rate of {name!r} is {float(rate):g}; a rate lies between 0 and 1.")
    return rate


def _rounds(sizes: Counts, keep: Mapping[str, float], total: int) -> float:
    """Solve ``sum sizes * keep ** t = total`` for the number of rounds ``t``, by bisection."""

    def left(t: float) -> float:
        return sum(sizes[name] * keep[name] ** t for name in sizes)

    low, high = 0.0, 1.0
    while left(high) > total and high < 1e6:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > total else (low, middle)
    return high
