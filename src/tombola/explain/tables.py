"""Every measurement that needs no training, as tables: a row per layer or level, means over families with intervals."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any, Final, final

from tombola.analysis import connectivity
from tombola.analysis.densities import densities
from tombola.analysis.early import distances
from tombola.analysis.family import Observed, one_shot_masks
from tombola.analysis.movement import movement
from tombola.analysis.overlap import agreement
from tombola.analysis.paths import effective
from tombola.analysis.shape import shape
from tombola.analysis.signs import flips
from tombola.analysis.supermask import supermasks
from tombola.analysis.survival import survival
from tombola.errors import InvalidValue, TombolaError
from tombola.explain.material import Material
from tombola.seeds import generator
from tombola.stats.comparison import mean_interval
from tombola.types import Seed, Snapshot

Cell = str | float | int | None

_PAIRS: Final = 5
"""Pairs of initialisations whose barrier is measured: each takes as many evaluations as a family's own."""


@final
@dataclass(frozen=True)
class Table:
    """What was measured of one thing.

    Attributes:
        name: a word, as files are called.
        title: for a person, with the unit.
        headings: of the columns.
        rows: plain values; ``None`` where there is none.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@final
@dataclass(frozen=True)
class Missing:
    """What could not be measured, and why."""

    name: str
    why: str


def tables(material: Material, level: int, *, seed: Seed, alpha: float = 0.05) -> Iterator[Table | Missing]:
    """Measure one thing after another.

    Args:
        material: the run.
        level: whose counts and masks are looked at.
        seed: of ties and random scores.
        alpha: intervals cover ``1 - alpha``, over families.

    Yields:
        A table for each measurement, or why there is none.
    """
    look = _Look(material, level, seed, alpha)
    for name, measure in _MEASURES.items():
        try:
            yield measure(look)
        except TombolaError as error:
            yield Missing(name, str(error))


@final
class _Look:
    """A run at a level."""

    def __init__(self, material: Material, level: int, seed: Seed, alpha: float) -> None:
        self.material, self.level, self.seed, self.alpha = material, level, seed, alpha
        self.counts = material.counts(level)
        self.families = material.families
        self.one_shot = [
            [one_shot_masks(end, self.counts, self.ties(one, k)) for k, end in enumerate(one.ends)]
            for one in self.families
        ]

    def ties(self, one: Observed, run: int = 0) -> Any:
        return generator(Seed(self.seed.root, one.replicate), "control", "analyze", run)

    def mean(self, values: Iterable[float | None]) -> tuple[Cell, Cell, Cell]:
        """Give the mean over families and the ends of its interval."""
        known = [value for value in values if value is not None and math.isfinite(value)]
        if not known:
            return None, None, None
        if len(known) == 1:
            return known[0], None, None
        interval = mean_interval(known, self.alpha)
        return interval.mean, interval.low, interval.high

    def by_layer(self, found: Sequence[Mapping[str, Any]], *of: Callable[[Any], float | None]) -> Iterator[Any]:
        """Give a row per layer: its name, and each quantity's mean with its interval."""
        for layer in found[0]:
            yield (layer, *(cell for one in of for cell in self.mean(one(each[layer]) for each in found)))


def _interval(*names: str) -> tuple[str, ...]:
    return tuple(heading for name in names for heading in (name, "low", "high"))


def _movement(look: _Look) -> Table:
    found = [movement(one.theta_0, one.ends[0], look.counts) for one in look.families]
    return Table(
        "movement",
        "How far dense training moved the weights: |w_T - w_0| over |w_0| as norms, and corr(|w_0|, |w_T|)",
        ("layer", *_interval("relative", "correlation")),
        tuple(look.by_layer(found, lambda one: one.relative, lambda one: one.correlation)),
    )


def _quantiles(look: _Look) -> Table:
    found = [movement(one.theta_0, one.ends[0], look.counts) for one in look.families]
    rows = [
        (layer, q, *look.mean(each[layer].quantiles[k][1] for each in found))
        for layer in found[0]
        for k, (q, _) in enumerate(found[0][layer].quantiles)
    ]
    return Table("quantiles", "Quantiles of |w_T - w_0|", ("layer", "quantile", *_interval("moved")), tuple(rows))


