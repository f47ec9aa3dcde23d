"""A user's own networks, by dotted path."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from tombola.errors import InvalidValue, TombolaError, UnknownName


def from_path(dotted: str) -> Callable[..., nn.Module]:
    """Find a model factory by its path.

    Args:
        dotted: ``"package.module:factory"``; the factory is a function or class that makes the network. The working
            directory is searched last.

    Raises:
        InvalidValue: no colon, a module that cannot be imported, or something that cannot be called.
        UnknownName: the module has no such name.

    Example:
        >>> from_path("torch.nn:Identity")()
        Identity()
    """
    found = importable(dotted, "model factory")
    if isinstance(found, nn.Module) or not callable(found):
        raise InvalidValue(
            f"{dotted!r} is a {type(found).__name__}, expected a function or class that makes a network. Every family "
            "needs a network of its own; wrap it in a function that builds and returns one."
        )
    return found


def importable(dotted: str, kind: str) -> Any:
    """Find anything by its dotted path, ``"package.module:name"``; ``kind`` is what the errors call it.

    Raises:
        InvalidValue: no colon, or a module that cannot be imported.
        UnknownName: the module has no such name.
    """
    path, colon, attribute = dotted.partition(":")
    if not (colon and path and attribute):
        raise InvalidValue(
            f"{dotted!r} is not a path to a {kind}. It reads 'package.module:{kind.split()[-1]}', with one colon; for "
            "one of tombola's own give its name alone."
        )
    found: Any = _module(path)
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = (name for name in dir(found) if not name.startswith("_"))
            raise UnknownName.among(f"attribute of {path!r}", part, public)
        found = getattr(found, part)
    return found


def call_factory(factory: Callable[..., nn.Module], input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Call a model factory with what it asks for.

    Args:
        factory: makes a network. ``input_shape`` and ``classes`` are passed, by keyword, where its signature names
            them.
        input_shape: shape of one example, without the batch.
        classes: number of classes.

    Raises:
        InvalidValue: the factory needs another argument, fails, or returns something that is no module.

    Example:
        >>> call_factory(lambda classes: nn.Linear(4, classes), (4,), 3)
        Linear(in_features=4, out_features=3, bias=True)
    """
    name = getattr(factory, "__qualname__", repr(factory))
    offer = {"input_shape": input_shape, "classes": classes}
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        signature = inspect.Signature()
    positional_only = inspect.Parameter.POSITIONAL_ONLY
    given = {key: offer[key] for key, asked in signature.parameters.items()
             if key in offer and asked.kind is not positional_only}  # fmt: skip
    try:
        signature.bind(**given)
    except TypeError as error:
        raise InvalidValue(
            f"the model factory {name}{signature} cannot be called: {error}. It may ask for input_shape and classes by "
            "those names; give every other argument a default."
        ) from error
    try:
        module = factory(**given)
    except TombolaError:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidValue(
            f"the model factory {name} failed with {type(error).__name__}: {error}. It was called with {given}; it "
            "should return a network for that."
        ) from error
    if not isinstance(module, nn.Module):
        raise InvalidValue(
            f"the model factory {name} returned a {type(module).__name__}, expected a torch.nn.Module. Let it return "
            "the network."
        )
    return module


def _module(path: str) -> Any:
    # A console script does not search the working directory. It goes last, so it hides nothing that is installed.
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(f"{error.name}.")):
            raise InvalidValue(
                f"there is no module {path!r}: {error}. Install its package, or start from the folder that holds it "
                f"(now {here})."
            ) from error
        raise InvalidValue(
            f"module {path!r} imports {error.name!r}, which is not installed. Install it into {sys.prefix}."
        ) from error
    except Exception as error:
        raise InvalidValue(
            f"importing {path!r} failed with {type(error).__name__}: {error}. Run `python -c 'import {path}'` to see "
            "where."
        ) from error
