"""Which tensors may be pruned, and which were left alone and why."""

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from tombola.errors import InvalidValue, NothingToPrune, UnknownName
from tombola.types import Params

PRESETS: Final[Mapping[str, frozenset[str]]] = {
    "weights": frozenset({"linear", "conv", "attention", "recurrent"}),
    "linear": frozenset({"linear"}),
    "conv": frozenset({"conv"}),
    "weights+embeddings": frozenset({"linear", "conv", "attention", "recurrent", "embedding"}),
    "everything": frozenset({"linear", "conv", "attention", "recurrent", "embedding", "norm", "bias", "other"}),
}
"""Preset -> the kinds of parameter it prunes. ``weights`` is the papers' convention and the default."""


@final
@dataclass(frozen=True)
class Scope:
    """What is pruned and what is not.

    Attributes:
        prunable: parameter names, in the network's order.
        skipped: name -> the reason in words, for every other parameter.
    """

    prunable: tuple[str, ...]
    skipped: Mapping[str, str]


def choose(
    params: Params,
    kinds: Mapping[str, str],
    *,
    preset: str = "weights",
    exclude: Sequence[str] = (),
    frozen: Collection[str] = (),
) -> Scope:
    """Decide which parameters are prunable.

    Args:
        params: name -> tensor.
        kinds: name -> what the owning module makes of it: ``linear``, ``conv``, ``attention``, ``recurrent``,
            ``norm``, ``embedding``, ``bias`` or ``other``.
        preset: a key of ``PRESETS``.
        exclude: names to leave dense, or shell patterns of them such as ``"*.shortcut.weight"``.
        frozen: names that are not trained, so that training says nothing about them.

    Returns:
        The prunable names, and a reason for each skipped one: nothing is left out in silence.

    Raises:
        UnknownName: no such preset.
        InvalidValue: an exclusion that matches no parameter.
        NothingToPrune: nothing is left.
    """
    if preset not in PRESETS:
        raise UnknownName.among("scope", preset, PRESETS)
    for pattern in exclude:
        if not any(_matches(name, pattern) for name in params):
            raise InvalidValue(f"the exclusion {pattern!r} matches no parameter. There are: {', '.join(params)}.")
    prunable: list[str] = []
    skipped: dict[str, str] = {}
    for name, value in params.items():
        kind = kinds.get(name, "other")
        if kind not in PRESETS[preset]:
            skipped[name] = _unlike(name, kind)
        elif any(_matches(name, pattern) for pattern in exclude):
            skipped[name] = "excluded by name"
        elif name in frozen:
            skipped[name] = "frozen: it requires no gradient"
        elif not value.is_floating_point():
            skipped[name] = f"not a floating-point tensor ({value.dtype})"
        elif value.numel() == 0:
            skipped[name] = "empty"
        else:
            prunable.append(name)
    if not prunable:
        raise NothingToPrune(
            f"this network has nothing to prune: scope {preset!r} takes {', '.join(sorted(PRESETS[preset]))} "
            f"parameters, and it has {_listing(skipped) or 'no parameters'}. Choose a wider scope."
        )
    return Scope(tuple(prunable), skipped)


def _unlike(name: str, kind: str) -> str:
    if kind != "other":
        return f"of kind {kind}"
    behind = "parametrizations." in name
    return "behind a parametrization; scope 'everything' takes it" if behind else "of a layer type that is not known"


def _matches(name: str, pattern: str) -> bool:
    # A name may hold brackets, which a pattern reads as a set of characters.
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def _listing(skipped: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
