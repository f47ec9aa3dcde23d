"""What every method that changes masks during training shares: its name in records, its positions, and the swap."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch

from tombola.errors import InvalidValue
from tombola.prune.counting import Counts
from tombola.prune.criteria.magnitude import magnitude
from tombola.prune.evidence import Evidence
from tombola.prune.masks import counts
from tombola.prune.select import select
from tombola.types import Masks, Params, Scores, Step, Updates

__all__ = ["Updates", "check_positions", "identity", "swap"]


def identity(part: Any) -> Any:
    """Give a part of a method as plain JSON values, equal for parts that do the same.

    Args:
        part: a plain value, a fraction, a function at the top of a module, a ``functools.partial`` of one, a frozen
            dataclass, or mappings and sequences of such.

    Raises:
        InvalidValue: a function or an object that its name does not identify.

    Example:
        >>> identity(magnitude)
        'tombola.prune.criteria.magnitude.magnitude'
    """
    match part:
        case None | bool() | int() | float() | str():
            return part
        case Fraction():
            return str(part)
        case Mapping():
            return {str(key): identity(value) for key, value in part.items()}
        case tuple() | list():
            return [identity(value) for value in part]
        case partial():
            return {"partial": [identity(part.func), identity(part.args), identity(part.keywords)]}
    if is_dataclass(part) and not isinstance(part, type):
        # A frozen dataclass does what its class and its fields say.
        return {_path(type(part)): {field.name: identity(getattr(part, field.name)) for field in fields(part)}}
    return _path(part)


def _path(part: Any) -> str:
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    if not module or not name or "<" in name:
        raise InvalidValue(
            f"{part!r:.80} has no name that a record could know it by. Use a function or a class at the top of a "
            "module, or a frozen dataclass with a __call__."
        )
    return f"{module}.{name}"


def check_positions(every: Step, **positions: Step) -> None:
    """Refuse positions that are none.

    Raises:
        InvalidValue: naming the first that is no whole number or too small.
    """
    for name, value, least in (("every", every, 1), *((name, value, 0) for name, value in positions.items())):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InvalidValue(f"{name} is {value!r}; it is a number of iterations, at least {least}.")


def swap(
    params: Params,
    masks: Masks,
    drops: Counts,
    growth: Callable[[Masks], Scores],
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Drop the smallest weights of each tensor, and grow as many.

    What may grow is everything that is not kept, the weights just dropped among it: so have it Evci et al. (2020),
    Algorithm 1 (the entries outside of those that stay active), and Mocanu et al. (2018), Algorithm 1, where a
    dropped weight is one more that is missing. One that is dropped and grown again was never away, and in a dense
    tensor that is so of each.

    Args:
        params: name -> float tensor, any shape.
        masks: name -> bool tensor, same shape.
        drops: name -> how many to drop, at most as many as are left.
        growth: masks of what stays -> name -> score of every entry, the largest grow.
        generator: a CPU generator that breaks ties.

    Returns:
        name -> bool tensor, with exactly as many true entries as before.

    Raises:
        InvalidScores: a weight or a score is NaN.
    """
    left = {name: count - drops[name] for name, count in counts(masks).items()}
    stay = select(magnitude(params, masks, Evidence()), left, generator)
    scores = {name: score.masked_fill(stay[name], -torch.inf) for name, score in growth(stay).items()}
    grown = select(scores, drops, generator)
    return {name: stay[name] | grown[name] for name in masks}
