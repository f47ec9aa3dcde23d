"""What a strong ticket is certain to predict: how far its logits can be from the target's, input by input.

Errors are propagated layer by layer with bounds that hold, spectral norms from above and rounding among them, so that
an input whose margin exceeds its bound is predicted as by the target, for certain.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor
from torch.nn import functional

from tombola.errors import InvalidValue
from tombola.strong.network import StrongNetwork
from tombola.strong.target import Layer, Target

UNITS: Final = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
"""The unit roundoff of what the network is run in."""

_SLACK: Final = 1 + 1e-9
"""Beside what float64 may round in the bounds themselves."""

_LARGEST: Final = 6000
"""Eigenvalues of a matrix of so many rows take a minute."""


def norm_above(matrix: Tensor) -> float:
    r"""Bound a matrix's largest singular value from above.

    By the eigenvalues of the smaller Gram matrix G in float64. They are those of a matrix no further from G than
    :math:`p(n)\,2^{-53} \|G\|_2`, with :math:`p(n) \le 10 n` to spare, and forming G adds at most :math:`n\,2^{-53}
    \|A\|_F^2`; both are added before the root is taken.

    Beyond 6,000 rows and columns by the Frobenius norm, or by the largest sums of a row and of a column.

    Args:
        matrix: float64 ``[m, n]``.

    Example:
        >>> norm_above(torch.tensor([[3.0, 0.0], [0.0, -4.0]], dtype=torch.float64)) >= 4.0
        True
    """
    largest = float(matrix.abs().max()) if matrix.numel() else 0.0
    if largest == 0:
        return 0.0
    # By a power of two, exactly, so that no square is too small or too large to be written.
    unit = 2.0 ** (math.frexp(largest)[1] - 1)
    return unit * _norm_above(matrix / unit)


def _norm_above(matrix: Tensor) -> float:
    if min(matrix.shape) > _LARGEST:
        return min(float(matrix.norm()), _between(matrix))
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    trace = float(gram.diagonal().sum())
    own = float(torch.linalg.eigvalsh(gram)[-1])
    slack = 11 * max(matrix.shape) * UNITS[torch.float64] * trace
    return min(math.sqrt(max(0.0, own) + slack), math.sqrt(trace * (1 + max(matrix.shape) * 2.0**-50)))


def _between(matrix: Tensor) -> float:
    """Bound the norm by the geometric mean of those that the largest sums of a row and of a column are."""
    sizes = matrix.abs()
    return math.sqrt(float(sizes.sum(0).max()) * float(sizes.sum(1).max())) if sizes.numel() else 0.0


@final
@dataclass(frozen=True)
class _Gains:
    """What a block does to norms, all of them bounds from above.

    Attributes:
        effective: that of the weights that read what may be off: the realised layer's, or all those that the mask
            leaves of a single layer, which reads copies that are each off by something else.
        away: that of its difference from the target's.
        target: the target's.
        bias: how far the biases are apart, in the Euclidean norm over all positions.
        target_bias: the norm of the target's own.
        rounding: what rounding adds, times the norm of the layer's input.
        rounding_bias: what it adds beside that.
        before: what reshaping does.
    """

    effective: float
    away: float
    target: float
    bias: float
    target_bias: float
    rounding: float
    rounding_bias: float
    before: float


@final
@dataclass(frozen=True)
class Certificate:
    """How far the logits of a strong ticket are from its target's, at most.

    Attributes:
        bounds: float64 ``[inputs]``, Euclidean, in the target's units.
        margins: float64 ``[inputs]``: the target's largest logit minus its second.
    """

    bounds: Tensor
    margins: Tensor

    @property
    def certified(self) -> Tensor:
        """Whether the prediction is the target's for certain: bool ``[inputs]``."""
        return self.margins > math.sqrt(2) * self.bounds

    @property
    def share(self) -> float:
        """The share of inputs that are certified."""
        return float(self.certified.double().mean()) if len(self.margins) else math.nan


