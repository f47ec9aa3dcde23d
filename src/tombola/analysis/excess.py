"""Excess: what one family's measurements are beyond a null that contains no seeking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, final

from tombola.analysis.family import Observed, one_shot_masks
from tombola.analysis.null import without_seeking
from tombola.analysis.overlap import agreement
from tombola.analysis.signs import flips
from tombola.analysis.supermask import Evaluate, found_mask, start
from tombola.analysis.survival import auc, ranks
from tombola.errors import InvalidValue
from tombola.prune.counting import Counts
from tombola.seeds import generator
from tombola.types import Params, Seed

DRAWS: Final = 8
"""Draws of the null for each family. Their mean's own scatter adds an eighth to the variance of an excess."""

NETWORK: Final = "network"
"""What stands for a layer where a measurement is of the network as a whole."""

_LESS_IS_MORE: Final = frozenset({"signs"})
"""Measurements that the conjecture says are *below* the null."""

Layers = Mapping[str, float]


@final
@dataclass(frozen=True)
class Excess:
    """One measurement of one family.

    Attributes:
        real: on what was trained; the mean over the layers, each weighing the same.
        null: the mean over the draws of the null.
        excess: what the real value is beyond the null in the direction that the conjecture predicts; its expectation is
            0 where nothing seeks.
        layers: layer -> (real, null).
    """

    real: float
    null: float
    excess: float
    layers: Mapping[str, tuple[float, float]]


def excesses(
    family: Observed, counts: Counts, *, seed: Seed, draws: int = DRAWS, evaluate: Evaluate | None = None
) -> dict[str, Excess]:
    """Measure one family against the null: its one-shot masks, and what it takes to have them by chance.

    On the weights of the dense runs as they ended, and in the same way on each draw of
    :func:`~tombola.analysis.null.without_seeking`:

    - ``survival``: the AUC of ``|w_0|`` for being kept;
    - ``signs``: the log odds ratio of a sign flip, kept over pruned (the excess is null minus real);
    - ``overlap``: the log of the overlap of the masks of two data orders over chance within inputs; in the null the two
      runs' displacements are permuted independently. For a family with two dense runs;
    - ``supermask``: the accuracy of the large-final-same-sign mask on ``theta_0``, biases zero; where ``evaluate`` is
      given.

    Args:
        family: what was observed.
        counts: name -> how many weights of the tensor are kept at the density looked at. Tensors of one axis have no
            inputs to permute within, and are not measured.
        seed: of the draws; its replicate is the family's.
        draws: of the null, at least 1.
        evaluate: ``params -> accuracy`` on the family's data.

    Returns:
        measurement -> what it is beyond the null; those that cannot be taken are absent.

    Raises:
        InvalidValue: no draws, or counts without a tensor of two axes, or for a tensor that is not prunable.
        ImpossibleDensity: more are to be kept than there are.
    """
    wanted = layers_of(family, counts)
    if draws < 1:
        raise InvalidValue(f"{draws} draws of the null; a mean takes at least 1, and the default is {DRAWS}.")
    mine = Seed(seed.root, family.replicate)
    places = {name: ranks(family.theta_0[name].detach().double().abs()) for name in wanted}
    runs = family.ends[:2]

    def measured(ends: Sequence[Params], draw: int) -> dict[str, Layers]:
        rng = generator(mine, "control", "no seeking", "ties", draw)
        masks = [one_shot_masks(end, wanted, rng) for end in ends]
        found: dict[str, Layers] = {
            "survival": _known({name: auc(places[name], mask.cpu()) for name, mask in masks[0].items()}),
            "signs": _known({n: f.log_odds_ratio for n, f in flips(family.theta_0, ends[0], masks[0]).items()}),
        }
        if len(ends) > 1:
            found["overlap"] = {name: one.log_ratio for name, one in agreement(*masks).items()}
        if evaluate is not None:
            mask = found_mask("large-final-same-sign", family.theta_0, ends[0], wanted, rng)
            found["supermask"] = {NETWORK: evaluate(start(family.theta_0, mask))}
        return found

    def drawn(draw: int) -> dict[str, Layers]:
        # Runs and draws have streams of their own, so a further draw or run leaves the others as they are.
        rngs = [generator(mine, "control", "no seeking", run, draw) for run in range(len(runs))]
        ends = [without_seeking(family.theta_0, end, wanted, rng) for end, rng in zip(runs, rngs, strict=True)]
        return measured(ends, draw)

    real = measured(runs, 0)
    nulls = [drawn(draw) for draw in range(1, draws + 1)]
    found = {
        name: beyond(layers, [null[name] for null in nulls], name in _LESS_IS_MORE) for name, layers in real.items()
    }
    return {name: one for name, one in found.items() if one is not None}


def beyond(real: Layers, nulls: Sequence[Layers], less: bool = False) -> Excess | None:
    """Set a measurement by layer against draws of its null.

    Args:
        real: layer -> value.
        nulls: the same for each draw.
        less: whether the prediction is that the real value lies below.

    Returns:
        The excess over the layers that have a value throughout; ``None`` without one.
    """
    both = {
        name: (value, fmean(null[name] for null in nulls))
        for name, value in real.items()
        if all(name in null for null in nulls)
    }
    if not both:
        return None
    first, second = fmean(pair[0] for pair in both.values()), fmean(pair[1] for pair in both.values())
    return Excess(first, second, second - first if less else first - second, both)


def layers_of(family: Observed, counts: Counts) -> dict[str, int]:
    """Give the counts of the tensors that can be measured: prunable, and of two axes or more.

    Raises:
        InvalidValue: there is none, or a count for a tensor that is not prunable.
    """
    strange = [name for name in counts if name not in family.prunable]
    if strange:
        raise InvalidValue(
            f"counts are given for {', '.join(strange)}, and what is prunable in family {family.replicate} is "
            f"{', '.join(family.prunable)}. Give the counts of a mask of its search."
        )
    found = {name: count for name, count in counts.items() if family.theta_0[name].dim() > 1}
    if not found:
        raise InvalidValue(
            f"the counts are for {', '.join(counts) or 'nothing'}, and the null needs a tensor of outputs and inputs. "
            "Give the counts of the weights of linear layers or convolutions."
        )
    return found


def _known(layers: Mapping[str, float | None]) -> Layers:
    return {name: value for name, value in layers.items() if value is not None}
