"""Renda, Frankle & Carbin (2020), Comparing Rewinding and Fine-tuning: what is published is ResNet-20 on CIFAR-10."""

from math import inf
from typing import Final

from tombola.study.claims import Claim, above, points_above

_SOURCE: Final = "Renda et al. (2020), section 4"

CLAIMS: Final = (
    Claim(
        name="renda-rate-rewinding-above-finetuning",
        text="Rewinding the learning rate is more accurate than fine-tuning (published for ResNet-20; here 10.8 %)",
        source=_SOURCE,
        certainty="data",
        published=None,
        band=(0.0, inf),
        unit="points",
        measure=points_above(("learning-rate", 0.107, "ticket"), ("finetune", 0.107, "ticket"), at_early_stop=False),
    ),
)

AMONG_METHODS: Final[tuple[Claim, ...]] = (
    above(
        "renda-rate-rewinding-at-least-weight-rewinding",
        "Rewinding the learning rate alone loses nothing to rewinding the weights as well (5 %)",
        _SOURCE, ("learning-rate", 0.05, "ticket"), ("iterative", 0.05, "ticket"), least=-0.2, certainty="memory",
    ),
    above(
        "renda-rate-rewinding-above-finetuning-5",
        "Rewinding the learning rate is above fine-tuning at the last rate (5 %)",
        _SOURCE, ("learning-rate", 0.05, "ticket"), ("finetune", 0.05, "ticket"), certainty="memory",
    ),
    above(
        "renda-finetuning-above-reinit",
        "Fine-tuning is above training the pruned network from new initial values (5 %)",
        _SOURCE, ("finetune", 0.05, "ticket"), ("iterative", 0.05, "reinit"), certainty="memory",
    ),
)  # fmt: skip
"""Of the study that ranks the methods."""