@final
class Certifier:
    """Bounds for one strong ticket and its target.

    Each bound is :math:`E_l = \\|\\hat W_l\\| E_{l-1} + \\|\\hat W_l - W_l\\| \\|h_{l-1}\\| + \\|\\hat b_l - b_l\\|`
    and what rounding adds, from :math:`E_0 = 0`, where h is what the target computes; ReLU and pooling without overlap
    bring nothing further apart. A convolution's norm is at most the root of its kernel's size times that of the kernel
    as a matrix. Where hidden neurons are there in copies, the errors of all copies are propagated together, and
    :math:`\\|\\hat W_l\\|` is the norm of all the weights that read them, which is far larger. Rounding is that of sums
    of as many terms as the mask leaves, in whatever order.
    """

    def __init__(
        self, network: StrongNetwork, target: Target, *, dtype: torch.dtype = torch.float64, signed: bool = False
    ) -> None:
        """Measure the norms.

        Args:
            network: the masked random network.
            target: what it stands for.
            dtype: what the network is run in. In float32 the bound is that of sums in the worst order, and large.
            signed: inputs may be negative.
        """
        self.target, self.signed = target, signed
        self._gains: list[_Gains] = []
        scale = 1.0
        for number, layer in enumerate(target.layers):
            scale *= network.factors[number]
            self._gains.append(_measure(network, number, layer, UNITS[dtype], scale, signed and number == 0))

    def __call__(self, x: Tensor, *, at_once: int = 1000) -> Certificate:
        """Bound the logits' distance for each of some inputs: float ``[inputs, ...]``."""
        bounds, margins = [], []
        if not self.signed and bool((x < 0).any()):
            raise InvalidValue("an input is negative, and this strong ticket was read for inputs that are not: signed.")
        for some in x.double().split(at_once):
            with torch.no_grad():
                *read, logits = self.target.activations(some)
            error = torch.zeros(len(some), dtype=torch.float64)
            # An average of both signs is rounded by the size of what it adds up.
            sizes = [self._reshaped(some.abs()), *read[1:]] if self.signed else read
            for layer, gains, h, size in zip(self.target.layers, self._gains, read, sizes, strict=True):
                positions = _positions(layer, h)
                norm, rounded = (one.flatten(1).norm(dim=1) * _SLACK for one in (h, size))
                error = self._next(gains, error, norm, rounded, positions)
            bounds.append(error)
            if logits.shape[1] == 1:
                # One class alone is what is always predicted.
                margins.append(torch.full_like(error, math.inf))
                continue
            top = logits.topk(2, 1).values
            margins.append(top[:, 0] - top[:, 1])
        return Certificate(torch.cat(bounds), torch.cat(margins))

    def everywhere(self, norm: float, example: Tensor) -> float:
        """Bound the logits' distance for every input up to a norm.

        Every input in that ball is predicted as by the target where the target's margin exceeds sqrt(2) times this.
        For a box of inputs give the norm of its farthest corner.

        Args:
            norm: of the largest input, Euclidean.
            example: one input, ``[1, ...]``, for its shape.

        Raises:
            InvalidValue: the norm is not finite: an unbounded domain has no bound.
        """
        if not 0 <= norm < math.inf:
            raise InvalidValue(
                f"the inputs reach up to a norm of {norm}, and a bound needs a domain: a box such as [0, 1], or a ball."
            )
        with torch.no_grad():
            read = self.target.activations(example.double())
        error, largest = torch.zeros(1, dtype=torch.float64), norm * _SLACK
        for layer, gains, h in zip(self.target.layers, self._gains, read, strict=False):
            positions = _positions(layer, h)
            largest *= gains.before
            norms = torch.tensor([largest], dtype=torch.float64)
            error = self._next(gains, error, norms, norms, positions)
            largest = (gains.target * largest + gains.target_bias * math.sqrt(positions)) * _SLACK
        return float(error)

    def _reshaped(self, x: Tensor) -> Tensor:
        for reshape in self.target.layers[0].before:
            x = reshape(x)
        return x

    def _next(self, gains: _Gains, error: Tensor, norm: Tensor, rounded: Tensor, positions: int) -> Tensor:
        error = error * gains.before
        steady = (gains.bias + gains.rounding_bias) * math.sqrt(positions)
        return (gains.effective * error + gains.away * norm + gains.rounding * (rounded + error) + steady) * _SLACK