def _survival(look: _Look) -> Table:
    found = [survival(one.theta_0, masks[0]) for one, masks in zip(look.families, look.one_shot, strict=True)]
    return Table(
        "survival",
        "Survival of a one-shot cut by initial magnitude: AUC of |w_0| (0.5 is no relation), mean |w_0| kept / pruned",
        ("layer", *_interval("auc", "ratio")),
        tuple(
            look.by_layer(
                found,
                lambda one: one.auc,
                lambda one: one.mean_kept / one.mean_pruned if one.mean_kept and one.mean_pruned else None,
            )
        ),
    )


def _deciles(look: _Look) -> Table:
    found = [survival(one.theta_0, masks[0]) for one, masks in zip(look.families, look.one_shot, strict=True)]
    rows = [
        (layer, k + 1, *look.mean(each[layer].deciles[k].survived for each in found))
        for layer in found[0]
        for k in range(10)
    ]
    return Table(
        "deciles", "Share kept by decile of |w_0|, smallest first", ("layer", "decile", *_interval("kept")), tuple(rows)
    )


def _signs(look: _Look) -> Table:
    found = [flips(one.theta_0, one.ends[0], masks[0]) for one, masks in zip(look.families, look.one_shot, strict=True)]
    return Table(
        "signs",
        "Signs that training flipped, as shares of the weights that moved, and the log odds ratio kept over pruned",
        ("layer", *_interval("all", "kept", "pruned", "log odds")),
        tuple(
            look.by_layer(
                found,
                lambda one: one.rate,
                lambda one: one.rate_kept,
                lambda one: one.rate_pruned,
                lambda one: one.log_odds_ratio,
            )
        ),
    )


def _overlap(look: _Look) -> Table:
    two = [masks[:2] for masks in look.one_shot if len(masks) > 1]
    if not two:
        raise InvalidValue("the overlap of two data orders takes two dense runs a family: --dense-runs 2 or more.")
    found = [agreement(*masks) for masks in two]
    return Table(
        "overlap",
        "One-shot masks of two data orders of one initialisation: overlap over chance within inputs, and Jaccard",
        ("layer", *_interval("ratio", "jaccard", "jaccard by chance")),
        tuple(look.by_layer(found, lambda one: one.ratio, lambda one: one.jaccard, lambda one: one.chance_jaccard)),
    )


def _initialisations(look: _Look) -> Table:
    pairs = list(combinations([masks[0] for masks in look.one_shot], 2))
    if not pairs:
        raise InvalidValue("the overlap between initialisations takes two families: --replicates 2 or more.")
    found = [agreement(*pair) for pair in pairs]
    rows = [
        (layer, _fmean(each[layer].ratio for each in found), _fmean(each[layer].jaccard for each in found))
        for layer in found[0]
    ]
    return Table(
        "initialisations",
        f"One-shot masks of different initialisations, mean over {len(pairs)} pairs: overlap over chance, and Jaccard",
        ("layer", "ratio", "jaccard"),
        tuple(rows),
    )


def _fmean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _densities(look: _Look) -> Table:
    rows = []
    for level, nominal in look.material.levels.items():
        found = [densities(one.masks[level]) for one in look.families]
        rows += [(level, nominal, *row) for row in look.by_layer(found, lambda one: one.density)]
    headings = ("level", "density", "layer", *_interval("density of the layer"))
    return Table("densities", "Density of each layer under the search's own masks", headings, tuple(rows))


def _effective(look: _Look) -> Table:
    if look.material.example is None:
        raise InvalidValue("paths are followed through the network, and neither it nor an example is at hand.")
    module = look.material.module()
    rows = []
    for level, nominal in look.material.levels.items():
        found = [effective(module, look.material.example, one.masks[level]).effective_density for one in look.families]
        rows.append((level, nominal, *look.mean(found)))
    return Table(
        "effective",
        "Effective density: the share of the prunable weights on a path of survivors from input to output",
        ("level", "density", *_interval("effective")),
        tuple(rows),
    )


