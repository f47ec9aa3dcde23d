"""A ticket beside the ticket of the level before."""

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune import masks as mask_tools
from tombola.ticket import canonical, lineage
from tombola.ticket.ticket import Ticket
from tombola.ticket.verify import Check
from tombola.types import Masks, Params


def descends(ticket: Ticket, parent: Ticket) -> tuple[Check, ...]:
    """Check that one ticket was cut from another, by the two alone.

    Returns:
        Three checks. ``nested``: whatever the ticket keeps, the parent keeps. ``parent masks``: the parent's masks are
        those that the ticket names, by its own copy of them and by its lineage, of which the parent's must be the
        beginning. ``parent values``: every survivor starts from the same value in both, bit for bit, initial values
        too where both have them; unmasked parameters count as survivors. A search that goes on with trained weights
        fails the third, and rightly: its survivors start elsewhere.
    """
    return (_check_nested(ticket, parent), _check_named(ticket, parent), _check_values(ticket, parent))


def _check_nested(ticket: Ticket, parent: Ticket) -> Check:
    try:
        lineage.check_parent(ticket.masks, parent.masks)
    except (InvalidValue, ShapeMismatch) as error:
        return Check("nested", False, str(error))
    return Check("nested", True, f"the mask is a subset of its parent's: {ticket.kept} of {parent.kept} weights")


def _check_named(ticket: Ticket, parent: Ticket) -> Check:
    found = mask_tools.fingerprint(parent.masks)
    sources = []
    if ticket.parent is not None:
        if mask_tools.fingerprint(ticket.parent) != found:
            return Check("parent masks", False, "the ticket holds other masks of its parent than this parent has")
        sources.append("the ticket's copy of them")
    if len(ticket.lineage) > 1:
        named = ticket.lineage[-2]["masks"]
        if named != found:
            wanted = f"the lineage has {named:.12}... for the level before, and this parent has {found:.12}..."
            return Check("parent masks", False, f"{wanted}; it is not the ticket's parent")
        if parent.lineage and parent.lineage != ticket.lineage[:-1]:
            return Check("parent masks", False, "the parent's lineage is not the beginning of the ticket's")
        sources.append("its lineage")
    if len(ticket.lineage) == 1:
        return Check("parent masks", False, "the ticket's lineage begins with the ticket itself: it has no parent")
    if not sources:
        return Check("parent masks", True, "the ticket names no parent, by masks or by lineage; nothing to compare")
    return Check("parent masks", True, f"fingerprint {found}, as {' and '.join(sources)} say")


def _check_values(ticket: Ticket, parent: Ticket) -> Check:
    sets = [("start", ticket.start, parent.start)]
    if ticket.theta_0 is not None and parent.theta_0 is not None:
        sets.append(("initial", ticket.theta_0, parent.theta_0))
    for what, own, theirs in sets:
        if odd := _first_odd(own, theirs, ticket.masks):
            return Check("parent values", False, f"{what} values of {odd!r:.80} differ among the survivors")
    names = " and ".join(what for what, _, _ in sets)
    return Check("parent values", True, f"the {names} values of all survivors are the parent's, bit for bit")


def _first_odd(own: Params, theirs: Params, masks: Masks) -> str | None:
    for name in sorted(own.keys() | theirs.keys()):
        if name not in own or name not in theirs:
            return name
        a, b = own[name], theirs[name]
        if name in masks and a.shape == b.shape:
            a, b = a[masks[name]], b[masks[name]]
        if not canonical.same(a, b):
            return name
    return None
