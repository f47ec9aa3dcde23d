"""DATA: readers for the published file formats, splits, and what is on this machine.

Here lives everything between a name and tensors: the readers (IDX, CIFAR-10, ``.npz``, image folders), the one search
path, the split into train, validation and test, and ``fetch``, the only function that touches the network.
May import torch, numpy, the standard library (Pillow late, for image folders) and ``tombola.types``, ``errors``,
``seeds``, ``files``. Names load on first touch: ``catalogue()`` never imports torch or numpy.
Proved by ``tests/data``: truncation at any byte, hostile pickles, exact split counts, pinned draws, a local server.
"""

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tombola.data.dataset import Dataset
    from tombola.data.fetching import fetch
    from tombola.data.listing import Entry, catalogue
    from tombola.data.loading import load
    from tombola.data.splits import Split, split

__all__ = ["Dataset", "Entry", "Split", "catalogue", "fetch", "load", "split"]

_HOME: Final = {
    "Dataset": "dataset",
    "Entry": "listing",
    "Split": "splits",
    "catalogue": "listing",
    "fetch": "fetching",
    "load": "loading",
    "split": "splits",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
