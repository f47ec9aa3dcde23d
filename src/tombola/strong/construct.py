"""A strong ticket by construction: a random network whose mask makes it a given trained one, with nothing trained.

Malach et al. (2020) prove that there is one; Pensia et al. (2020) with subset sums, so that a logarithm of 1/error is
enough, da Cunha et al. (2022) for convolutions, and Burkholz (2022) with one layer more than the target has, where the
others need twice as many. What they prove to exist is found here, weight by weight.
"""

import math
import operator
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, final

import torch
from torch import Tensor

from tombola.errors import InvalidValue, Unsolved
from tombola.strong.bounds import candidates as typical
from tombola.strong.network import MOST_CANDIDATES, Block, StrongNetwork, parts, read_copies
from tombola.strong.subset_sum import MOST, Solved, ladder_for, solve
from tombola.strong.target import Layer, Target

CANDIDATES: Final = (72, 96, 128, 192)
"""Random neurons for each input, of which about half are of use: tried in order until no weight is missed."""

_MOST: Final = MOST_CANDIDATES
_FINEST: Final = 1e-8
"""The error that lists of the most candidates reach, but for few lists, at weights up to 1/2."""

_REACH: Final = 0.5
"""The largest weight after scaling: sums of products come near everything up to there."""

_MOST_POWER: Final = 100
"""What a layer is scaled by is no further from 1 than 2 to this: products of it over ten layers stay numbers."""


@final
@dataclass(frozen=True)
class Fit:
    """How near a block comes to its layer, in the target's own units.

    Attributes:
        name: of the layer.
        sums: weights and biases, once for every copy of an output that is read; weights twice where inputs may be
            negative.
        solved: those that took a subset: all others are within the error of 0.
        max_error, mean_error: over the sums.
        unresolved: how many are further away than the error.
        mean_candidates: the candidates that were looked at, over the solved ones.
        kept: random weights kept for them.
    """

    name: str
    sums: int
    solved: int
    max_error: float
    mean_error: float
    unresolved: int
    mean_candidates: float
    kept: int


@final
@dataclass(frozen=True)
class Construction:
    """A strong ticket and how it was made.

    Attributes:
        network: the masked random network.
        target: what it stands for.
        error: what every weight was to reach, in the target's units.
        fits: one for each layer.
        seconds: wall time.
    """

    network: StrongNetwork
    target: Target
    error: float
    fits: tuple[Fit, ...]
    seconds: float

    @property
    def unresolved(self) -> int:
        """How many weights are further away than the error."""
        return sum(one.unresolved for one in self.fits)

    @property
    def max_error(self) -> float:
        """The largest error of a weight, in the target's units."""
        return max(one.max_error for one in self.fits)

    @property
    def mean_error(self) -> float:
        """The mean error of a weight, in the target's units."""
        return sum(one.mean_error * one.sums for one in self.fits) / max(1, self.sums)

    @property
    def sums(self) -> int:
        """Count subset sums: see :attr:`Fit.sums`."""
        return sum(one.sums for one in self.fits)

    @property
    def solved(self) -> int:
        """How many of them took a subset."""
        return sum(one.solved for one in self.fits)


def construct(
    target: Target,
    *,
    seed: int = 0,
    error: float = 1e-3,
    doubled: bool = True,
    candidates: int | None = None,
    signed: bool = False,
    ladder: Sequence[int] | None = None,
    threads: int = 1,
    accept_unresolved: bool = False,
    told: Callable[[int, int], object] = lambda done, total: None,  # noqa: ARG005
) -> Construction:
    """Draw a random network and find the mask under which it is the target.

    It has twice the target's depth: Pensia et al. (2020); or one layer more: Burkholz (2022), whose source network has
    the target's activation throughout, and biases. Every hidden
    neuron is then there N/2 times over, each copy with its own random weights, and a weight of the layer that follows
    is a sum of some of those that read the copies. That is N/2 times as many sums. Copies that no sum takes are left
    out, so layers are solved from the last to the first.

    Layers are scaled by powers of two so that no weight exceeds 1/2; ReLU passes positive factors through, so the
    logits come out times their product.

    Args:
        target: what to stand for.
        seed: of the random network.
        error: of every weight and bias, in the target's units.
        doubled: whether the depth is doubled.
        candidates: N, random neurons for each input; by default 72, and more where weights are missed.
        signed: the input has negative entries: each weight of the first layer is then solved twice, by the neurons
            that pass on positive inputs and by those that pass on negative ones.
        ladder: as for :func:`~tombola.strong.subset_sum.solve`.
        threads: that share the work.
        accept_unresolved: give the network although weights are further away than the error; they are counted.
        told: is given weights done and their total, now and then.

    Raises:
        InvalidValue: an error or a number of candidates out of range, a network too large for this memory, or one
            whose depth has to be doubled.
        Unsolved: weights are further away than the error; says how many candidates would do.
    """
    if not 0 < error < math.inf:
        raise InvalidValue(f"the error is {error}; it is a number above 0, such as 0.001.")
    if candidates is not None and not 2 <= candidates <= _MOST:
        raise InvalidValue(f"there are to be {candidates} candidates for each input; take 2 to {_MOST}, such as 72.")
    began = time.perf_counter()
    widths = CANDIDATES if candidates is None else (candidates,)
    for width in widths:
        attempt = _with(width, target, seed, error, doubled, signed, ladder, threads, told, patient=width == widths[-1])
        if attempt is not None:
            break
    assert attempt is not None
    network, fits = attempt
    found = Construction(network, target, error, fits, time.perf_counter() - began)
    if found.unresolved and not accept_unresolved:
        raise Unsolved(
            f"{found.unresolved} of {found.sums} weights are further than {error:g} from every subset sum that was "
            f"looked at, the worst by {found.max_error:.3g}: {_advice(network, widths[-1], error)}"
        )
    return found


