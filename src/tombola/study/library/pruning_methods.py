"""Which way of pruning is best? Every method of the catalogue on one network, one recipe and one set of densities.

The learning rate falls, at half and at three quarters of the iterations to a tenth each time: fine-tuning, rewinding
the learning rate and rewinding the weights differ by it alone. Every tensor keeps one weight at least, in all searches
alike, so that a criterion that would empty a layer is judged by what such a network is worth.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from tombola.prune.catalogue import CRITERIA
from tombola.search.settings import Settings
from tombola.study.library import evci_2020, frankle_2021, lecun_1990, liu_2019, renda_2020, zhu_gupta_2017
from tombola.study.spec import Spec

RANKED: Final = (0.2, 0.05, 0.02)
"""The densities at which all methods are compared."""

_SPARSER: Final = (0.01, 0.005)
"""Where fine-tuning after magnitude and after Optimal Brain Damage go on to."""

_RATE: Final = 1.2e-3

_SIZES: Final[Mapping[str, Mapping[str, Any]]] = {
    "smoke": {"data": "digits", "replicates": 3, "dense_runs": 1, "iterations": 200},
    "small": {"data": "mnist", "replicates": 5, "dense_runs": 2, "iterations": 4_000},
    "paper": {"data": "mnist", "replicates": 5, "dense_runs": 2, "iterations": 50_000},
}

_AT_INIT: Final = ("snip", "grasp", "grasp-magnitude", "synflow", "magnitude", "random")
_TUNED: Final = ("magnitude", "obd", "obs", "taylor")

_CLAIMS: Final = (
    *frankle_2021.CLAIMS,
    *renda_2020.AMONG_METHODS,
    *evci_2020.CLAIMS,
    *lecun_1990.CLAIMS,
    *zhu_gupta_2017.CLAIMS,
    *liu_2019.CLAIMS,
)


def between(above: float, below: float, cuts: int) -> tuple[float, ...]:
    """Give the densities of equal cuts from one density to another, to six digits; the last is exact.

    Each keeps ``(below / above) ** (1 / cuts)`` of the one before: the geometric levels of Frankle & Carbin (2019),
    section 2.

    Example:
        >>> between(1.0, 0.25, 2)
        (0.5, 0.25)
    """
    return (*(round(above * (below / above) ** (i / cuts), 6) for i in range(1, cuts)), below)


_DOWN: Final = (*between(1.0, 0.2, 7), *between(0.2, 0.05, 6), *between(0.05, 0.02, 4))
_FURTHER: Final = (*_DOWN, *between(0.02, 0.01, 3), *between(0.01, 0.005, 3))


def pruning_methods(size: str) -> Spec:
    """Every strategy, and every criterion where it can be used, at the densities 20, 5 and 2 %.

    Whatever looks at the trained or the initial network once makes the three densities directly; what prunes again and
    again passes through levels that keep four fifths. All criteria of the catalogue can look at this network.
    """
    shape = dict(_SIZES[size])
    last = shape.pop("iterations")
    common: dict[str, Any] = {**shape, "model": "lenet-300-100", "engine": "auto", "min_keep": 1}

    def search(densities: tuple[float, ...] = RANKED, rate: float = _RATE, **how: Any) -> Settings:
        recipe = {"iterations": last, "optimizer": "adam", "lr": rate, "batch_size": 60}
        falls = {"schedule": "step", "milestones": (last // 2, 3 * last // 4), "gamma": 0.1}
        return Settings(
            **{**common, "densities": densities, "gates": RANKED, "controls": (), **how}, recipe=recipe | falls
        )

    rates = {"gates": (0.2, 0.02), "controls": ("reinit", "small-dense")}
    lower: dict[str, Any] = {"densities": _FURTHER, "gates": (*RANKED, *_SPARSER)}
    return Spec(
        name="pruning-methods",
        title="LeNet-300-100: every strategy and criterion at 20, 5 and 2 % of the weights",
        claims=tuple(claim.name for claim in _CLAIMS),
        searches={
            "iterative": search(_DOWN, controls=("reinit", "shuffle", "random-erk", "small-dense")),
            "learning-rate": search(_DOWN, strategy="lr-rewind"),
            "finetune": search(strategy="finetune", **lower),
            "finetune-global": search(strategy="finetune", allocation="global", **lower),
            "obd": search(strategy="obd", **lower),
            **{f"one-shot-{name}": search(strategy="one-shot", criterion=name) for name in CRITERIA},
            **{
                f"at-init-{name}": search(strategy="at-init", criterion=name, controls=("reinit", "shuffle"))
                for name in _AT_INIT
            },
            "gradual": search(strategy="gradual"),
            "gradual-movement-pruning": search(strategy="gradual", criterion="movement-pruning"),
            "set": search(strategy="set"),
            "rigl": search(strategy="rigl"),
            **{f"one-shot-finetune-{name}": search(strategy="one-shot-finetune", criterion=name) for name in _TUNED},
            "rate-third": search(_DOWN, 4e-4, **rates),
            "rate-triple": search(_DOWN, 3.6e-3, **rates),
        },
    )


STUDIES: Final[Mapping[str, Callable[[str], Spec]]] = {"pruning-methods": pruning_methods}
