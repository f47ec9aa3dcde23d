"""Frankle & Carbin (2019), The Lottery Ticket Hypothesis: the LeNet experiments on MNIST.

What is published is read in a scanned translation of the text and not checked against the PDF's figures.
"""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final

from tombola.search.settings import Settings
from tombola.study.claims import Claim, Measure, Place, earlier, points_above, times_faster
from tombola.study.library import han_2015, renda_2020
from tombola.study.spec import Spec

_GATES: Final = (0.513, 0.211, 0.135, 0.0695, 0.0358)
_PAPER: Final = "Frankle & Carbin (2019)"

_SIZES: Final[Mapping[str, Mapping[str, Any]]] = {
    "smoke": {"data": "digits", "replicates": 3, "dense_runs": 1, "recipe": {"iterations": 200}},
    "small": {"data": "mnist", "replicates": 5, "dense_runs": 2, "recipe": {"iterations": 10_000}},
    "paper": {"data": "mnist", "replicates": 5, "dense_runs": 3, "recipe": {"iterations": 50_000}},
}


def _claim(
    name: str, text: str, where: str, published: float | None, band: tuple[float, float], unit: str, measure: Measure
) -> Claim:
    return Claim(name, text, f"{_PAPER}, {where}", "text", published, band, unit, measure)


_THREE: Final = "section 3"
_NOISE: Final = "appendix on initialisation"


def _at(density: float, arm: str = "ticket", search: str = "iterative") -> Place:
    return search, density, arm


_DENSE: Final = _at(1.0, "dense")

CLAIMS: Final = (
    _claim(
        "lenet-51-learns-faster",
        "At 51.3 % a ticket reaches its least validation loss before the dense network",
        _THREE, None, (0.0, inf), "%", earlier(_at(0.513), _DENSE),
    ),
    _claim(
        "lenet-21-earlier",
        "At 21.1 % the least validation loss comes 38 % earlier than the dense network's",
        _THREE, 38.0, (23.0, 53.0), "%", earlier(_at(0.211), _DENSE),
    ),
    _claim(
        "lenet-21-faster-than-51",
        "The ticket at 21.1 % learns faster than the ticket at 51.3 %",
        _THREE, None, (0.0, inf), "%", earlier(_at(0.211), _at(0.513)),
    ),
    _claim(
        "lenet-13-more-accurate",
        "At 13.5 % the test accuracy at early stop is more than 0.3 points above the dense network's",
        _THREE, 0.3, (0.15, inf), "points", points_above(_at(0.135), _DENSE),
    ),
    _claim(
        "lenet-4-back-to-dense",
        "At 3.6 % the test accuracy at early stop is back at the dense network's",
        _THREE, 0.0, (-0.2, 0.2), "points", points_above(_at(0.0358), _DENSE),
    ),
    _claim(
        "lenet-fixed-budget",
        "After the same number of iterations a ticket is more accurate, by up to 0.35 points (here at 13.5 %)",
        _THREE, 0.35, (0.0, 0.55), "points", points_above(_at(0.135), _DENSE, at_early_stop=False),
    ),
    _claim(
        "lenet-reinit-falls-at-21",
        "Initialised anew, the same network falls below the dense network's accuracy at 21.1 %",
        _THREE, None, (-inf, 0.0), "points", points_above(_at(0.211, "reinit"), _DENSE),
    ),
    _claim(
        "lenet-21-faster-than-reinit",
        "At 21.1 % a ticket learns 2.51 times as fast as the same network initialised anew",
        _THREE, 2.51, (1.76, 3.26), "times", times_faster(_at(0.211), _at(0.211, "reinit")),
    ),
    _claim(
        "lenet-21-above-reinit",
        "At 21.1 % a ticket is 0.5 points more accurate than the same network initialised anew",
        _THREE, 0.5, (0.25, 0.75), "points", points_above(_at(0.211), _at(0.211, "reinit")),
    ),
    _claim(
        "lenet-reinit-slows-with-pruning",
        "Initialised anew, the network learns the slower the more it is pruned (21.1 % against 51.3 %)",
        _THREE, None, (0.0, inf), "%", earlier(_at(0.513, "reinit"), _at(0.211, "reinit")),
    ),
    _claim(
        "lenet-one-shot-learns-faster",
        "Pruned in one shot, a ticket between 67.5 % and 17.6 % learns faster than the dense network (here 21.1 %)",
        _THREE, None, (0.0, inf), "%", earlier(_at(0.211, search="one-shot"), _DENSE),
    ),
    _claim(
        "lenet-one-shot-more-accurate",
        "Pruned in one shot, a ticket between 95 % and 5.17 % is more accurate than the dense network (here 13.5 %)",
        _THREE, None, (0.0, inf), "points", points_above(_at(0.135, search="one-shot"), _DENSE),
    ),
    _claim(
        "lenet-iterative-beats-one-shot",
        "Where little is left, iterative pruning is ahead of one shot (here 3.6 %)",
        _THREE, None, (0.0, inf), "points", points_above(_at(0.0358), _at(0.0358, search="one-shot")),
    ),
    _claim(
        "lenet-noise-barely-hurts",
        "Noise of half a standard deviation on the initial values barely hurts (here 21.1 %)",
        _NOISE, None, (-0.2, inf), "points", points_above(_at(0.211, "noise:0.5"), _at(0.211)),
    ),
    _claim(
        "lenet-noise-beats-reinit",
        "With noise of three standard deviations a ticket still beats the network initialised anew (here 21.1 %)",
        _NOISE, None, (0.0, inf), "points", points_above(_at(0.211, "noise:3"), _at(0.211, "reinit")),
    ),
)  # fmt: skip


def lenet_mnist(size: str) -> Spec:
    """Everything that section 3 says of LeNet-300-100: iterative, one-shot, reinitialised; and what keeps weights.

    Fine-tuning and learning-rate rewinding differ by the learning rate alone, so theirs falls: at half and at three
    quarters of the iterations, to a tenth each time.
    """
    common: dict[str, Any] = {**_SIZES[size], "model": "lenet-300-100", "rounds": 15, "engine": "auto", "gates": _GATES}
    last = common["recipe"]["iterations"]
    falls = {**common["recipe"], "schedule": "step", "milestones": (last // 2, 3 * last // 4)}
    kept = {**common, "recipe": falls, "controls": ()}
    return Spec(
        name="lenet-mnist",
        title="LeNet-300-100: iterative against one-shot pruning, reinitialisation, noise and fine-tuning",
        claims=tuple(claim.name for claim in (*CLAIMS, *han_2015.CLAIMS, *renda_2020.CLAIMS)),
        searches={
            "iterative": Settings(**common, controls=("reinit", "noise:0.5", "noise:3")),
            "one-shot": Settings(**common, strategy="one-shot", controls=()),
            "finetune": Settings(**kept, strategy="finetune"),
            "learning-rate": Settings(**kept, rewind="lr"),
        },
    )


STUDIES: Final[Mapping[str, Callable[[str], Spec]]] = {"lenet-mnist": lenet_mnist}
