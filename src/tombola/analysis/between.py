"""Between initialisations: what the masks of different families share, as they are and with their units aligned."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import final

from tombola.analysis.alignment import align, permuted
from tombola.analysis.excess import layers_of
from tombola.analysis.family import Observed, one_shot_masks
from tombola.analysis.overlap import agreement
from tombola.prune.counting import Counts
from tombola.prune.structure import Group
from tombola.seeds import generator
from tombola.types import Masks, Seed


@final
@dataclass(frozen=True)
class Between:
    """Overlap over chance within inputs of the one-shot masks of two initialisations; 1 is chance.

    Attributes:
        pairs: of families compared.
        raw: geometric mean over pairs and layers, units in the order they came in.
        aligned: the same with the second's units aligned to the first's; ``None`` without groups.
        layers: layer -> (raw, aligned).
    """

    pairs: int
    raw: float
    aligned: float | None
    layers: Mapping[str, tuple[float, float | None]]


def between(
    families: Sequence[Observed], counts: Counts, *, seed: Seed, groups: Sequence[Group] = ()
) -> Between | None:
    """Compare the masks of every two families.

    Alignment is by trained weights (:func:`~tombola.analysis.alignment.align`) and makes masks overlap whatever the
    networks are, since it looks for large weights that meet; so it is reported and not tested. Adnan et al. (2025).

    Args:
        families: of one network.
        counts: name -> how many weights are kept.
        seed: breaks ties and draws the turns of the alignment.
        groups: the hidden units, as :func:`tombola.models.groups.units` finds them.

    Returns:
        ``None`` for fewer than two families.

    Raises:
        InvalidValue, ImpossibleDensity: as :func:`~tombola.analysis.excess.excesses`.
        ShapeMismatch: the families are not of one network.
    """
    masks = []
    for one in families:
        ties = generator(Seed(seed.root, one.replicate), "control", "no seeking", "between")
        masks.append(one_shot_masks(one.ends[0], layers_of(one, counts), ties))
    raw: list[dict[str, float]] = []
    aligned: list[dict[str, float]] = []
    for first, second in combinations(range(len(families)), 2):
        raw.append(_logs(masks[first], masks[second]))
        if groups:
            ends = families[first].ends[0], families[second].ends[0]
            turns = generator(seed, "control", "align", families[first].replicate, families[second].replicate)
            aligned.append(_logs(masks[first], permuted(masks[second], groups, align(*ends, groups, turns))))
    if not raw:
        return None
    layers = {name: (_mean(raw, name), _mean(aligned, name) if aligned else None) for name in raw[0]}
    return Between(len(raw), _all(raw), _all(aligned) if aligned else None, layers)


def _logs(first: Masks, second: Masks) -> dict[str, float]:
    return {name: one.log_ratio for name, one in agreement(first, second).items()}


def _mean(logs: Sequence[Mapping[str, float]], name: str) -> float:
    return math.exp(fmean(one[name] for one in logs))


def _all(logs: Sequence[Mapping[str, float]]) -> float:
    return math.exp(fmean(value for one in logs for value in one.values()))
