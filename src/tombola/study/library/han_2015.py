"""Han, Pool, Tran & Dally (2015), Learning both Weights and Connections: LeNet-300-100, 12 times fewer weights."""

from math import inf
from typing import Final

from tombola.study.claims import Claim, points_above

CLAIMS: Final = (
    Claim(
        name="han-twelve-times-smaller",
        text="Pruned and fine-tuned again and again, a twelfth of the weights loses no accuracy (here 8.7 %)",
        source="Han et al. (2015), table 1",
        certainty="memory",
        published=0.0,
        band=(-0.2, inf),
        unit="points",
        measure=points_above(("finetune", 0.0833, "ticket"), ("finetune", 1.0, "dense"), at_early_stop=False),
    ),
)
