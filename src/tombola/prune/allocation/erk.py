"""Erdős–Rényi-kernel: large tensors become sparser than small ones."""

from dataclasses import dataclass
from fractions import Fraction
from typing import final

from tombola.prune.allocation.base import BySize
from tombola.prune.counting import Counts, Cut, Shapes, apportion, size_of


@final
@dataclass(frozen=True)
class ERK(BySize):
    r"""Give each tensor a density proportional to the sum over the product of its dimensions.

    Evci et al. (2020), section 3 (ERK; Mocanu et al. 2018 for linear layers):
    :math:`d_l = \varepsilon (n_{in} + n_{out} + k_h + k_w) / (n_{in} n_{out} k_h k_w)`, with :math:`\varepsilon` such
    that the total is exact. Tensors that would exceed density 1 are dense, and the rest is solved again.
    """

    name: str = "erk"

    def plan(self, shapes: Shapes, alive: Counts, cut: Cut) -> dict[str, int]:
        """Divide the cut; see :class:`~tombola.prune.allocation.base.Allocation`.

        Raises:
            ImpossibleDensity: see :meth:`Cut.total`.
        """
        sizes = {name: size_of(shape) for name, shape in shapes.items()}
        total = cut.total(sum(sizes.values()), sum(alive.values()))
        densities = erk_densities(shapes, total)
        return apportion({name: densities[name] * sizes[name] for name in shapes}, total, alive)


def erk_densities(shapes: Shapes, total: int) -> dict[str, Fraction]:
    """Solve for the density of each tensor, exactly, before rounding.

    Example:
        >>> lenet = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}
        >>> [round(float(d), 5) for d in erk_densities(lenet, 53240).values()]
        [0.16224, 0.46936, 1.0]
    """
    sizes = {name: size_of(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        free = [name for name in shapes if name not in dense]
        weight = sum(sum(shapes[name]) for name in free)
        epsilon = Fraction(total - sum(sizes[name] for name in dense), weight or 1)
        densities = {
            name: Fraction(1) if name in dense else epsilon * sum(shapes[name]) / sizes[name] for name in shapes
        }
        over = {name for name in free if densities[name] > 1}
        if not over:
            return densities
        dense |= over
