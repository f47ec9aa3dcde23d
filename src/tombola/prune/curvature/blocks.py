"""The generalised Gauss-Newton matrix in blocks on its diagonal, and what deleting a block's weights costs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from torch import Tensor
from torch.nn.functional import pad

from tombola.errors import InvalidValue
from tombola.prune.curvature.examples import Examples
from tombola.prune.curvature.ggn import ggn_diagonal
from tombola.prune.curvature.rows import Rows, rows
from tombola.prune.evidence import Evidence
from tombola.types import Masks

BYTES: Final = 1 << 30
"""Memory for the blocks that are held at once."""

_SHARE: Final = 16
"""Of that memory, one part in this many is inverted at once."""

_ENTRIES: Final = 1 << 25
"""Entries of all blocks together, above which blocks become smaller."""

_LEAST: Final = 32
_MOST: Final = 128

_EXAMPLES_A_WEIGHT: Final = 1
"""Of a block: each example is a row for each class but one, and the time grows with both."""


@final
@dataclass(frozen=True)
class Grams:
    """Blocks of the matrix, for consecutive weights of a tensor that are left.

    Attributes:
        name: the tensor's.
        index: int64, ``[weights]``: where they are in the flattened tensor.
        matrices: float64, ``[blocks, size, size]``; zero where the last block has no weights.
    """

    name: str
    index: Tensor
    matrices: Tensor

    def blocks(self, flat: Tensor) -> Tensor:
        """Gather a flattened tensor's entries: float64, ``[blocks, size]``, zero where there are none."""
        count, size, _ = self.matrices.shape
        return pad(flat[self.index].double(), (0, count * size - len(self.index))).reshape(count, size)


