"""Every error tombola raises on purpose.

::

    TombolaError
    ├── InvalidValue          a setting or argument out of its range (also a ValueError)
    │   ├── UnknownName       a name that is not in its registry, with the nearest ones
    │   └── ImpossibleDensity a density that no mask of these tensors has
    ├── ShapeMismatch         tensors that should have one shape and do not
    ├── NothingToPrune        a model without a prunable tensor
    ├── EmptiedLayer          a cut that would leave a layer without weights
    ├── InvalidScores         NaN among the scores, or a score for a pruned weight
    ├── MissingEvidence       a criterion asked for something the caller did not give
    ├── Unsolved              a strong ticket whose random network has no subset near enough to some weight
    ├── Diverged              no family is left: every one had a run whose loss was not finite
    ├── DataError
    │   ├── DataMissing       the data set is not on this machine
    │   ├── CorruptData       a file that is not what its format or checksum says
    │   └── DataTooSmall      not enough examples for the split or the batch
    ├── SourceChanged         the code of the user's own network was edited while a search ran
    ├── InvalidResults        a table of results that cannot be judged
    ├── TicketError
    │   └── CorruptTicket     truncated, altered or hostile ticket file
    ├── StoreError            a store of units that cannot be used, such as one of a newer version
    │   └── CorruptStore      a file of it that was cut short or altered
    ├── CannotWrite           a path that cannot be written, or a full disk
    ├── RanksDiffer           the processes of one training run hold different masks
    └── WorkerDied            a training process was killed from outside

Each message says what was found, what was expected and what to do next. Exceptions are for wrong calls and broken
files; what an experiment finds (diverged, interrupted, cannot tell) is a value.
"""

import difflib
from collections.abc import Iterable


class TombolaError(Exception):
    """Base of every error raised on purpose."""


class InvalidValue(TombolaError, ValueError):
    """A setting or argument out of its range."""


class UnknownName(InvalidValue):
    """A name that is not in its registry."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str], more: str = "") -> "UnknownName":
        """Build the error for ``name``, naming the nearest known ones."""
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return cls(f"no {kind} is called {name!r}.{hint} Known: {', '.join(names)}.{' ' + more if more else ''}")


class ImpossibleDensity(InvalidValue):
    """A density that no mask of these tensors has."""


class ShapeMismatch(TombolaError):
    """Tensors that should have one shape and do not."""


class NothingToPrune(TombolaError):
    """A model without a prunable tensor."""


class EmptiedLayer(TombolaError):
    """A cut that would leave a layer without weights."""


class InvalidScores(TombolaError):
    """NaN among the scores."""


class MissingEvidence(TombolaError):
    """A criterion asked for something the caller did not give."""


class Unsolved(TombolaError):
    """A strong ticket whose random network has no subset near enough to some weight."""


class Diverged(TombolaError):
    """No family is left to search with."""


class DataError(TombolaError):
    """Something about a data set."""


class DataMissing(DataError):
    """The data set is not on this machine."""


class CorruptData(DataError):
    """A file that is not what its format or checksum says."""


class DataTooSmall(DataError):
    """Not enough examples for the split or the batch."""


class SourceChanged(TombolaError):
    """The code of the user's own network is not what it was when the search began."""


class InvalidResults(TombolaError):
    """A table of results that cannot be judged."""


class TicketError(TombolaError):
    """Something about a ticket file."""


class CorruptTicket(TicketError):
    """A truncated, altered or hostile ticket file."""


class StoreError(TombolaError):
    """Something about a store of finished units."""


class CorruptStore(StoreError):
    """A truncated or altered file of a store."""


class CannotWrite(TombolaError):
    """A path that cannot be written, or a full disk."""


class RanksDiffer(TombolaError):
    """The processes of one training run hold different masks."""


class WorkerDied(TombolaError):
    """A training process was killed from outside."""
