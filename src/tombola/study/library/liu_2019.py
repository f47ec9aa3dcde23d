"""Liu, Sun, Zhou, Huang & Darrell (2019), Rethinking the Value of Network Pruning: is it the learning rate?

They find no ticket above the same network initialised anew where the rate is large (VGG-16 and ResNet-50 on CIFAR-10).
So each arm is compared at the rate that its own validation likes best, of the search's, a third and three times it.
The masks are those of the search at that rate.
"""

from math import inf
from typing import Final

from tombola.study.claims import Claim, points_above_at_best

_RATES: Final = ("iterative", "rate-third", "rate-triple")

CLAIMS: Final[tuple[Claim, ...]] = tuple(
    Claim(
        name=f"liu-ticket-above-{arm}-at-best-rates",
        text=f"Each at the learning rate that is best for it, a ticket is above {what} (2 %)",
        source="Liu et al. (2019), section 6",
        certainty="memory",
        published=None,
        band=(0.0, inf),
        unit="points",
        measure=points_above_at_best(
            [(search, 0.02, "ticket") for search in _RATES], [(search, 0.02, arm) for search in _RATES]
        ),
    )
    for arm, what in (
        ("reinit", "the same network initialised anew"),
        ("small-dense", "a small dense network of as many weights"),
    )
)
