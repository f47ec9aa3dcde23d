"""Uniform: the same density in every tensor."""

from dataclasses import dataclass
from typing import final

from tombola.prune.allocation.base import BySize
from tombola.prune.counting import Counts, Cut, Shapes, apportion, half_up, size_of


@final
@dataclass(frozen=True)
class Uniform(BySize):
    """Keep the same fraction of every tensor.

    The layer-wise pruning of Frankle & Carbin (2019), section 2, with one rate for all layers. A rate removes
    ``floor(r n + 1/2)`` of the ``n`` weights left in each tensor. A density keeps ``floor(d n + 1/2)`` of the ``n``
    original weights of each tensor, so rounding does not drift over rounds; where these add up to more than one weight
    from ``floor(d N + 1/2)`` of all ``N``, as in many small tensors alike, the largest remainders decide and the total
    is exact.
    """

    name: str = "uniform"

    def plan(self, shapes: Shapes, alive: Counts, cut: Cut) -> dict[str, int]:
        """Divide the cut; see :class:`~tombola.prune.allocation.base.Allocation`.

        Raises:
            ImpossibleDensity: see :meth:`Cut.total`.
        """
        sizes = {name: size_of(shape) for name, shape in shapes.items()}
        total = cut.total(sum(sizes.values()), sum(alive.values()))
        if cut.rate is not None:
            return {name: alive[name] - half_up(cut.rate * alive[name]) for name in shapes}
        if cut.density is not None:
            rounded = {name: min(alive[name], half_up(cut.density * sizes[name])) for name in shapes}
            if abs(sum(rounded.values()) - total) <= 1:
                return rounded
        return apportion(sizes, total, alive)
