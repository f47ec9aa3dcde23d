"""Rewinding: what the survivors of a cut restart from."""

from dataclasses import dataclass, replace
from typing import Literal, final

from tombola.errors import InvalidValue
from tombola.prune.masks import apply
from tombola.types import Masks, Snapshot, Step


@final
@dataclass(frozen=True)
class Rewind:
    """A policy: which weights, which position, which optimiser state.

    Use the four named ones below. Batch-norm statistics follow the weights; the data order and the learning rate
    follow the position, so a rewound run sees the batches its dense run saw from there.

    Attributes:
        name: what records call it.
        weights: ``init``, ``step`` (those of ``step``) or ``end`` (those the last run ended with).
        position: ``step``, or ``end``: training goes on where the last run stopped.
        step: k, in iterations.
        optimizer: ``fresh``, or ``saved`` with the weights.
        extra: iterations to train when the position is ``end``; ``None`` for as many as the dense run had.
    """

    name: str
    weights: Literal["init", "step", "end"]
    position: Literal["step", "end"] = "step"
    step: Step = 0
    optimizer: Literal["fresh", "saved"] = "fresh"
    extra: int | None = None

    def __post_init__(self) -> None:
        if self.step < 0:
            raise InvalidValue(f"cannot rewind to step {self.step}; steps count from 0.")
        if self.extra is not None and self.extra < 1:
            raise InvalidValue(f"cannot fine-tune for {self.extra} iterations; at least 1 is needed.")

    @property
    def keeps_start_values(self) -> bool:
        """Whether survivors restart from early values, so that the result is a ticket and not a fine-tuned network."""
        return self.weights != "end"

    def describe(self) -> str:
        """Say the whole policy in one line, for records."""
        return (
            f"{self.name}: weights and batch-norm statistics of {self.weights if self.weights != 'step' else self.step}"
            f", learning rate and data order from {self.position if self.position == 'end' else self.step}"
            f", optimiser {self.optimizer}"
        )


def rewind_to_init() -> Rewind:
    """Restart the survivors from theta_0 (Frankle & Carbin 2019, section 2)."""
    return Rewind("init", "init")


def rewind_to_step(step: Step, optimizer: Literal["fresh", "saved"] = "fresh") -> Rewind:
    """Restart from theta_k at position k (Frankle et al. 2020, Algorithm 2).

    The optimiser starts fresh, as in the authors' code; ``saved`` restores the moments of step k.
    """
    return Rewind("step", "step", step=step, optimizer=optimizer)


def rewind_learning_rate(step: Step = 0) -> Rewind:
    """Keep the trained weights and rewind the schedule (Renda et al. 2020, section 3). Not a ticket from init."""
    return Rewind("lr", "end", step=step)


def fine_tune(extra: int | None = None) -> Rewind:
    """Keep the trained weights and go on at the final learning rate (Han et al. 2015, section 3.1)."""
    return Rewind("finetune", "end", position="end", optimizer="saved", extra=extra)


def restart(rewind: Rewind, *, init: Snapshot, at_step: Snapshot | None, end: Snapshot) -> Snapshot:
    """Give what a network restarts from, before its mask is put on.

    Args:
        rewind: the policy.
        init: theta_0.
        at_step: theta_k of the same dense run; needed when the policy rewinds to a step above 0.
        end: the network the masks were made from, after its last iteration.

    Returns:
        A snapshot whose ``step`` is the position in the schedule and the data order.

    Raises:
        InvalidValue: the policy needs ``at_step`` and there is none, or it is of another step.
    """
    if rewind.weights == "end":
        source = end
    elif rewind.weights == "init" or rewind.step == 0:
        source = init
    elif at_step is None or at_step.step != rewind.step:
        raise InvalidValue(
            f"rewinding to step {rewind.step} needs the dense run's snapshot of that step, and there is "
            f"{'none' if at_step is None else f'one of step {at_step.step}'}. Train the dense run with it in save_at."
        )
    else:
        source = at_step
    return replace(
        source,
        step=end.step if rewind.position == "end" else rewind.step,
        optimizer=source.optimizer if rewind.optimizer == "saved" else None,
    )


def masked(snapshot: Snapshot, masks: Masks) -> Snapshot:
    """Put masks on a snapshot: pruned weights are zero, and so are their moments.

    A moment left alone would move its pruned weight at the next step.
    """
    state = snapshot.optimizer
    if state is not None:
        state = {
            name: {
                slot: apply({name: value}, {name: masks[name]})[name]
                if name in masks and value.shape == masks[name].shape
                else value
                for slot, value in slots.items()
            }
            for name, slots in state.items()
        }
    return replace(snapshot, params=apply(snapshot.params, masks), optimizer=state)
