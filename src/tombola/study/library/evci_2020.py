"""Evci et al. (2020), Rigging the Lottery: sparse training with a mask that moves, published for ImageNet and CIFAR-10.

What stays where it was drawn is the control ``random-erk`` of the iterative search: a random mask with the layer
densities that SET and RigL start with, the same families and the same budget.
"""

from typing import Final

from tombola.study.claims import Claim, Place, above

_SOURCE: Final = "Evci et al. (2020), section 4"
_RIGL: Final[Place] = ("rigl", 0.05, "ticket")
_SET: Final[Place] = ("set", 0.05, "ticket")
_STATIC: Final[Place] = ("iterative", 0.05, "random-erk")

CLAIMS: Final[tuple[Claim, ...]] = (
    above(
        "evci-rigl-above-set",
        "Growing where the gradient is largest is above growing at random (published for ResNet-50; here 5 %)",
        _SOURCE, _RIGL, _SET, certainty="memory",
    ),
    above(
        "evci-set-above-static",
        "A random mask that moves while it trains is above one that stays (published for ResNet-50; here 5 %)",
        _SOURCE, _SET, _STATIC, certainty="memory",
    ),
    above(
        "evci-rigl-above-static",
        "A mask that follows the gradient is above a random one that stays (published for ResNet-50; here 5 %)",
        _SOURCE, _RIGL, _STATIC, certainty="memory",
    ),
)  # fmt: skip
