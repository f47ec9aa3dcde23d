"""Start values drawn again from the seed, for a ticket whose file leaves them out.

What names the network is data. Only the networks of :func:`tombola.models.registry` are ever built for it, or what the
caller passes; and where a number of the file goes into the network, its size is found on torch's meta device first.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

import torch
from torch import nn

from tombola import models
from tombola.errors import TicketError, TombolaError
from tombola.ticket import container
from tombola.types import Seed, Snapshot

Factory: TypeAlias = Callable[..., nn.Module]
"""Makes a network; it is passed ``input_shape`` and ``classes`` where its signature asks for them."""

Outlines: TypeAlias = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name -> dtype's name and shape."""

_OFFERED: Final = ("input_shape", "classes")
_GET: Final = "Get the file that holds the values, or load this one with a factory: load(path, build=...), --model."


def draw(about: Mapping[str, Any], declared: Outlines, build: Factory | None, where: str) -> Snapshot:
    """Draw start values as the search did: :func:`tombola.models.initial` with the ticket's seed and replicate.

    A factory that asks for neither ``input_shape`` nor ``classes`` gets nothing from the file. Any other is called on
    the meta device first, where tensors have no memory unless a factory names another device for them; it must be one
    that can be.

    Args:
        about: the provenance; ``model``, ``input_shape``, ``classes``, ``seed`` and ``replicate`` are read.
        declared: the parameters that there must be.
        build: makes the network; without it, the registry's of that name is taken.
        where: the file, for messages.

    Raises:
        TicketError: something is missing or absurd, the network is not the registry's, it cannot be built, or it has
            other parameters than declared.
    """
    seed = Seed(_whole(about, "seed", where), _whole(about, "replicate", where))
    make = _maker(about, declared, build, where)
    try:
        start = models.initial(make, seed)
    except (TombolaError, RuntimeError, MemoryError) as error:
        raise TicketError(f"{where}: its start values cannot be drawn: {_line(error)} {_GET}") from error
    _compare(_outlines(start.params), declared, where)
    return start


def _maker(about: Mapping[str, Any], declared: Outlines, build: Factory | None, where: str) -> Callable[[], nn.Module]:
    if build is not None and not _asks(build):
        return partial(models.call_factory, build, (), 0)
    name = about.get("model")
    if build is None and (not isinstance(name, str) or name not in models.registry()):
        raise TicketError(
            f"{where} leaves its start values to the network {name!r:.80}, which is none of "
            f"{', '.join(models.registry())}. A ticket is not trusted to name code; if you know whose that is, give it "
            "yourself: load(path, build=factory), or --model package.module:factory."
        )
    shape, classes = about.get("input_shape"), about.get("classes")
    if not isinstance(shape, list) or container.count(shape) is None or type(classes) is not int:
        raise TicketError(
            f"{where} does not say what its network was built for: input_shape is {shape!r:.80} and classes "
            f"{classes!r:.40}, expected a list of whole numbers and one more. {_GET}"
        )
    if build is None:
        make = partial(models.build, str(name), tuple(shape), classes)
    else:
        make = partial(models.call_factory, build, tuple(shape), classes)
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=()):
            planned = _outlines(dict(make().named_parameters()))
    except Exception as error:
        raise TicketError(
            f"{where}: its network cannot be built for input shape {shape!r:.80} and {classes!r:.40} classes, to "
            f"compare sizes before memory is taken: {type(error).__name__}: {_line(error)} Give a factory that "
            "asks for neither of the two, or one that torch can call on its meta device."
        ) from error
    _compare(planned, declared, where)
    return make


def _line(error: BaseException) -> str:
    """What an error says, in one line of bounded length."""
    return " ".join(str(error).split())[:300]


def _asks(build: Factory) -> bool:
    """Whether anything of the file would be passed."""
    try:
        return any(name in inspect.signature(build).parameters for name in _OFFERED)
    except (TypeError, ValueError):
        return False


def _outlines(params: Mapping[str, torch.Tensor]) -> Outlines:
    return {name: (str(value.dtype).removeprefix("torch."), tuple(value.shape)) for name, value in params.items()}


def _compare(found: Outlines, declared: Outlines, where: str) -> None:
    for name in sorted(found.keys() | declared.keys()):
        if found.get(name) != declared.get(name):
            raise TicketError(
                f"{where}: the network has {name!r:.80} as {_shown(found.get(name))}, and the file declares "
                f"{_shown(declared.get(name))}. The two must be equal for start values to be drawn. {_GET}"
            )


def _shown(outline: tuple[str, tuple[int, ...]] | None) -> str:
    return "nothing" if outline is None else f"{outline[0]} of shape {outline[1]!s:.80}"


def _whole(about: Mapping[str, Any], key: str, where: str) -> int:
    value = about.get(key)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise TicketError(
            f"{where} leaves its start values to the seed, and its {key} is {value!r:.40}; expected a whole number "
            f"from 0 to 2^63. {_GET}"
        )
    return value