def _positions(layer: Layer, h: Tensor) -> int:
    """How many positions of a layer's output there are, each with the bias once."""
    if not layer.convolution:
        return 1
    with torch.no_grad():
        probe = torch.zeros(1, 1, *h.shape[2:], dtype=torch.float64)
        kernel = torch.zeros(1, 1, *layer.weight.shape[2:], dtype=torch.float64)
        shape = functional.conv2d(probe, kernel, None, layer.stride, layer.padding, layer.dilation).shape
    return math.prod(shape[2:])


def _measure(network: StrongNetwork, number: int, layer: Layer, unit: float, scale: float, signed: bool) -> _Gains:
    """Measure a block; ``scale`` is the product of the factors up to it."""
    block, factor = network.blocks[number], network.factors[number]
    plus, sizes, terms = network.effective(number)
    alive = network.alive(number)
    taps = block.taps[alive]

    def matrix(values: Tensor) -> Tensor:
        """Write ``[anything, columns]`` as ``[outputs that are read, anything times places]``."""
        own = values.reshape(len(values), len(alive), math.prod(block.kernel))[:, alive]
        return own.transpose(0, 1).flatten(1)

    wanted = layer.weight.repeat_interleave(block.copies, 0)[alive].flatten(1)
    pieces, spreads = [matrix(plus[: block.inputs]) / factor], [matrix(sizes[: block.inputs]) / factor]
    if signed:
        minus, further, more = network.effective(number, -1)
        pieces.append(matrix(minus[: block.inputs]) / factor)
        spreads.append(matrix(further[: block.inputs]) / factor)
        terms += more
    widen = math.sqrt(math.prod(block.kernel))
    bias, spread = (one[block.inputs :, taps].sum(0) / scale for one in (plus, sizes))
    true_bias = torch.zeros(block.outputs, dtype=torch.float64) if layer.bias is None else layer.bias
    effective, rounding = norm_above(torch.cat(pieces, 1)), norm_above(torch.cat(spreads, 1))
    if not block.doubled:
        read = matrix(_kept(network, number).flatten(0, 1)) / factor
        effective, rounding = norm_above(read), max(rounding, _between(read))
    pooled = sum(math.prod(one.size) for one in layer.before if one.kind == "average")
    # Two roundings in each term's products, one for each further term, and those of an average before it.
    gamma = (terms + 2 + pooled) * unit
    gamma = gamma / (1 - gamma) if gamma < 1 else math.inf
    return _Gains(
        effective=widen * effective,
        away=widen * norm_above(torch.cat([one - wanted for one in pieces], 1)),
        target=widen * norm_above(layer.weight.reshape(block.outputs, -1)),
        bias=float((bias - true_bias.repeat_interleave(block.copies)[alive]).norm()),
        target_bias=float(true_bias.norm()),
        rounding=gamma * widen * rounding,
        rounding_bias=gamma * float(spread.norm()),
        before=math.prod(reshape.gain for reshape in layer.before),
    )


def _kept(network: StrongNetwork, number: int) -> Tensor:
    """Give what a single layer reads its copies by: float64 ``[inputs, N, columns]``."""
    block, mask = network.blocks[number], network.mask(number)[: network.blocks[number].inputs]
    return torch.where(mask, block.second(network.seed, number, range(block.inputs)), 0.0).double()


def bisect(reaches: Callable[[float], bool], *, start: float, least: float = 1e-9, steps: int = 12) -> float | None:
    """Find the largest weight error at which something is reached, by halving on a logarithmic scale.

    Args:
        reaches: whether it is reached at an error; at every smaller one too.
        start: the largest error of interest.
        least: the smallest.
        steps: halvings.

    Returns:
        The largest error that was seen to reach it; ``None`` where the smallest does not.

    Example:
        >>> round(bisect(lambda error: error < 1e-3, start=1.0, steps=20), 6)
        0.001
    """
    if reaches(start):
        return start
    if not reaches(least):
        return None
    low, high = math.log(least), math.log(start)
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if reaches(math.exp(middle)) else (low, middle)
    return math.exp(low)
