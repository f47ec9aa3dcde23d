"""The papers' recipes, by network and data set."""

from dataclasses import dataclass, replace
from typing import Any, Final, final

from tombola.train.recipe import Recipe


@final
@dataclass(frozen=True)
class Preset:
    """A recipe that can be stretched: milestones are fractions of T.

    Attributes:
        iterations: T, as published.
        settings: further fields of :class:`~tombola.train.recipe.Recipe`.
        milestones: fractions of T at which the step schedule drops.
        source: where it is published.
    """

    iterations: int
    settings: dict[str, Any]
    milestones: tuple[float, ...] = ()
    source: str = ""

    def recipe(self, **changes: Any) -> Recipe:
        """Make the recipe with some fields changed; milestones and the evaluation grid follow the iterations."""
        values = {**self.settings, **changes}
        if values["optimizer"] != "sgd":
            # A change of optimiser leaves the preset's momentum behind, but not one that was asked for.
            values = {name: value for name, value in values.items() if name != "momentum" or name in changes}
        iterations = values.setdefault("iterations", self.iterations)
        if values.get("schedule", "constant") == "step" and self.milestones:
            drops = sorted({max(1, round(fraction * iterations)) for fraction in self.milestones})
            values.setdefault("milestones", tuple(drops))
        if "eval_every" not in changes:
            values["eval_every"] = min(values.get("eval_every", 100), max(1, iterations // 30))
        return Recipe(**values)


_FIGURE_2: Final = "Frankle & Carbin (2019), Figure 2"


def _adam(iterations: int, lr: float, source: str = _FIGURE_2) -> Preset:
    return Preset(iterations, {"optimizer": "adam", "lr": lr, "batch_size": 60}, source=source)


def _sgd(iterations: int, batch_size: int, milestones: tuple[float, ...], source: str) -> Preset:
    settings = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "schedule": "step"}
    return Preset(iterations, {**settings, "batch_size": batch_size}, milestones, source)


_VGG: Final = _sgd(112_000, 64, (0.5, 0.75), f"{_FIGURE_2} (VGG-19), at the rate 0.01 of its section 4")

_RESNET: Final = (30_000, 128, (2 / 3, 5 / 6))

_BY_MODEL: Final[dict[str, Preset]] = {
    "lenet-300-100": _adam(50_000, 1.2e-3),
    "lenet-5": _adam(50_000, 1.2e-3, "ours: the recipe of LeNet-300-100"),
    "conv-2": _adam(20_000, 2e-4),
    "conv-4": _adam(25_000, 3e-4),
    "conv-6": _adam(30_000, 3e-4),
    "resnet-20": _sgd(*_RESNET, f"{_FIGURE_2} (Resnet-18), at the rate 0.01 of its section 4"),
    "resnet-50": _sgd(*_RESNET, "ours: the recipe of ResNet-20"),
    "vgg-11": _VGG,
    "vgg-16": _VGG,
    "vgg-19": _VGG,
}

_CROPPED: Final = ("resnet-20", "resnet-50", "vgg-11", "vgg-16", "vgg-19")
"""The networks that are shown CIFAR-10 cropped and flipped."""

_DIGITS: Final = Preset(
    200,
    {"optimizer": "adam", "lr": 4e-3, "batch_size": 100},
    source="ours: 20 epochs of 988 examples, so that a whole search takes half a minute on two cores",
)

_BY_DATA: Final[dict[str, Preset]] = {"digits": _DIGITS}

_OTHERWISE: Final = _adam(2_000, 1.2e-3, "LeNet's recipe, shortened")


def default_model(data: str) -> str:
    """Give the network that a data set is tried with where none is named.

    Example:
        >>> default_model("mnist"), default_model("cifar-10")
        ('lenet-300-100', 'conv-2')
    """
    return "conv-2" if data == "cifar-10" else "lenet-300-100"


def preset(model: str, data: str) -> Preset:
    """Give the recipe for a network on a data set: the paper's where it has one.

    ResNets and VGGs are shown CIFAR-10 augmented, as He et al. (2016), section 4.2, do; other data as they are, for a
    digit that is flipped is another one.

    Example:
        >>> preset("lenet-300-100", "mnist").recipe().iterations
        50000
        >>> preset("resnet-20", "cifar-10").recipe().augment, preset("resnet-20", "mnist").recipe().augment
        ('crop-flip', 'none')
    """
    found = _BY_DATA.get(data) or _BY_MODEL.get(model) or _OTHERWISE
    if data != "cifar-10" or model not in _CROPPED:
        return found
    source = f"{found.source}; augmented as in He et al. (2016), section 4.2"
    return replace(found, settings={**found.settings, "augment": "crop-flip"}, source=source)
