"""A search whose masks come from another: found on other data, by another optimiser, or from other initial values."""

from collections.abc import Mapping
from dataclasses import replace

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune.masks import check, counts, ones
from tombola.search.setup import Setup
from tombola.types import Masks

Given = Mapping[int, Mapping[int, Masks]]
"""Replicate -> level -> masks over the prunable tensors."""


def transferred(setup: Setup, given: Given, where: str) -> Setup:
    """Give a search the masks of another one; its families keep their own initial values, data and order.

    Morcos et al. (2019), section 3, transfer a ticket with its values; here the values are the family's own. With one
    network and one seed those are the values that the masks were found from, and with another seed they are not.

    Args:
        setup: with the strategy ``transfer``.
        given: of as many families as the search has, at least; the first of them are taken.
        where: the other search's folder, for messages.

    Returns:
        The search whose levels, and gates, are those of the masks.

    Raises:
        InvalidValue: there are too few families, or no level.
        ShapeMismatch: the masks are of another network, or of another choice of what is pruned.
    """
    donors = [given[r] for r in sorted(given)]
    if len(donors) < len(setup.families) or not donors or not donors[0]:
        raise InvalidValue(
            f"the search in {where} has masks of {len(donors)} families, and {len(setup.families)} are asked for. Use "
            f"--replicates {len(donors)}, or a search with more."
        )
    if "one-shot" in setup.plan.controls:
        raise InvalidValue(
            "the control one-shot prunes as the strategy does, and transfer prunes nothing. Leave it out."
        )
    params, names = setup.families[0].init.params, setup.plan.scope.prunable
    for donor in donors:
        for masks in donor.values():
            if masks.keys() != set(names):
                raise ShapeMismatch(
                    f"the masks in {where} are over {', '.join(sorted(masks))}, and here {', '.join(names)} are "
                    "pruned. Take the same network, scope and exclusions for both."
                )
            check(params, masks)
    old = sorted(donors[0])
    levels = (counts(ones(params, names)), *(counts(donors[0][level]) for level in old))
    plan = replace(setup.plan, levels=levels, gates=tuple(range(1, len(levels))))
    families = tuple(
        replace(family, given={new: donor[level] for new, level in enumerate(old, 1)})
        for family, donor in zip(setup.families, donors, strict=False)
    )
    note = f"The masks were found in {where}; what that cost is in its own result, and not in this one's."
    return replace(setup, plan=plan, families=families, notes=(*setup.notes, note))
