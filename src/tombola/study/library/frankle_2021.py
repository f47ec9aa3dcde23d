"""Frankle, Dziugaite, Roy & Carbin (2021), Pruning Neural Networks at Initialization: Why Are We Missing the Mark?

The abstract's statements were read in a published copy; the numbers of the sections are from memory. What is published
is on MNIST, CIFAR-10 and ImageNet, of which the first is measured here.
"""

from typing import Final

from tombola.study.claims import Claim, above

_PAPER: Final = "Frankle et al. (2021)"
_BELOW: Final = ("snip", "grasp", "grasp-magnitude", "synflow", "magnitude", "random")
_INDIFFERENT: Final = ("snip", "grasp", "synflow")
_NO_WORSE: Final = -0.2
"""Points that count as no loss; the margin of a verdict on MNIST."""


def _search(criterion: str) -> str:
    return f"at-init-{criterion}"


CLAIMS: Final[tuple[Claim, ...]] = (
    *(
        above(
            f"frankle-ticket-above-{criterion}-{percent}",
            f"Pruned after training and rewound, a ticket is above what {criterion} leaves of the initial network "
            f"({percent} %)",
            f"{_PAPER}, section 4",
            ("iterative", percent / 100, "ticket"),
            (_search(criterion), percent / 100, "ticket"),
        )
        for criterion in _BELOW
        for percent in (5, 2)
    ),
    *(
        above(
            f"frankle-{criterion}-does-not-mind-{control}",
            f"What {criterion} leaves of the initial network loses nothing where {change} (5 %)",
            f"{_PAPER}, section 5",
            (_search(criterion), 0.05, control),
            (_search(criterion), 0.05, "ticket"),
            least=_NO_WORSE,
        )
        for criterion in _INDIFFERENT
        for control, change in (
            ("shuffle", "its mask is shuffled within each layer"),
            ("reinit", "it is initialised anew"),
        )
    ),
    *(
        above(
            f"frankle-tickets-mind-{control}",
            f"A ticket that was pruned after training falls where {change} (5 %)",
            f"{_PAPER}, section 5",
            ("iterative", 0.05, "ticket"),
            ("iterative", 0.05, control),
        )
        for control, change in (
            ("shuffle", "its mask is shuffled within each layer"),
            ("reinit", "it is initialised anew"),
        )
    ),
)
