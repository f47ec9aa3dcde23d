"""What is seen of a ticket without training it: its start values and its mask beside a run's."""

import torch

from tombola.analysis.overlap import agreement
from tombola.explain.tables import Cell, Table
from tombola.prune.masks import per_layer
from tombola.types import Masks, Params


def checkup(masks: Masks, start: Params, *, healthy: Params, reference: Masks) -> Table:
    """Compare a ticket with what a run would have it be, tensor by tensor.

    Args:
        masks: the ticket's.
        start: its values; only survivors are looked at.
        healthy: the values that it should start from, by the run.
        reference: the run's own mask at the same counts.

    Returns:
        A row for each masked tensor: weights kept, of how many; the shares of survivors whose start value is the run's
        and whose sign is; the correlation of the two; the overlap of the masks over chance within inputs.
    """
    overlaps = agreement(masks, reference)
    rows: list[tuple[Cell, ...]] = []
    for name, (kept, total) in per_layer(masks).items():
        ours, theirs = start[name][masks[name]].double(), healthy[name][masks[name]].double()
        if kept:
            equal = float((ours == theirs).double().mean())
            signs = float((ours.sign() == theirs.sign()).double().mean())
            values: tuple[Cell, ...] = (equal, signs, _correlation(ours, theirs))
        else:
            values = (None, None, None)
        rows.append((name, kept, total, *values, overlaps[name].jaccard, overlaps[name].ratio))
    return Table(
        "why-checks",
        "The ticket beside the run, without training: shares of survivors with the run's start value, and with its "
        "sign, their correlation; Jaccard of the mask with the run's own, and overlap over chance within inputs",
        ("layer", "kept", "of", "values equal", "signs equal", "correlation", "jaccard", "overlap"),
        tuple(rows),
    )


def _correlation(first: torch.Tensor, second: torch.Tensor) -> float | None:
    if first.numel() < 2 or not bool(first.std() > 0) or not bool(second.std() > 0):
        return None
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1].clamp(-1, 1))
