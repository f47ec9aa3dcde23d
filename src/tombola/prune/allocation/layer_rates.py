"""Per-layer rates: the paper's own rule, the output layer at half the rate of the others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import final

from tombola.errors import InvalidValue
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
        multipliers: name -> multiple of the base rate; a name that is absent has 1.
    """

    multipliers: Mapping[str, Fraction] = field(default_factory=dict)
    name: str = "layer-rates"

    def plan(self, shapes: Shapes, alive: Counts, cut: Cut) -> dict[str, int]:
        """Divide the cut; see :class:`~tombola.prune.allocation.base.Allocation`.

        Raises:
            InvalidValue: a multiplier takes a rate above 1.
            ImpossibleDensity: see :meth:`Cut.total`.
        """
        multiplier = {name: self.multipliers.get(name, Fraction(1)) for name in shapes}
        if cut.rate is not None:
            cut.total(sum(map(size_of, shapes.values())), sum(alive.values()))
            rates = {name: m * cut.rate for name, m in multiplier.items()}
            for name, rate in rates.items():
                if not 0 <= rate <= 1:
                    raise InvalidValue(f"the rate of {name!r} is {float(rate):g}; a rate lies between 0 and 1.")
            return {name: alive[name] - half_up(rates[name] * alive[name]) for name in shapes}
        sizes = {name: size_of(shape) for name, shape in shapes.items()}
        total = cut.total(sum(sizes.values()), sum(alive.values()))
        keep = {name: float(1 - m * _REFERENCE_RATE) for name, m in multiplier.items()}
        low, high = 0.0, 1.0
        while sum(sizes[name] * keep[name] ** high for name in sizes) > total and high < 1e6:
            high *= 2
        for _ in range(200):
            middle = (low + high) / 2
            if sum(sizes[name] * keep[name] ** middle for name in sizes) > total:
                low = middle
            else:
                high = middle
        return apportion({name: sizes[name] * keep[name] ** high for name in sizes}, total, alive)