def _shape(look: _Look) -> Table:
    found = [shape({n: m for n, m in one.masks[look.level].items() if m.dim() > 1}) for one in look.families]
    if not found[0]:
        raise InvalidValue("rows and columns are of tensors of two axes, and none is pruned here.")
    return Table(
        "shape",
        "Rows and columns of the survivors: share of empty outputs and inputs, and variance over chance (1 is chance)",
        ("layer", *_interval("empty outputs", "empty inputs", "variance of outputs", "variance of inputs")),
        tuple(
            look.by_layer(
                found,
                lambda one: one.outputs.empty,
                lambda one: one.inputs.empty,
                lambda one: one.outputs.variance_ratio,
                lambda one: one.inputs.variance_ratio,
            )
        ),
    )


def _settling(look: _Look) -> Table:
    rows = []
    for level, nominal in look.material.levels.items():
        counted = look.material.counts(level)
        found = [
            distances(one_shot_masks(one.ends[0], counted, look.ties(one)), one.masks[level]).pooled
            for one in look.families
        ]
        rows.append((level, nominal, *look.mean(d.corrected for d in found), *look.mean(d.jaccard for d in found)))
    return Table(
        "one-shot",
        "The search's masks against one cut of the dense network: distance over chance (1 is chance), and Jaccard",
        ("level", "density", *_interval("distance", "jaccard")),
        tuple(rows),
    )


def _supermasks(look: _Look) -> Table:
    found = []
    for one in look.families:
        accuracy, buffers = _eyes(look.material, one.replicate), look.material.buffers[one.replicate]
        found.append(
            supermasks(
                one.theta_0,
                one.ends[0],
                look.counts,
                lambda params, see=accuracy, beside=buffers: see(Snapshot(0, params, beside)),  # type: ignore[misc]
                generator=look.ties(one),
            )
        )
    return Table(
        "supermasks",
        "Accuracy on validation of masks on the initial weights, biases zero, without training",
        ("criterion", *_interval("accuracy", "sign constant")),
        tuple(look.by_layer(found, lambda one: one.accuracy, lambda one: one.sign_constant)),
    )


def _barriers(look: _Look) -> Table:
    rows: list[tuple[Cell, ...]] = []
    within = [
        connectivity.path(
            Snapshot(0, one.ends[0], look.material.buffers[one.replicate]),
            Snapshot(0, one.ends[1], look.material.buffers[one.replicate]),
            _error(look.material, one.replicate),
            recalibrate=_again(look.material, one.replicate),
        )
        for one in look.families
        if len(one.ends) > 1
    ]
    across = [
        connectivity.path(
            Snapshot(0, first.ends[0], look.material.buffers[first.replicate]),
            Snapshot(0, second.ends[0], look.material.buffers[first.replicate]),
            _error(look.material, first.replicate),
            recalibrate=_again(look.material, first.replicate),
        )
        for first, second in islice(combinations(look.families, 2), _PAIRS)
    ]
    for name, paths in (("another data order", within), ("another initialisation", across)):
        if paths:
            rows.append((name, len(paths), *look.mean(one.barrier for one in paths)))
    if not rows:
        raise InvalidValue("the line between two networks takes two of them: --dense-runs 2 or --replicates 2.")
    return Table(
        "barriers",
        "Error barrier on the line between two dense networks, on validation; stable below 0.02",
        ("between", "pairs", *_interval("barrier")),
        tuple(rows),
    )


def _eyes(material: Material, replicate: int) -> Callable[[Snapshot], float]:
    if not material.eyes:
        raise InvalidValue(
            "networks are evaluated, and nothing to evaluate them with is at hand. For a loop of your own pass --build "
            "and --score, functions that build the network and score it."
        )
    return material.eyes[replicate].accuracy


def _error(material: Material, replicate: int) -> Callable[[Snapshot], float]:
    accuracy = _eyes(material, replicate)
    return lambda network: 1 - accuracy(network)


def _again(material: Material, replicate: int) -> Callable[[Snapshot], Snapshot] | None:
    return None if not material.eyes else material.eyes[replicate].recalibrated


_MEASURES: Final[Mapping[str, Callable[[_Look], Table]]] = {
    "movement": _movement,
    "quantiles": _quantiles,
    "survival": _survival,
    "deciles": _deciles,
    "signs": _signs,
    "overlap": _overlap,
    "initialisations": _initialisations,
    "one-shot": _settling,
    "densities": _densities,
    "effective": _effective,
    "shape": _shape,
    "supermasks": _supermasks,
    "barriers": _barriers,
}
