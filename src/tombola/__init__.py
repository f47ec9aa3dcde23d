"""Find, prove and ship winning lottery tickets."""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tombola.attach import attach as attach
    from tombola.attach import attached as attached
    from tombola.errors import TombolaError as TombolaError
    from tombola.explain.report import analyze as analyze
    from tombola.search.finding import Finding as Finding
    from tombola.search.own import find as find
    from tombola.ticket import Ticket as Ticket
    from tombola.ticket import load as load
    from tombola.ticket.verify import verify as verify
    from tombola.train.record import Record as Record

__version__ = "0.1.0"

_PUBLIC: Final = {
    "Finding": "tombola.search.finding",
    "Record": "tombola.train.record",
    "Ticket": "tombola.ticket",
    "TombolaError": "tombola.errors",
    "analyze": "tombola.explain.report",
    "attach": "tombola.attach",
    "attached": "tombola.attach",
    "find": "tombola.search.own",
    "load": "tombola.ticket",
    "verify": "tombola.ticket",
}
"""Public name -> its room, opened at first touch: importing torch takes seconds."""


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tombola' has no attribute {name!r}")
    room = importlib.import_module(_PUBLIC[name])
    # The room of attach is itself what is called: importing it binds its name here.
    return globals().get(name) or getattr(room, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