def _advice(network: StrongNetwork, candidates: int, error: float) -> str:
    """Say what would most probably do: a larger error where it is below what can be had, else more candidates."""
    # Biases are multiplied by the factors of all layers up to theirs.
    finest = min(*network.factors, *accumulate(network.factors, operator.mul))
    if error * finest < _FINEST:
        return (
            f"{MOST} candidates at a time come to about {_FINEST / finest:.1g} for weights of this size, whatever "
            f"their number. Take --error {_FINEST / finest:.1g}."
        )
    least = max(candidates * 4 / 3, 2 * (typical(error * finest) + 22))
    enough = next((width for width in CANDIDATES if width >= least), math.ceil(least))
    return f"{candidates} candidates for each input are too few. Take {enough} (--candidates), or a larger --error."


def _with(
    candidates: int,
    target: Target,
    seed: int,
    error: float,
    doubled: bool,
    signed: bool,
    ladder: Sequence[int] | None,
    threads: int,
    told: Callable[[int, int], object],
    *,
    patient: bool,
) -> tuple[StrongNetwork, tuple[Fit, ...]] | None:
    """Construct with so many candidates; what is not reached is counted, or without patience ends it with ``None``."""
    blocks = _blocks(target, candidates, doubled)
    _check_memory(blocks, candidates)
    factors = list[float]()
    for layer in target.layers:
        factors.append(_factor(layer, math.prod(factors), error))
    masks, fits, done = dict[int, Tensor](), dict[int, Fit](), 0
    signs = [(1, -1) if signed and number == 0 else (1,) for number in range(len(blocks))]
    sums = [
        len(sign) * block.inputs * block.columns + len(block.taps) * (block.constants > 0)
        for sign, block in zip(signs, blocks, strict=True)
    ]
    total = sum(sums)
    for number in reversed(range(len(blocks))):
        block = blocks[number]
        alive = torch.ones(block.outputs * block.copies, dtype=torch.bool)
        if number + 1 in masks and not doubled:
            alive = read_copies(blocks[number + 1], masks[number + 1], block.outputs)
        work = _Work(seed, number, target.layers[number], block, factors[number], math.prod(factors[: number + 1]))
        before = done
        masks[number], fits[number] = work.solve(
            error,
            alive,
            signs[number],
            ladder,
            threads,
            lambda now: told(before + now, total),  # noqa: B023
            patient=patient,
        )
        if fits[number].unresolved and not patient:
            return None
        done += sums[number]
        told(done, total)
    order = range(len(blocks))
    return StrongNetwork(seed, blocks, [masks[n] for n in order], factors), tuple(fits[n] for n in order)


def _blocks(target: Target, candidates: int, doubled: bool) -> list[Block]:
    """Lay out the random network: where the depth is not doubled, copies take the place of the candidates of use."""
    copies, last = candidates // 2, len(target.layers) - 1
    found = list[Block]()
    for number, layer in enumerate(target.layers):
        if doubled:
            found.append(Block.of(layer, candidates))
            continue
        shrunk = [one for one in layer.before if one.kind == "average" and any(one.padding)]
        if number and layer.bias is not None and shrunk:
            raise InvalidValue(
                f"before {layer.name!r} there is an average with padding, under which the neurons for its bias are no "
                "constants. Take the construction of twice the depth."
            )
        each = copies if number < last else 1
        found.append(Block.of(layer, copies if number else candidates, doubled=number == 0, copies=each))
    return found


