"""LeCun, Denker & Solla (1990), Optimal Brain Damage: published for a network of 2,578 parameters on digits of mail.

Its figure compares the two before anything is trained again; here both are fine-tuned after every cut. Saliencies rank
all layers together, and magnitudes are usually cut layer by layer; so magnitude stands here in both ways.
"""

from typing import Final

from tombola.study.claims import Claim, above

CLAIMS: Final[tuple[Claim, ...]] = tuple(
    above(
        f"lecun-obd-above-{search.replace('finetune', 'magnitude')}-{word}",
        f"By least saliency more can be deleted than by least magnitude {how}: fine-tuned, it is above ({percent:g} %)",
        "LeCun et al. (1990), figure 1",
        ("obd", percent / 100, "ticket"),
        (search, percent / 100, "ticket"),
        certainty="memory",
    )
    for search, how in (("finetune", "in each layer"), ("finetune-global", "in all layers"))
    for word, percent in (("1", 1.0), ("half", 0.5))
)
