"""What a ticket is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor, nn

from tombola.errors import InvalidValue, ShapeMismatch
from tombola.prune import masks as mask_tools
from tombola.ticket import canonical, lineage, payload
from tombola.ticket.adopt import adopt
from tombola.types import Masks, Params

START_DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What start values may be."""

BUFFER_DTYPES: Final = (
    *START_DTYPES, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.complex64
)  # fmt: skip
"""What buffers may be."""


@dataclass(frozen=True, eq=False)
class Ticket:
    """A sparse subnetwork and the values it trains from; Frankle & Carbin (2019), section 1.

    The tensors are copied to the CPU when the ticket is made, and the start values are set to zero where the masks
    prune, the initial values too. Two tickets are equal when their digests are.

    Attributes:
        start: parameter name -> float tensor, the values that the ticket trains from; +0.0 where pruned.
        masks: parameter name -> bool tensor of the same shape; a name that is absent is dense.
        buffers: buffer name -> tensor: the rest of the state dict.
        provenance: where the ticket comes from, JSON only (tuples become lists). Numbers under ``kept``, ``total`` and
            ``density`` must be the ticket's own, and so must the last entry of ``lineage``, a list with an entry for
            every level that led here, from 0: ``{"level": int, "kept": int, "total": int, "masks": fingerprint}`` with
            :func:`tombola.prune.masks.fingerprint`; :mod:`tombola.ticket.lineage` says what else must hold.
        theta_0: the initial values, where ``start`` is of a later step (Frankle et al. 2020, Algorithm 2): the names,
            shapes and dtypes of ``start``; +0.0 where pruned. ``None`` where ``start`` is theta_0, or theta_0 is not
            known.
        parent: the masks that these were cut from, over the same tensors; they keep everything that ``masks`` does.
            ``None`` where that was the dense network, or is not known.

    Raises:
        InvalidValue: a name that is no plain text, start or initial values that are not finite floats, initial values
            of another dtype than the start values, a mask that is not bool, a weight that the parent prunes, a buffer
            of a dtype that safetensors has no name for, or provenance that is not JSON or contradicts the masks.
        ShapeMismatch: a mask without its parameter, or of another shape; initial values or a parent of other names or
            shapes.

    Example:
        >>> t = Ticket({"w": torch.ones(4)}, {"w": torch.tensor([True, False, False, False])})
        >>> t.kept, t.total, t.density, t.start["w"].tolist()
        (1, 4, 0.25, [1.0, 0.0, 0.0, 0.0])
    """

    start: Params
    masks: Masks
    buffers: Params = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    theta_0: Params | None = None
    parent: Masks | None = None

    def __post_init__(self) -> None:
        mask_tools.check(self.start, self.masks)
        for name in (*self.start, *self.buffers):
            _check_name(name)
        for name, value in self.start.items():
            _check_dtype("parameter", name, value, START_DTYPES)
        for name, value in self.buffers.items():
            _check_dtype("buffer", name, value, BUFFER_DTYPES)
        masks = {name: _own(mask) for name, mask in self.masks.items()}
        object.__setattr__(self, "start", _survivors("start", self.start, masks))
        object.__setattr__(self, "masks", masks)
        object.__setattr__(self, "buffers", {name: _own(value) for name, value in self.buffers.items()})
        object.__setattr__(self, "provenance", _json_object(self.provenance))
        if self.theta_0 is not None:
            _check_alike(self.start, self.theta_0)
            theta_0 = {name: self.theta_0[name] for name in self.start}
            object.__setattr__(self, "theta_0", _survivors("initial", theta_0, masks))
        if self.parent is not None:
            lineage.check_parent(masks, self.parent)
            object.__setattr__(self, "parent", {name: _own(self.parent[name]) for name in masks})
        lineage.check_lineage(self.provenance, masks, self.parent)
        for name in ("kept", "total", "density"):
            _check_claim(name, self.provenance.get(name), getattr(self, name))

    @property
    def kept(self) -> int:
        """How many of the masked weights are alive."""
        return mask_tools.kept(self.masks)

    @property
    def total(self) -> int:
        """How many masked weights there are, pruned ones included."""
        return mask_tools.total(self.masks)

    @property
    def density(self) -> float:
        """Fraction kept of the masked weights."""
        return mask_tools.density(self.masks)

    @property
    def density_all_parameters(self) -> float:
        """Fraction kept of all parameters, biases and norms included."""
        every = sum(value.numel() for value in self.start.values())
        return (every - self.total + self.kept) / every if every else 1.0

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the tensors and the provenance, in hexadecimal; any change to either changes it.

        It does not depend on how a file holds the ticket: compressed, or with start values left to the seed.
        """
        return payload.digest(self)

    @property
    def lineage(self) -> tuple[Mapping[str, Any], ...]:
        """The entries of ``provenance["lineage"]``, level 0 first; empty where it is not recorded."""
        return tuple(self.provenance.get("lineage", ()))

    def apply_to(self, model: nn.Module) -> dict[str, Tensor]:
        """Put this ticket into a network, in place: its start values, zeros where pruned, and its buffers.

        Tensors are matched by name and shape, all of them; a tied parameter goes by any of its names. Values are
        converted to the network's dtypes. Nothing keeps the pruned weights at zero in training; for that give the
        masks to a trainer, or to :mod:`tombola.attach`.

        Args:
            model: a network with the tensors of the one that the ticket was found on, on any device.

        Returns:
            parameter name -> bool mask, copies on the parameters' devices, under the names of ``named_parameters``.

        Raises:
            ShapeMismatch: a name that only one of the two has, or another shape; the network is left as it was.
            InvalidValue: a tensor of the network that has no values yet, or of a dtype that cannot hold the ticket's.

        Example:
            >>> net = nn.Linear(2, 1, bias=False)
            >>> Ticket({"weight": torch.ones(1, 2)}, {"weight": torch.tensor([[True, False]])}).apply_to(net)
            {'weight': tensor([[ True, False]])}
            >>> net.weight.tolist()
            [[1.0, 0.0]]
        """
        found_on = self.provenance.get("model")
        origin = repr(found_on)[:80] if isinstance(found_on, str) else "a network that it does not name"
        return adopt(model, self.start, self.masks, self.buffers, origin)

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Ticket) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)


def plain_name(name: object) -> bool:
    """Whether a tensor's name is safe to write, print and read back.

    That is printable text of 1 to 512 characters that begins with no slash or backslash and, as every name in a state
    dict, has something before, between and after its dots; so none is an absolute path or leads out of a folder.
    """
    if not isinstance(name, str) or not 0 < len(name) <= 512 or not name.isprintable():
        return False
    return name[0] not in "/\\" and all(name.split("."))


def _survivors(what: str, values: Params, masks: Masks) -> dict[str, Tensor]:
    """Copies, zero where pruned and finite elsewhere."""
    own = mask_tools.apply({name: _own(value) for name, value in values.items()}, masks)
    for name, value in own.items():
        _check_finite(what, name, value)
    return own


def _own(value: Tensor) -> Tensor:
    """A detached, contiguous copy on the CPU that shares memory with nothing."""
    plain = value.detach().resolve_conj().resolve_neg()
    return plain.to("cpu", copy=True, memory_format=torch.contiguous_format)


def _check_name(name: object) -> None:
    if not plain_name(name):
        raise InvalidValue(
            f"a tensor is called {name!r:.80}. A name in a ticket is printable text of 1 to 512 characters without a "
            "slash in front or an empty part between dots; use the names of the network's state dict."
        )


def _check_alike(start: Params, theta_0: Params) -> None:
    if start.keys() != theta_0.keys():
        odd = ", ".join(f"{name!r:.80}" for name in sorted(start.keys() ^ theta_0.keys())[:6])
        raise ShapeMismatch(
            f"only one of start and theta_0 has {odd}. They are two states of one network; give "
            "both all its parameters."
        )
    for name, value in theta_0.items():
        _check_dtype("initial value", name, value, START_DTYPES)
        if value.shape != start[name].shape:
            raise ShapeMismatch(
                f"{name!r} has shape {tuple(value.shape)} in theta_0 and {tuple(start[name].shape)} in start. They are "
                "two states of one network; give those of this one."
            )
        if value.dtype != start[name].dtype:
            raise InvalidValue(
                f"{name!r} has dtype {value.dtype} in theta_0 and {start[name].dtype} in start. They are two states of "
                "one network; convert one."
            )


def _check_finite(what: str, name: str, value: Tensor) -> None:
    if not bool(torch.isfinite(value).all()):
        raise InvalidValue(
            f"{what} value {name!r} holds NaN or Inf, and a network cannot train from those. Take the values of a run "
            "that did not diverge."
        )


def _check_dtype(what: str, name: str, value: Tensor, allowed: tuple[torch.dtype, ...]) -> None:
    if value.dtype not in allowed or value.layout != torch.strided or value.is_quantized:
        raise InvalidValue(
            f"{what} {name!r} has dtype {value.dtype} and layout {value.layout}. A ticket holds dense tensors of "
            f"{', '.join(str(dtype).removeprefix('torch.') for dtype in allowed)}; convert it."
        )


def _check_claim(name: str, claimed: object, shown: float) -> None:
    slack = 1e-6 if name == "density" else 0
    # Compared, not subtracted: an integer from a file may be too large for a float.
    if isinstance(claimed, int | float) and not shown - slack <= claimed <= shown + slack:
        raise InvalidValue(
            f"the provenance says that {name} is {claimed!r:.40}; the masks show {shown}. Give the achieved value, or "
            "a figure aimed at under another key."
        )


def _json_object(provenance: Mapping[str, Any]) -> dict[str, Any]:
    try:
        copy: dict[str, Any] = canonical.loads(canonical.dumps(dict(provenance)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(
            f"the provenance is not JSON: {error}. Use text keys and dicts, lists, text, finite numbers, booleans and "
            "None."
        ) from error
    return copy
