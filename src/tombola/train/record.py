"""What a training loop reports of its run, and what is kept of it."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, SupportsFloat, final

import numpy
from torch import Tensor, nn

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.models import state_buffers
from tombola.prune.masks import apply
from tombola.train.ranks import world
from tombola.types import Masks, Snapshot, Step, TrainJob

_WRAPPERS: Final = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before the names of a state dict."""


class Lost(Exception):
    """Ends a loop whose validation loss is not finite; a loop that catches it goes on for nothing."""


@final
class Record:
    """What a training loop is given to report to; call it as the run goes.

    ``record(step, loss=..., accuracy=...)`` reports validation after ``step`` iterations, counted from initialisation.
    From the losses come the early-stop iteration and the network at it; without any, nothing is said about speed.
    ``record(step)`` alone says how far the run is, and lets a search rewind to that step.

    Attributes:
        start: the position of the first iteration to train; 0 unless the search rewinds to a later step. The learning
            rate and the data order belong to the position.
        stop: the position after the last one; ``stop - start`` is the ``iterations`` that the loop is asked for.
    """

    def __init__(
        self,
        job: TrainJob,
        model: nn.Module,
        heard: Callable[[Step, float, float], None],
        begun: Callable[[], bool] = lambda: False,
    ) -> None:
        self.start, self.stop = job.start.step, job.stop
        self._job, self._model, self._heard, self._begun = job, model, heard, begun
        self._last = self.start - 1
        self.seen: list[tuple[Step, float, float]] = []
        self.saved: dict[Step, Snapshot] = {}
        self.best: Snapshot | None = None
        self._lowest = math.inf
        self.lost: str | None = None

    def __call__(self, step: Step, *, loss: SupportsFloat | None = None, accuracy: SupportsFloat | None = None) -> None:
        """Report what validation saw.

        Args:
            step: iterations done since initialisation; larger at every call, at most ``stop``. A report at ``start``,
                before anything is trained, is not part of the curve.
            loss: mean validation loss, smaller is better.
            accuracy: validation accuracy, or any score where larger is better.

        Raises:
            InvalidValue: a step out of order, or something that is no number.
        """
        step = self._checked(step)
        if step == self.start:
            if self._begun():
                raise InvalidValue(
                    f"the loop reports step {step} after training, in a run that starts at {step}. Steps count "
                    "iterations since initialisation: the first one makes it record.start + 1."
                )
            return
        measured = {name: number(value, f"the {name} that the loop reports at step {step}")
                    for name, value in (("loss", loss), ("accuracy", accuracy)) if value is not None}  # fmt: skip
        if step in self._job.save_at:
            self.saved[step] = snapshot_of(self._model, step, self._job.masks)
        if measured:
            self.seen.append((step, measured.get("loss", math.nan), measured.get("accuracy", math.nan)))
        self._heard(step, measured.get("loss", math.nan), measured.get("accuracy", math.nan))
        lost = next((name for name, value in measured.items() if not math.isfinite(value)), None)
        if lost is not None:
            self.lost = f"diverged: the validation {lost} is {measured[lost]} at iteration {step}"
            # The other ranks would wait for this one, so a run of several processes goes to its end.
            if world() == 1:
                raise Lost(self.lost)
        elif measured.get("loss", math.inf) < self._lowest:
            self._lowest = measured["loss"]
            self.best = snapshot_of(self._model, step, self._job.masks)

    def checkpoint(self, step: Step, state: Mapping[str, Tensor]) -> None:
        """Hand over the loop's own checkpoint of a step, in place of ``record(step)`` at that moment.

        Args:
            step: iterations done since initialisation when it was taken.
            state: the network's state dict; the prefixes of ``DistributedDataParallel`` and ``torch.compile`` are
                taken off. Kept only where the search rewinds to this step.

        Raises:
            InvalidValue, ShapeMismatch: it lacks a tensor of the network, or has it in another shape.
        """
        if step in self._job.save_at:
            self.saved[step] = _from_state(self._model, step, state, self._job.masks)

    def _checked(self, step: Any) -> Step:
        if not isinstance(step, int | numpy.integer) or isinstance(step, bool):
            raise InvalidValue(f"the loop reports step {step!r:.40}; a step is a whole number of iterations.")
        if not self._last < step <= self.stop:
            raise InvalidValue(
                f"the loop reports step {step} in a run from {self.start} to {self.stop}"
                + (f", after {self._last}. " if self._last >= self.start else ". ")
                + "Steps count iterations since initialisation and grow: train from record.start to record.stop."
            )
        self._last = int(step)
        return self._last


def snapshot_of(model: nn.Module, step: Step, masks: Masks) -> Snapshot:
    """Copy a network's parameters and buffers to the CPU, zero where pruned."""
    params = {name: value.detach().to("cpu", copy=True) for name, value in model.named_parameters()}
    state = {name: value.detach().to("cpu", copy=True) for name, value in state_buffers(model).items()}
    return Snapshot(step, apply(params, masks), state)


def _from_state(model: nn.Module, step: Step, state: Mapping[str, Tensor], masks: Masks) -> Snapshot:
    own = {**dict(model.named_parameters()), **state_buffers(model)}
    plain = {_unwrapped(name, own): value for name, value in state.items()}
    missing = sorted(own.keys() - plain.keys())
    if missing:
        raise InvalidValue(
            f"the checkpoint of step {step} lacks {', '.join(missing[:4])}. Hand over the network's whole state_dict()."
        )
    for name, value in own.items():
        if plain[name].shape != value.shape:
            raise ShapeMismatch(
                f"{name!r} has shape {tuple(plain[name].shape)} in the checkpoint of step {step} and "
                f"{tuple(value.shape)} in the network. Hand over a checkpoint of this network."
            )
    copies = {name: plain[name].detach().to("cpu", own[name].dtype, copy=True) for name in own}
    names = dict(model.named_parameters()).keys()
    params = {name: value for name, value in copies.items() if name in names}
    return Snapshot(step, apply(params, masks), {name: value for name, value in copies.items() if name not in names})


def _unwrapped(name: str, own: Mapping[str, Tensor]) -> str:
    while name not in own and name.startswith(_WRAPPERS):
        name = name.split(".", 1)[1]
    return name


def number(value: Any, what: str) -> float:
    if isinstance(value, nn.Module) or not isinstance(value, SupportsFloat):
        raise InvalidValue(f"{what} is a {type(value).__name__}; expected one number.")
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidValue(f"{what} is not one number: {error}.") from error