@final
@dataclass(frozen=True)
class _Work:
    """A layer to be solved: what it is multiplied by, and the product of all factors up to here."""

    seed: int
    number: int
    layer: Layer
    block: Block
    factor: float
    scale: float

    def solve(
        self,
        error: float,
        alive: Tensor,
        signs: Sequence[int],
        ladder: Sequence[int] | None,
        threads: int,
        told: Callable[[int], object],
        *,
        patient: bool,
    ) -> tuple[Tensor, Fit]:
        """Solve the columns of the copies that are read: ``alive``, bool ``[outputs * copies]``.

        Without patience the first part with a weight that is not reached is the last.
        """
        block = self.block
        mask = torch.zeros(block.groups, block.candidates, block.columns, dtype=torch.bool)
        u = block.first(self.seed, self.number)
        tally = _Tally()
        weight = self.layer.weight.repeat_interleave(block.copies, 0).transpose(0, 1)
        weight = weight.reshape(block.inputs, block.columns) * self.factor
        read = alive.repeat_interleave(math.prod(block.kernel)).nonzero().flatten()
        whole = len(read) == block.columns
        tolerance = error * self.factor
        for groups in parts(block):
            inputs = slice(groups.start, min(groups.stop, block.inputs))
            if inputs.start >= inputs.stop:
                continue
            v = block.second(self.seed, self.number, range(inputs.start, inputs.stop))
            for sign in signs:
                found = solve(
                    u[inputs],
                    v if whole else v[:, :, read],
                    weight[inputs] if whole else weight[inputs][:, read],
                    tolerance,
                    sign=sign,
                    ladder=ladder or ladder_for(tolerance),
                    threads=threads,
                    told=lambda now, _: told(tally.sums + now),
                )
                if whole:
                    mask[inputs] |= found.masks()
                else:
                    mask[inputs, :, read] |= found.masks()
                tally.add(found, self.factor)
                if tally.unresolved and not patient:
                    return mask, tally.fit(self.layer.name)
        if block.constants:
            assert self.layer.bias is not None
            tolerance, taps = error * self.scale, block.taps[alive]
            groups = range(block.inputs, block.groups)
            v = block.second(self.seed, self.number, groups)[:, :, taps]
            found = solve(
                u[block.inputs :].reshape(1, -1),
                v.flatten(0, 1)[None],
                self.layer.bias.repeat_interleave(block.copies)[None, alive] * self.scale,
                tolerance,
                ladder=ladder or ladder_for(tolerance),
                threads=threads,
            )
            mask[block.inputs :, :, taps] |= found.masks().view(v.shape)
            tally.add(found, self.scale)
        return mask, tally.fit(self.layer.name)


class _Tally:
    """What the parts of a layer add up to."""

    def __init__(self) -> None:
        self.sums = self.solved = self.unresolved = self.kept = self.looked = 0
        self.worst = self.total = 0.0

    def add(self, found: Solved, factor: float) -> None:
        """Count a part."""
        if not found.errors.numel():
            return
        self.sums += found.errors.numel()
        self.solved += int((found.codes != 0).sum())
        self.unresolved += found.unresolved
        self.kept += found.kept
        self.looked += int(found.tried[found.codes != 0].sum())
        self.worst = max(self.worst, float(found.errors.max()) / factor)
        self.total += float(found.errors.sum()) / factor

    def fit(self, name: str) -> Fit:
        many = max(1, self.solved)
        return Fit(
            name, self.sums, self.solved, self.worst, self.total / max(1, self.sums), self.unresolved,
            self.looked / many, self.kept,
        )  # fmt: skip


def _factor(layer: Layer, scale: float, error: float) -> float:
    """Give the power of two that brings a layer's weights, and its biases, up to 1/2 and not beyond.

    What is within the error of 0 takes no sum, and is not to blow up the biases of all layers that follow.
    """
    weight = float(layer.weight.abs().max()) if layer.weight.numel() else 0.0
    bias = 0.0 if layer.bias is None else float(layer.bias.abs().max())
    largest = max(weight if weight > error else 0.0, scale * bias if bias > error else 0.0)
    if largest == 0:
        return 1.0
    return 2.0 ** min(_MOST_POWER, max(-_MOST_POWER, math.floor(math.log2(_REACH) - math.log2(largest))))


def _check_memory(blocks: Sequence[Block], candidates: int) -> None:
    """Refuse what does not fit: a byte for each bit of the largest mask, a bit of the others, and what is drawn.

    The norm of a layer that reads copies is taken in float64.
    """
    masks = [block.groups * block.candidates * block.columns for block in blocks]
    needed = max((10 if block.doubled else 24) * many for block, many in zip(blocks, masks, strict=True))
    needed += sum(masks) // 8
    try:
        here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return
    if needed > here:
        doubled = all(block.doubled for block in blocks)
        fewer = int(candidates * (here / needed if doubled else math.sqrt(here / needed)))
        advice = f"{fewer} candidates would fit" if fewer >= 48 else "a target of fewer weights would"
        if not doubled:
            advice += "; twice the depth (--depth 2L) needs far less"
        raise InvalidValue(
            f"the random network needs about {needed / 2**30:.1f} GiB and there are {here / 2**30:.1f}: {advice}. A "
            "pruned ticket as the target needs as much, for its mask is over all inputs."
        )
