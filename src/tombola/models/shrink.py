"""The physically smaller network that a mask over whole units stands for."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear
from torch.nn.modules.conv import _ConvNd

from tombola.errors import InvalidValue
from tombola.prune.structure import Group


def shrink(module: nn.Module, groups: Sequence[Group], kept_units: Mapping[str, Tensor]) -> nn.Module:
    """Copy a network without its dead units.

    Args:
        module: the network; not written to.
        groups: its groups, as :func:`tombola.models.groups.units` or :func:`~tombola.models.groups.heads` find them.
        kept_units: group name -> bool tensor of shape ``[size]``; a group that is absent stays whole.

    Returns:
        a copy with smaller tensors under the same names, and with the numbers of features, channels and groups to
        match. Attention that lost heads becomes a :class:`FewerHeads`.

    Raises:
        InvalidValue: a group that would lose all its units, or marks of another length than the group.

    Example:
        >>> from tombola.models.groups import units
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> shrink(net, units(net, torch.zeros(1, 4)), {"0": torch.tensor([True, False, True])})
        Sequential(
          (0): Linear(in_features=4, out_features=2, bias=True)
          (1): ReLU()
          (2): Linear(in_features=2, out_features=2, bias=True)
        )
    """
    dead = _dead(groups, kept_units)
    small = copy.deepcopy(module)
    state = [*small.named_parameters(remove_duplicate=False), *small.named_buffers(remove_duplicate=False)]
    same: dict[int, Tensor] = {}
    for name, value in state:
        if name in dead:
            cut = value.detach()
            for axis, places in dead[name].items():
                gone = torch.tensor(sorted(places), dtype=torch.long)
                left = torch.ones(cut.shape[axis], dtype=torch.bool).index_fill(0, gone, False)
                cut = cut.index_select(axis, left.nonzero().reshape(-1).to(cut.device))
            same[id(value)] = nn.Parameter(cut, value.requires_grad) if isinstance(value, nn.Parameter) else cut
    for part in small.modules():
        for held in (part._parameters, part._buffers):
            for attribute, tensor in held.items():
                if tensor is not None and id(tensor) in same:
                    held[attribute] = same[id(tensor)]  # type: ignore[assignment]
        _resize(part)
    return _with_fewer_heads(small)


@final
class FewerHeads(nn.Module):
    """Attention whose heads together are narrower than what it reads; ``nn.MultiheadAttention`` cannot be.

    It is called as that is, with the same names of parameters.
    """

    def __init__(self, whole: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.head_dim, self.dropout = whole.embed_dim, whole.head_dim, whole.dropout
        self.batch_first, self.add_zero_attn = whole.batch_first, whole.add_zero_attn
        self.num_heads = whole.out_proj.weight.shape[1] // whole.head_dim
        # Keeps encoder layers from their own fused computation, which is of whole attention.
        self._qkv_same_embed_dim = False
        for name, value in whole._parameters.items():
            self.register_parameter(name, value)
        self.out_proj = whole.out_proj
        self.training = whole.training

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; see ``nn.MultiheadAttention``. Masks are bool (true is left out) or added to the logits.

        Raises:
            InvalidValue: inputs without a batch axis, or zero keys added (``add_zero_attn``).
        """
        if query.dim() != 3 or self.add_zero_attn:
            raise InvalidValue("attention with fewer heads takes batches, and adds no zero keys. Add a batch axis.")
        given = (query, key, value) if self.batch_first else tuple(x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            linear(x, *parts).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for x, parts in zip(given, self._projections(), strict=True)
        )
        logits = q @ k.transpose(-2, -1) / self.head_dim**0.5
        if attn_mask is not None:
            logits = _add(logits, attn_mask.unflatten(0, (-1, self.num_heads)) if attn_mask.dim() == 3 else attn_mask)
        if key_padding_mask is not None:
            logits = _add(logits, key_padding_mask[:, None, None, :])
        weights = dropout(logits.softmax(-1), self.dropout, self.training)
        out = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        out = out if self.batch_first else out.transpose(0, 1)
        if not need_weights:
            return out, None
        return out, weights.mean(1) if average_attn_weights else weights

    def _projections(self) -> list[tuple[Tensor, Tensor | None]]:
        held = self._parameters
        together, bias = held["in_proj_weight"], held["in_proj_bias"]
        apart = [held[f"{one}_proj_weight"] for one in "qkv"] if together is None else together.chunk(3)
        biases = [None] * 3 if bias is None else bias.chunk(3)
        return [(weight, each) for weight, each in zip(apart, biases, strict=True) if weight is not None]


def _add(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.masked_fill(mask, -torch.inf) if mask.dtype is torch.bool else logits + mask


def _dead(groups: Sequence[Group], kept_units: Mapping[str, Tensor]) -> dict[str, dict[int, set[int]]]:
    """Give name -> axis -> the entries that go."""
    dead: dict[str, dict[int, set[int]]] = {}
    for group in groups:
        kept = kept_units.get(group.name)
        if kept is None:
            continue
        if kept.shape != (group.size,) or not bool(kept.any()):
            raise InvalidValue(
                f"{group.name!r} has {group.size} units, and {int(kept.sum())} of {tuple(kept.shape)} are to be kept. "
                "Mark each unit, and keep at least one."
            )
        for one in group.slices:
            gone = (~kept).nonzero().reshape(-1).tolist()
            entries = {one.start + unit * one.width + place for unit in gone for place in range(one.width)}
            dead.setdefault(one.name, {}).setdefault(one.axis, set()).update(entries)
    return dead


def _resize(part: Any) -> None:
    """Make a module's own numbers those of its tensors."""
    if isinstance(part, nn.Linear):
        part.out_features, part.in_features = part.weight.shape
    elif isinstance(part, _ConvNd):
        each, out = part.out_channels // part.groups, int(part.weight.shape[0])
        part.groups = out // each if part.groups > 1 else 1
        part.out_channels, part.in_channels = out, int(part.weight.shape[1]) * part.groups
    elif isinstance(part, nn.modules.batchnorm._NormBase):
        for value in (part.weight, part.running_mean):
            if value is not None:
                part.num_features = int(value.shape[0])
    elif isinstance(part, nn.PReLU):
        part.num_parameters = part.weight.numel()


def _with_fewer_heads(small: nn.Module) -> nn.Module:
    if _lost(small):
        return FewerHeads(small)  # type: ignore[arg-type]
    for part in list(small.modules()):
        for name, child in list(part.named_children()):
            if _lost(child):
                setattr(part, name, FewerHeads(child))  # type: ignore[arg-type]
    return small


def _lost(part: nn.Module) -> bool:
    return isinstance(part, nn.MultiheadAttention) and part.out_proj.weight.shape[1] != part.embed_dim
