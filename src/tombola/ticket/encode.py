"""A ticket's bytes."""

from tombola.errors import InvalidValue, TicketError
from tombola.prune import masks as mask_tools
from tombola.ticket import canonical, container, payload
from tombola.ticket.layout import check_unmasked
from tombola.ticket.replay import Factory, draw
from tombola.ticket.ticket import Ticket
from tombola.types import Params


def encode(ticket: Ticket, *, seed_only: bool = False, build: Factory | None = None) -> bytes:
    """Give the bytes of a ticket's file; the same ticket gives the same bytes in every process.

    A ticket of N masked float32 weights at density d takes about 4dN + N/8 bytes, the dense tensors and the provenance
    aside; as much as 4dN more with ``theta_0``, and 4dN less with ``seed_only``. The masks of a parent are compressed
    by zlib: other versions of it may give other bytes of the same ticket, with the same ``digest``.

    Args:
        ticket: what to write.
        seed_only: leave the start values out, to be drawn from the seed whenever the file is read. That is tried here
            first, and must give every bit of them and of the buffers.
        build: with ``seed_only``, makes the network where it is not one of :func:`tombola.models.registry`; whoever
            reads the file passes the same. It may ask for ``input_shape`` and ``classes``.

    Raises:
        InvalidValue: names and provenance too long for a header, or start values that the seed does not draw.
    """
    if seed_only:
        _check_drawn(ticket, build)
    tensors, text = payload.written(ticket, drawn=seed_only)
    data = container.write(tensors, payload.KEY, text)
    if seed_only:
        try:
            check_unmasked(sum(v.numel() for n, v in ticket.start.items() if n not in ticket.masks), len(data), "it")
        except TicketError as error:
            raise InvalidValue(f"the start values cannot be left out: {error} Write the file with them.") from error
    return data


def _check_drawn(ticket: Ticket, build: Factory | None) -> None:
    """Raise unless the start values and buffers are those that the seed draws, bit for bit."""
    if ticket.theta_0 is not None:
        raise InvalidValue(
            "the start values cannot be left out: they are of a later step than the initial values theta_0, and a seed "
            "draws initial values only. Write the file with them."
        )
    declared = {
        name: (str(value.dtype).removeprefix("torch."), tuple(value.shape)) for name, value in ticket.start.items()
    }
    try:
        drawn = draw(ticket.provenance, declared, build, "the ticket")
    except TicketError as error:
        raise InvalidValue(f"the start values cannot be left out: {error}") from error
    params = mask_tools.apply({name: value.cpu() for name, value in drawn.params.items()}, ticket.masks)
    for what, ours, theirs in (("value", ticket.start, params), ("buffer", ticket.buffers, drawn.buffers)):
        if odd := _first_odd(ours, theirs):
            raise InvalidValue(
                f"the start values cannot be left out: {what} {odd!r:.80} is not what the seed draws here, and every "
                "bit must be. Rewound tickets start from a later step, and other versions of torch or another CPU may "
                "draw otherwise. Write the file with its values."
            )


def _first_odd(ours: Params, theirs: Params) -> str | None:
    return next(
        (n for n in sorted(ours.keys() | theirs.keys()) if not canonical.same(ours.get(n), theirs.get(n))), None
    )
