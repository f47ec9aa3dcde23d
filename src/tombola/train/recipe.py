"""The recipe: everything that says how one network is trained, frozen and torch-free."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from tombola.errors import InvalidValue, UnknownName

OPTIMIZERS: Final = ("adam", "adamw", "sgd")
SCHEDULES: Final = ("constant", "cosine", "step")
LOSSES: Final = ("cross-entropy", "mse")
AUGMENTATIONS: Final = ("none", "crop-flip")

_LATER: Final = {"loss": "cross-entropy", "augment": "none"}
"""Fields that recipes had not always, with the value that says what was done before there was a choice."""


@final
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        iterations: optimiser steps, T.
        batch_size: examples in a step.
        optimizer: ``adam`` (betas .9, .999; coupled weight decay), ``adamw`` or ``sgd``.
        lr: base learning rate.
        momentum: of ``sgd``, in [0, 1).
        nesterov: Nesterov's form; needs momentum.
        weight_decay: at least 0.
        schedule: ``constant``, ``cosine`` (to 0 at T) or ``step`` (times ``gamma`` at each milestone).
        milestones: positions of the step schedule, in iterations.
        gamma: factor at a milestone.
        warmup: iterations over which the learning rate rises linearly from ``lr / warmup`` to ``lr``.
        eval_every: spacing of the evaluation grid, in iterations; the last iteration always belongs to it.
        loss: ``cross-entropy``, or ``mse``: the mean over examples and classes of the squared difference of the logits
            to the label's one-hot vector. Validation measures the same.
        augment: ``none``, or ``crop-flip``: training batches of images are cropped and flipped at random, see
            :func:`tombola.train.augment.augmented`.
    """

    iterations: int
    batch_size: int = 60
    optimizer: str = "adam"
    lr: float = 1.2e-3
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: int = 0
    eval_every: int = 100
    loss: str = "cross-entropy"
    augment: str = "none"

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "weight_decay", "gamma"):
            value = getattr(self, name)
            # Written as a whole number it is the same recipe, and has the same digest.
            if isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, name, float(value))
        if self.optimizer not in OPTIMIZERS:
            raise UnknownName.among("optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise UnknownName.among("learning-rate schedule", self.schedule, SCHEDULES)
        if self.loss not in LOSSES:
            raise UnknownName.among("loss", self.loss, LOSSES)
        if self.augment not in AUGMENTATIONS:
            raise UnknownName.among("augmentation", self.augment, AUGMENTATIONS)
        for name, least in (("iterations", 1), ("batch_size", 1), ("eval_every", 1), ("warmup", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InvalidValue(f"{name} is {value}; it is a whole number, at least {least}.")
        _positive("lr", self.lr)
        _positive("gamma", self.gamma)
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InvalidValue(f"weight_decay is {self.weight_decay}; it is a finite number, at least 0.")
        if not 0 <= self.momentum < 1:
            raise InvalidValue(f"momentum is {self.momentum}; it lies in [0, 1).")
        if self.optimizer != "sgd" and (self.momentum or self.nesterov):
            raise InvalidValue(f"momentum belongs to sgd; the optimizer is {self.optimizer}.")
        if self.nesterov and not self.momentum:
            raise InvalidValue("nesterov needs a momentum above 0.")
        if (self.schedule == "step") != bool(self.milestones):
            raise InvalidValue("the step schedule needs milestones, and only it takes them: --schedule step:200,300.")
        if list(self.milestones) != sorted({position for position in self.milestones if position >= 1}):
            raise InvalidValue(f"the milestones are {self.milestones}; they are iterations from 1 on, increasing.")
        if self.milestones and self.milestones[-1] > self.iterations:
            raise InvalidValue(
                f"the last milestone is {self.milestones[-1]} and there are {self.iterations} iterations, so the "
                "learning rate would not drop there. Set it earlier."
            )
        if self.warmup > self.iterations:
            raise InvalidValue(
                f"warmup is {self.warmup} and there are {self.iterations} iterations; the learning rate would never "
                "reach its base value."
            )
        if self.eval_every > self.iterations:
            raise InvalidValue(
                f"eval_every is {self.eval_every} and there are {self.iterations} iterations; "
                "the validation loss would be seen once. Evaluate more often."
            )

    def lr_at(self, step: int) -> float:
        """Give the learning rate of a position; beyond T it stays what it was at T - 1.

        Example:
            >>> [round(Recipe(iterations=4, lr=0.1, schedule="cosine", eval_every=1).lr_at(t), 4) for t in range(4)]
            [0.1, 0.0854, 0.05, 0.0146]
        """
        position = min(step, self.iterations - 1)
        rate = self.lr
        if self.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * position / self.iterations))
        elif self.schedule == "step":
            rate *= self.gamma ** sum(milestone <= position for milestone in self.milestones)
        if position < self.warmup:
            rate *= (position + 1) / self.warmup
        return rate

    @property
    def argmin_is_informative(self) -> bool:
        """Whether the early-stop iteration measures speed: a decaying rate puts the minimum where it decays."""
        return self.schedule == "constant"

    @property
    def augmented(self) -> bool:
        """Whether a network is shown other examples than the data set has; not every engine can do that."""
        return self.augment != "none"

    def as_json(self) -> Mapping[str, Any]:
        """Give the fields as plain values, for records."""
        values = {**asdict(self), "milestones": list(self.milestones)}
        # There were recipes before there was a second loss; theirs have no such field, and keep their digest.
        return {name: value for name, value in values.items() if name not in _LATER or value != _LATER[name]}

    @property
    def digest(self) -> str:
        """Identify the recipe: equal for two runs exactly when they were trained alike."""
        text = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InvalidValue(f"{name} is {value}; it is a finite number above 0.")
