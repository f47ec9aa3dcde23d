"""The subnetwork of a search that is saved: which level, which family, and everything a ticket says of itself."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tombola import models
from tombola.prune.masks import apply
from tombola.search.book import Book
from tombola.search.finding import Chosen
from tombola.search.setup import Setup
from tombola.stats import Judgement, LevelVerdict, Verdict
from tombola.ticket import Ticket
from tombola.train.plain import load
from tombola.types import Masks, Snapshot


def choose(setup: Setup, book: Book, judgement: Judgement, about: Mapping[str, Any]) -> Chosen:
    """Take the certified level, or the next best; of its families the one that validation likes best."""
    by_density = {verdict.density: verdict for verdict in judgement.levels}
    levels = {level: by_density[book.at[level].density] for level in book.candidates}
    level, why = best_level(levels)
    among = {r: book.candidates[level][r] for r in judgement.replicates}
    ranks = {r: one.validation for r, one in among.items() if one.validation is not None}
    if len(ranks) == len(among):
        replicate = min(ranks, key=lambda r: (ranks[r], r))
        why = f"{why}; of its families number {replicate} has the best validation"
    else:
        replicate = min(among)
        why = f"{why}; of its families the first, for the loop reported no validation to choose by"
    best = among[replicate]
    start, end = whole(best.start, best.masks), whole(best.end, best.masks)
    lineage = [book.lineage[replicate][one] for one in book.path(level)]
    provenance = {
        **about,
        "level": level,
        "replicate": replicate,
        "density": book.at[level].density,
        "verdict": levels[level].verdict.value,
        "verdict_sentence": levels[level].sentence,
        "certified": dict(judgement.certified),
        "chosen": why,
        "reported": vars(best.run),
        "start_step": start.step,
        "end_step": end.step,
        "lineage": lineage,
    }
    init = next(family.init for family in setup.families if family.replicate == replicate)
    late = setup.plan.pruner.keeps_start_values and start.step > 0
    ticket = Ticket(
        start=start.params,
        masks=best.masks,
        buffers=start.buffers,
        provenance=provenance,
        theta_0=apply(init.params, best.masks) if late else None,
        parent=best.parent if len(lineage) > 2 else None,
    )
    return Chosen(
        ticket=ticket,
        trained=end.params,
        masks=best.masks,
        buffers=end.buffers,
        tied=setup.tied,
        network=_network(setup, end),
        why=why,
    )


def whole(snapshot: Snapshot, masks: Masks) -> Snapshot:
    """Undo :func:`tombola.search.book.survivors`."""
    params = dict(snapshot.params)
    for name, mask in masks.items():
        params[name] = torch.zeros(mask.shape, dtype=params[name].dtype).masked_scatter_(mask, params[name])
    return replace(snapshot, params=params)


def _network(setup: Setup, end: Snapshot) -> nn.Module:
    """Build the trained sparse network, in evaluation mode."""
    with models.DRAWING, torch.random.fork_rng(devices=()):
        network = setup.build()
    load(network, end)
    return network.eval()


def best_level(levels: Mapping[int, LevelVerdict]) -> tuple[int, str]:
    """Give the level to keep, and why."""
    good = (Verdict.WINS, Verdict.MATCHES, Verdict.MATCHES_NO_EFFECT)
    for wanted, why in (
        ([n for n, v in levels.items() if v.certified], "the sparsest certified level"),
        ([n for n, v in levels.items() if v.verdict in good], "nothing is certified; the sparsest level that matches"),
        (
            [n for n, v in levels.items() if v.verdict is not Verdict.LOSES],
            "nothing is certified and nothing matches; the sparsest level that does not lose",
        ),
    ):
        if wanted:
            return max(wanted), why
    return min(levels), "every level loses; the densest of them"
