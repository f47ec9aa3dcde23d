"""A ticket's bytes."""

from tombola.ticket import container
from tombola.ticket.payload import KEY, describe, pack, seal
from tombola.ticket.ticket import Ticket


def encode(ticket: Ticket) -> bytes:
    """Give the bytes of a ticket's file; the same ticket gives the same bytes in every process.

    A ticket of N masked float32 weights at density d takes about 4dN + N/8 bytes, the dense tensors and the provenance
    aside.

    Raises:
        InvalidValue: names and provenance too long for a header.
    """
    tensors = pack(ticket.start, ticket.masks, ticket.buffers)
    described = describe(ticket.start, ticket.masks, ticket.buffers)
    _, text = seal(tensors, described, ticket.provenance)
    return container.write(tensors, KEY, text)
