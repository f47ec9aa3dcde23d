"""Zhu & Gupta (2017), To Prune, or Not to Prune: large and sparse against small and dense, at as many weights."""

from typing import Final

from tombola.study.claims import Claim, Place, above

_SOURCE: Final = "Zhu & Gupta (2017), section 4"
_SMALL: Final[Place] = ("iterative", 0.05, "small-dense")

CLAIMS: Final[tuple[Claim, ...]] = (
    above(
        "zhu-gradual-above-small-dense",
        "Pruned while it trains, a large network is above a small dense one of as many weights (5 %)",
        _SOURCE, ("gradual", 0.05, "ticket"), _SMALL, certainty="memory",
    ),
    above(
        "zhu-ticket-above-small-dense",
        "A ticket is above a small dense network of as many weights (published for gradual pruning; here 5 %)",
        _SOURCE, ("iterative", 0.05, "ticket"), _SMALL, certainty="memory",
    ),
)  # fmt: skip
