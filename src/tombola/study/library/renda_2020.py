"""Renda, Frankle & Carbin (2020), Comparing Rewinding and Fine-tuning: what is published is ResNet-20 on CIFAR-10."""

from math import inf
from typing import Final

from tombola.study.claims import Claim, points_above

CLAIMS: Final = (
    Claim(
        name="renda-rate-rewinding-above-finetuning",
        text="Rewinding the learning rate is more accurate than fine-tuning (published for ResNet-20; here 10.8 %)",
        source="Renda et al. (2020), section 4",
        certainty="data",
        published=None,
        band=(0.0, inf),
        unit="points",
        measure=points_above(("learning-rate", 0.107, "ticket"), ("finetune", 0.107, "ticket"), at_early_stop=False),
    ),
)
