"""Connectivity: whether two networks lie in one valley, by the error on the straight line between them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from torch import Tensor

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.types import Params, Snapshot, Step

POINTS: Final = 30
STABLE_BELOW: Final = 0.02

Evaluate = Callable[[Snapshot], float]
"""``snapshot -> error``, a fraction wrong; a loss works too, where :meth:`Path.stable` does not."""


@final
@dataclass(frozen=True)
class Path:
    """Errors on the straight line between two networks.

    Attributes:
        alphas: evenly spaced from 0 (the second network) to 1 (the first).
        errors: at each, fractions.
    """

    alphas: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def barrier(self) -> float:
        """The instability of Frankle et al. (2020), section 2: the largest error minus the mean of the two ends'.

        The ends are on the path, so it is half their difference at the least.
        """
        return max(self.errors) - (self.errors[0] + self.errors[-1]) / 2

    def stable(self, threshold: float = STABLE_BELOW) -> bool:
        """Whether the barrier is below a threshold; 2 % of the examples is Frankle et al.'s."""
        return self.barrier < threshold


def path(
    first: Snapshot,
    second: Snapshot,
    evaluate: Evaluate,
    points: int = POINTS,
    *,
    recalibrate: Callable[[Snapshot], Snapshot] | None = None,
) -> Path:
    r"""Evaluate :math:`\alpha W_1 + (1 - \alpha) W_2` at evenly spaced :math:`\alpha`, both ends included.

    Frankle et al. (2020), section 2, with its 30 points. Statistics of batch norm are never interpolated: those of a
    mixture are not the mixture of its ends', and every network would look unstable. Where the two have buffers that
    differ, ``recalibrate`` is needed; it is then asked at every point, the ends too, and is given those of the first.

    Args:
        first: :math:`W_1`.
        second: :math:`W_2`, of the same network, on the same device.
        evaluate: gives the error of a snapshot.
        points: at least 2.
        recalibrate: gives a snapshot with its batch-norm statistics measured again, such as
            :func:`tombola.train.recalibrate.recalibrated` does with the network, its masks and batches filled in.

    Raises:
        ShapeMismatch: the two are not of one network.
        InvalidValue: fewer than 2 points; or buffers that differ, and no ``recalibrate``.

    Example:
        >>> one, other = (Snapshot(0, {"w": torch.tensor([w])}) for w in (1.0, -1.0))
        >>> path(one, other, lambda at: 1 - float(at.params["w"].abs()), 3)
        Path(alphas=(0.0, 0.5, 1.0), errors=(0.0, 1.0, 0.0))
    """
    if points < 2:
        raise InvalidValue(f"a path of {points} points has not both its ends. Use at least 2; the paper has {POINTS}.")
    _check(first.params, second.params, "parameter")
    _check(first.buffers, second.buffers, "buffer")
    odd = [name for name, value in first.buffers.items() if not torch.equal(value, second.buffers[name])]
    if odd and recalibrate is None:
        raise InvalidValue(
            f"the two networks differ in {len(odd)} buffers, such as {odd[0]!r}, and statistics between them are not a "
            "mixture of theirs. Pass recalibrate=..., which measures them again at each point."
        )
    alphas = tuple(point / (points - 1) for point in range(points))
    found = []
    for alpha in alphas:
        here = replace(first, params=_mixed(first.params, second.params, alpha), optimizer=None)
        found.append(float(evaluate(here if recalibrate is None else recalibrate(here))))
    return Path(alphas, tuple(found))


@final
@dataclass(frozen=True)
class StableFrom:
    """Where training has become stable to the noise of its data order.

    Attributes:
        step: the smallest step that is stable; ``None`` where the last one is not.
        seen: the steps that were looked at with the instability of each, in order of step.
    """

    step: Step | None
    seen: tuple[tuple[Step, float], ...]


def smallest_stable_step(
    instability: Callable[[Step], float], last: Step, first: Step = 0, threshold: float = STABLE_BELOW
) -> StableFrom:
    """Find the smallest step from which two copies of a network train into one valley, by bisection.

    Frankle et al. (2020), section 3, ask from which rewinding step on a network is stable; each answer takes two
    trainings, so few steps are looked at: the ends, and then at most ``ceil(log2(last - first))``.

    It assumes that what is stable at one step stays so at every later one. Where instability is not monotone around the
    threshold, the step found is stable and one before it among those seen is not, and a smaller stable one may exist.

    Args:
        instability: ``step -> barrier`` between two copies trained from that step on in different data orders, a
            fraction.
        last: the last step that is of interest.
        first: the first.
        threshold: a step is stable below it.

    Raises:
        InvalidValue: the last step lies before the first, or an instability is NaN.

    Example:
        >>> smallest_stable_step(lambda step: 0.3 if step < 5 else 0.0, last=16)
        StableFrom(step=5, seen=((0, 0.3), (4, 0.3), (5, 0.0), (6, 0.0), (8, 0.0), (16, 0.0)))
    """
    if last < first:
        raise InvalidValue(f"the last step, {last}, lies before the first, {first}. Swap them.")
    seen: dict[Step, float] = {}

    def stable(step: Step) -> bool:
        if step not in seen:
            seen[step] = float(instability(step))
            if seen[step] != seen[step]:
                raise InvalidValue(
                    f"the instability at step {step} is NaN, which is neither stable nor not. Look for a run that "
                    "diverged, and lower the learning rate."
                )
        return seen[step] < threshold

    found: Step | None = None
    if stable(first):
        found = first
    elif stable(last):
        low, found = first, last
        while found - low > 1:
            middle = (low + found) // 2
            low, found = (low, middle) if stable(middle) else (middle, found)
    return StableFrom(found, tuple(sorted(seen.items())))


def _mixed(first: Params, second: Params, alpha: float) -> dict[str, Tensor]:
    if alpha in (0, 1):
        # Infinite weights would make NaN of a product with zero.
        return dict(first if alpha else second)
    return {name: alpha * value + (1 - alpha) * second[name] for name, value in first.items()}


def _check(first: Params, second: Params, what: str) -> None:
    if first.keys() != second.keys():
        odd = ", ".join(sorted(first.keys() ^ second.keys()))
        raise ShapeMismatch(f"only one of the two networks has the {what} {odd}. Connect two of one architecture.")
    for name, value in first.items():
        if value.shape != second[name].shape:
            raise ShapeMismatch(
                f"the {what} {name!r} has shape {tuple(value.shape)} in the first network and "
                f"{tuple(second[name].shape)} in the second. Connect two of one architecture."
            )
