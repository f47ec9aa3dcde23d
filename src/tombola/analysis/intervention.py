"""The intervention: move the initial values before training, and see whether the mask moves with them.

The conjecture says that a mask is where it is because of the initial values there. If so, permuting these values over
the outputs within each input and training again must give the mask permuted in the same way: each input is the same,
and only which of its weights holds which value is another.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from tombola.analysis.excess import DRAWS, Excess, beyond
from tombola.analysis.family import one_shot_masks
from tombola.analysis.measurement import ALPHA, Measurement, measure
from tombola.analysis.null import orders, reordered, without_seeking
from tombola.analysis.overlap import agreement
from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune.counting import Counts
from tombola.seeds import generator
from tombola.types import Params, Seed, Snapshot

Orders = Mapping[str, Tensor]
"""Name -> int64 of the tensor's shape: ``[o, i]`` is the output whose initial value of input ``i`` output ``o`` got."""


def permuted_start(
    snapshot: Snapshot, prunable: Collection[str], generator: torch.Generator
) -> tuple[Snapshot, dict[str, Tensor]]:
    """Permute the initial values of each tensor over its outputs, within each input.

    Args:
        snapshot: at initialisation, without an optimiser's state.
        prunable: the tensors to do this to; those of one axis stay as they are.
        generator: a CPU generator.

    Returns:
        The new start, with all else as it was; and the orders, for :func:`follow`.

    Raises:
        InvalidValue: the snapshot carries an optimiser's state, which would belong to other values.
    """
    if snapshot.optimizer:
        raise InvalidValue(
            f"the snapshot at step {snapshot.step} carries an optimiser's state, which belongs to the values where "
            "they were. Permute the start values of a fresh run."
        )
    drawn = orders(snapshot.params, prunable, generator)
    moved = {name: reordered(snapshot.params[name], order) for name, order in drawn.items()}
    return replace(snapshot, params={**snapshot.params, **moved}), drawn


def follow(
    first: tuple[Params, Params],
    second: tuple[Params, Params],
    permutation: Orders,
    counts: Counts,
    *,
    seed: Seed,
    draws: int = DRAWS,
) -> Excess:
    """Measure whether the mask of one family went along with its initial values.

    The log of the overlap of the second run's one-shot mask with the first's moved along, over chance within inputs;
    minus the same with both masks from displacements permuted independently. Without seeking its expectation is 0: a
    survivor follows its large initial value mechanically, and does so in the null as well.

    Args:
        first: ``theta_0`` and ``theta_T`` of the run as it was.
        second: those of the run from the permuted start, in the same data order.
        permutation: the orders that :func:`permuted_start` gave.
        counts: name -> how many weights are kept; tensors without an order are not measured.
        seed: of the draws; root and replicate count.
        draws: of the null, at least 1.

    Raises:
        InvalidValue: no draws; no tensor that was permuted; or the second start is not the first one permuted.
        ShapeMismatch: a tensor is missing, or has another shape.
        ImpossibleDensity: more weights are to be kept than there are.
    """
    wanted = {name: count for name, count in counts.items() if name in permutation}
    if not wanted or draws < 1:
        raise InvalidValue(
            f"{len(wanted)} of the {len(counts)} tensors counted were permuted, and {draws} draws of the null are "
            "asked for. At least one of each is needed."
        )
    for name in wanted:
        _check(name, first[0], second[0], permutation)

    def overlaps(old: Params, new: Params, draw: int) -> dict[str, float]:
        ties = generator(seed, "control", "follow", "ties", draw)
        masks = one_shot_masks(old, wanted, ties)
        along = {name: reordered(mask, permutation[name]) for name, mask in masks.items()}
        return {name: one.log_ratio for name, one in agreement(along, one_shot_masks(new, wanted, ties)).items()}

    def drawn(draw: int) -> dict[str, float]:
        rngs = (generator(seed, "control", "follow", run, draw) for run in range(2))
        ends = [without_seeking(*run, wanted, rng) for run, rng in zip((first, second), rngs, strict=True)]
        return overlaps(ends[0], ends[1], draw)

    found = beyond(overlaps(first[1], second[1], 0), [drawn(draw) for draw in range(1, draws + 1)])
    assert found is not None, "every layer has an overlap"
    return found


def intervention(families: Mapping[int, Excess], *, alpha: float = ALPHA) -> Measurement:
    """Judge the intervention over families, whichever way it went.

    Args:
        families: replicate -> what :func:`follow` found.
        alpha: level of each one-sided test, and of the two-sided interval.

    Returns:
        ``supports``: masks go along with the initial values more than without seeking; ``contradicts``: less. The
        initial values were set by the experiment, so this is about causes where the conjecture's own panel is not.
    """
    return measure("intervention", families, alpha=alpha, without="no family was trained from permuted values")


def _check(name: str, old: Params, new: Params, permutation: Orders) -> None:
    for values in (old, new):
        if name not in values or values[name].shape != permutation[name].shape:
            raise ShapeMismatch(
                f"{name!r} was permuted at shape {tuple(permutation[name].shape)}, and a start has "
                f"{tuple(values[name].shape) if name in values else 'no such tensor'}. Give two starts of one network."
            )
    if not torch.equal(reordered(old[name], permutation[name]), new[name]):
        raise InvalidValue(
            f"the second start of {name!r} is not the first one permuted in this order. Give the two that "
            "permuted_start made of one snapshot."
        )