def block_size(weights: int) -> int:
    """Give the weights in a block: a power of two from 32 to 128, smaller for larger networks."""
    return min(_MOST, max(_LEAST, 2 ** int(math.log2(max(1, _ENTRIES // max(1, weights))))))


def enough(masks: Masks, evidence: Evidence, block: int | None = None) -> Evidence:
    """Leave out the batches beyond those that give a block an example for each of its weights."""
    size = block or block_size(sum(int(torch.count_nonzero(mask)) for mask in masks.values()))
    taken: list[tuple[Tensor, Tensor]] = []
    for batch in evidence.require("batches"):
        if sum(len(inputs) for inputs, _ in taken) >= _EXAMPLES_A_WEIGHT * size:
            break
        taken.append(batch)
    return replace(evidence, batches=taken)


def damping(given: Examples, masks: Masks, evidence: Evidence, fraction: float = 1e-4) -> float:
    """Give what is added to the diagonal: a fraction of its mean over the weights that are left.

    One number for the whole network, as a multiple of the identity is in Hassibi & Stork (1993), equation 11, so that
    the blocks' scores compare. 1.0 where the whole diagonal is zero.
    """
    diagonal = ggn_diagonal(given, evidence)
    total = sum(float(value[masks[name]].sum(dtype=torch.float64)) for name, value in diagonal.items())
    left = sum(int(torch.count_nonzero(masks[name])) for name in diagonal)
    return fraction * total / left if total > 0 else 1.0


def grams(given: Examples, masks: Masks, evidence: Evidence, block: int | None = None) -> Iterator[Grams]:
    """Compute the matrix of :func:`~tombola.prune.curvature.ggn_diagonal` in blocks, undamped.

    A block holds consecutive weights that are left of one tensor, in row-major order. As many blocks as memory allows
    are summed while the examples pass, then the examples pass again for the next ones.

    Args:
        given: the network and the examples.
        masks: name -> bool tensor; pruned weights are in no block.
        evidence: ``forward`` and ``loss``, and ``uses`` where there are some.
        block: weights in a block; by the network's size unless given.

    Raises:
        InvalidValue: a block of less than one weight; the loss is not convex in the outputs.
    """
    index = {name: masks[name].reshape(-1).nonzero().reshape(-1) for name in given.names}
    size = block_size(sum(map(len, index.values()))) if block is None else block
    if size < 1:
        raise InvalidValue(f"a block of {size} weights was asked for; it has at least 1. Leave it out for the default.")
    most = max(1, BYTES // (8 * size * size)) * size
    spans = [(name, part) for name, every in index.items() for part in every.split(most) if len(part)]
    for group in _groups(spans, most):
        yield from _summed(given, evidence, group, size)


def _groups(spans: Sequence[tuple[str, Tensor]], most: int) -> Iterator[list[tuple[str, Tensor]]]:
    """Join spans up to ``most`` weights."""
    held: list[tuple[str, Tensor]] = []
    for span in spans:
        if held and sum(len(part) for _, part in held) + len(span[1]) > most:
            yield held
            held = []
        held.append(span)
    if held:
        yield held


def _summed(given: Examples, evidence: Evidence, group: Sequence[tuple[str, Tensor]], size: int) -> list[Grams]:
    found = [Grams(name, part, torch.zeros(-(-len(part) // size), size, size, dtype=torch.float64, device=part.device))
             for name, part in group]  # fmt: skip
    for one in rows(given, evidence, list(dict.fromkeys(name for name, _ in group))):
        for gram in found:
            if gram.name == one.name:
                _add(gram, one, given.count)
    return found


def _add(gram: Grams, one: Rows, count: int) -> None:
    width = math.prod(one.shape[1:])
    first, last = int(gram.index[0]) // width, int(gram.index[-1]) // width + 1
    blocks, size, _ = gram.matrices.shape
    for part in one.parts(first, last):
        mine = pad(part[:, gram.index - first * width], (0, blocks * size - len(gram.index)))
        # In float64, or rounding would leave matrices that are not positive semidefinite.
        mine = mine.reshape(-1, blocks, size).transpose(0, 1).double()
        gram.matrices.baddbmm_(mine.mT, mine, alpha=1 / count)


def losses(weights: Tensor, matrices: Tensor, added: float) -> Tensor:
    r"""Say what deleting each weight costs when the rest of its block makes up for it.

    :math:`L_q = w_q^2 / (2 [H^{-1}]_{qq})` of Hassibi & Stork (1993), equation 5.

    Args:
        weights: float64, ``[blocks, size]``.
        matrices: float64, symmetric, positive semidefinite, ``[blocks, size, size]``.
        added: to their diagonals, positive.

    Returns:
        float64, ``[blocks, size]``.
    """
    # Some blocks at a time: factors and inverses take as much memory as the blocks themselves.
    some = _at_once(matrices)
    inverses = [
        torch.cholesky_inverse(torch.linalg.cholesky(_damped(part, added))).diagonal(dim1=1, dim2=2).clone()
        for part in matrices.split(some)
    ]
    return weights.square() / (2 * torch.cat(inverses))


def updates(weights: Tensor, matrices: Tensor, added: float, deleted: Tensor) -> Tensor:
    r"""Delete weights, and change the others of their blocks to make up for it.

    :math:`\delta w = -[H^{-1}]_{:Q} ([H^{-1}]_{QQ})^{-1} w_Q`: equation 5 of Hassibi & Stork (1993) for a set ``Q``,
    as in Kurtic et al. (2022), section 3. It is computed as what it is equal to, :math:`H_{RR}^{-1} H_{RQ} w_Q` for
    the rest ``R``.

    Args:
        weights: float64, ``[blocks, size]``.
        matrices: as for :func:`losses`.
        added: to their diagonals, positive.
        deleted: bool, ``[blocks, size]``.

    Returns:
        float64, ``[blocks, size]``; zero where deleted; a block where nothing is deleted stays as it is.
    """
    some = _at_once(matrices)
    parts = zip(weights.split(some), matrices.split(some), deleted.split(some), strict=True)
    return torch.cat([_updated(one, _damped(part, added), gone) for one, part, gone in parts])


def _updated(weights: Tensor, damped: Tensor, deleted: Tensor) -> Tensor:
    gone = weights * deleted
    pull = (damped @ gone.unsqueeze(-1)).masked_fill(deleted.unsqueeze(-1), 0.0)
    either = deleted.unsqueeze(1) | deleted.unsqueeze(2)
    rest = torch.where(either, torch.eye(damped.shape[-1], dtype=damped.dtype, device=damped.device), damped)
    change = torch.cholesky_solve(pull, torch.linalg.cholesky(rest)).squeeze(-1)
    return (weights + change).masked_fill(deleted, 0.0)


def _at_once(matrices: Tensor) -> int:
    return max(1, BYTES // (_SHARE * 8 * matrices.shape[-1] ** 2))


def _damped(matrices: Tensor, added: float) -> Tensor:
    return matrices + added * torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
