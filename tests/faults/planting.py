"""How a fault gets into the library: before any test module is imported, in a process of its own."""

import importlib
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

import tombola


def import_everything() -> None:
    """Import every module of the library, so that a name that one took from another is found and replaced."""
    for module in pkgutil.walk_packages(tombola.__path__, "tombola."):
        # The compiled kernels lie in files named as modules are, and are libraries for ctypes.
        if not module.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(module.name)


def swap(old: Any, new: Any) -> None:
    """Put a function in the place of another wherever the library holds it: as a name, or in a table by name."""
    found = 0
    for name, module in list(sys.modules.items()):
        if name != "tombola" and not name.startswith("tombola."):
            continue
        for holder in [vars(module), *(value for value in vars(module).values() if type(value) is dict)]:
            for key in [key for key, value in holder.items() if value is old]:
                holder[key] = new
                found += 1
    if not found:
        raise LookupError(f"{old!r} is not in the library any more; plant this fault anew.")


def wrap(cls: type, name: str, around: Callable[..., Any]) -> None:
    """Put ``around(original, self, ...)`` in the place of a method."""
    original = vars(cls)[name]
    setattr(cls, name, lambda self, *rest, **options: around(original, self, *rest, **options))


def has(thing: object, *names: str) -> None:
    """Refuse to plant where the code does not have what the fault takes hold of."""
    missing = [name for name in names if not hasattr(thing, name)]
    if missing:
        raise LookupError(f"{thing!r} has no {', '.join(missing)} any more; plant this fault anew.")
