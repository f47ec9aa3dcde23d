"""What does a ticket cost? Searches that find their masks with less training, judged as iterative pruning is.

All go down the paper's ladder, a fifth of the survivors a level, and are judged at three of its levels; what is cheap
is the search alone. Iterative pruning is the reference, on the same data, iterations and seeds.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from tombola.search.settings import Settings
from tombola.study.spec import Spec

GATES: Final = (0.2107, 0.0695, 0.0358)
"""Levels 7, 12 and 15 of LeNet-300-100's ladder, where Frankle & Carbin (2019), Figure 3, look."""

_ROUNDS: Final = 15

_SIZES: Final[Mapping[str, Mapping[str, Any]]] = {
    "smoke": {"replicates": 3, "dense_runs": 1, "iterations": 60},
    "small": {"replicates": 5, "dense_runs": 3, "iterations": 4_000},
    "paper": {"replicates": 5, "dense_runs": 3, "iterations": 50_000},
}
_CONV_ITERATIONS: Final = {"smoke": 40, "small": 2_000, "paper": 50_000}


def cheaper(size: str) -> Spec:
    """Every cheaper search of the catalogue on LeNet-300-100, and rounds that are too short."""
    shape = dict(_SIZES[size])
    last = shape.pop("iterations")

    def search(**how: Any) -> Settings:
        return _search("digits" if size == "smoke" else "mnist", "lenet-300-100", last, shape, **how)

    at_once = {"rounds": None, "densities": GATES}
    return Spec(
        name="cheaper",
        title="LeNet-300-100: what a ticket costs to find",
        searches={
            "iterative": search(),
            "adaptive": search(strategy="adaptive"),
            "one-shot": search(strategy="one-shot", **at_once),
            "continued": search(strategy="continued"),
            "settled": search(strategy="settled"),
            "early-bird": search(strategy="early-bird", **at_once),
            "gradual-rewind": search(strategy="gradual-rewind", **at_once),
            "gem-miner": search(strategy="gem-miner", **at_once),
            "rounds-of-a-third": search(round_iterations=round(0.3 * last)),
            "rounds-of-a-tenth": search(round_iterations=round(0.1 * last)),
            "half-of-the-data": search(round_data=0.5),
            "half-of-the-data-full-rounds": search(round_data=0.5, round_iterations=last),
        },
    )


def cheaper_fashion(size: str) -> Spec:
    """The adaptive search against the reference on Fashion-MNIST."""
    shape = dict(_SIZES[size])
    last = shape.pop("iterations")
    return Spec(
        name="cheaper-fashion",
        title="LeNet-300-100 on Fashion-MNIST: what a ticket costs to find",
        searches={
            name: _search("fashion-mnist", "lenet-300-100", last, shape, strategy=strategy)
            for name, strategy in (("iterative", "imp"), ("adaptive", "adaptive"))
        },
    )


def cheaper_conv(size: str) -> Spec:
    """The adaptive search against the reference on a convolutional network of LeNet-5's size."""
    shape = {name: value for name, value in _SIZES[size].items() if name != "iterations"}
    data = "digits" if size == "smoke" else "mnist"
    return Spec(
        name="cheaper-conv",
        title="LeNet-5: what a ticket costs to find",
        searches={
            name: _search(data, "lenet-5", _CONV_ITERATIONS[size], shape, strategy=strategy)
            for name, strategy in (("iterative", "imp"), ("adaptive", "adaptive"))
        },
    )


def _search(data: str, model: str, iterations: int, shape: Mapping[str, Any], **how: Any) -> Settings:
    usual = {"rounds": _ROUNDS, "gates": GATES, "controls": ("reinit", "shuffle")}
    return Settings(**{**shape, **usual, "data": data, "model": model, **how}, recipe={"iterations": iterations})


STUDIES: Final[Mapping[str, Callable[[str], Spec]]] = {
    "cheaper": cheaper,
    "cheaper-fashion": cheaper_fashion,
    "cheaper-conv": cheaper_conv,
}
