"""A masked random network: a seed, sizes and a bit mask, and nothing that was ever trained."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import ShapeMismatch
from tombola.strong.law import draw
from tombola.strong.target import Layer, Reshape

FORTH, BACK, CONSTANT, OTHER = "u", "v", "a", "other"
"""What is drawn for a block: the weights that a neuron reads its one input by, those that its readers have, the biases
of the neurons that read nothing, and every other weight of the first layer, which the mask deletes."""


@final
@dataclass(frozen=True)
class Block:
    """Two random layers with a ReLU between them, which stand for one layer of the target.

    The first has N neurons for each input, of which the mask leaves that one weight each, and N for the bias, of which
    it leaves the bias each. Of the second the mask leaves a subset for each weight of the target.

    Attributes:
        inputs, outputs: of the layer that it stands for.
        kernel: height and width of a convolution; ``(1, 1)`` for a linear layer.
        convolution: whether it is one.
        bias: whether there are neurons for it.
        candidates: N.
        relu: whether a ReLU follows.
        before: what is done to the input first.
        stride, padding, dilation: of a convolution.
    """

    inputs: int
    outputs: int
    kernel: tuple[int, int]
    convolution: bool
    bias: bool
    candidates: int
    relu: bool
    before: tuple[Reshape, ...]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(cls, layer: Layer, candidates: int) -> "Block":
        """Give the block for a layer."""
        outputs, inputs = layer.weight.shape[:2]
        kernel = (layer.weight.shape[2], layer.weight.shape[3]) if layer.convolution else (1, 1)
        return cls(
            inputs, outputs, kernel, layer.convolution, layer.bias is not None, candidates, layer.relu, layer.before,
            layer.stride, layer.padding, layer.dilation,
        )  # fmt: skip

    @property
    def groups(self) -> int:
        """The inputs, and one more for the bias."""
        return self.inputs + self.bias

    @property
    def columns(self) -> int:
        """What reads a neuron: an output, through each place of a kernel."""
        return self.outputs * math.prod(self.kernel)

    @property
    def total(self) -> int:
        """Count the random weights of both layers, and the biases of the first."""
        neurons = self.groups * self.candidates
        return neurons * self.inputs + neurons * self.bias + neurons * self.columns

    @property
    def tap(self) -> int:
        """The place of the kernel that is always on the image, where the bias is read."""
        height, width = (pad // far for pad, far in zip(self.padding, self.dilation, strict=True))
        return height * self.kernel[1] + width

    def first(self, seed: int, number: int) -> Tensor:
        """Draw what the neurons read their one input by: float32 ``[groups, N]``; the bias's come last."""
        rows = [draw(seed, number, FORTH, group, self.candidates) for group in range(self.inputs)]
        return torch.stack([*rows, *([draw(seed, number, CONSTANT, 0, self.candidates)] if self.bias else [])])

    def second(self, seed: int, number: int, groups: range) -> Tensor:
        """Draw what reads the neurons of some groups: float32 ``[len(groups), N, columns]``."""
        count = self.candidates * self.columns
        rows = [draw(seed, number, BACK, group, count) for group in groups]
        return torch.stack(rows).view(len(groups), self.candidates, self.columns)


@final
class StrongNetwork(nn.Module):
    """A random network under a mask. It has no parameters: the seed and the mask are all that it is.

    It maps ``[batch, *input_shape]`` to logits times ``scale``, in the dtype of its input. The random weights are drawn
    when it first runs. Neurons that nothing of the mask reads are left out then, which changes no output.

    Attributes:
        seed: of the random weights.
        blocks: their sizes.
        factors: what each block multiplies its layer's weights by: powers of two.
    """

    def __init__(self, seed: int, blocks: Sequence[Block], masks: Sequence[Tensor], factors: Sequence[float]) -> None:
        """Take the masks of the blocks' second layers: bool ``[groups, N, columns]``.

        Raises:
            ShapeMismatch: they are of other sizes.
        """
        super().__init__()
        self.seed, self.blocks, self.factors = seed, tuple(blocks), tuple(factors)
        for number, (block, mask) in enumerate(zip(self.blocks, masks, strict=True)):
            wanted = (block.groups, block.candidates, block.columns)
            if tuple(mask.shape) != wanted:
                raise ShapeMismatch(f"the mask of block {number} has shape {tuple(mask.shape)}, expected {wanted}.")
            packed = np.packbits(mask.numpy().reshape(-1), bitorder="little")
            self.register_buffer(f"mask_{number}", torch.from_numpy(packed))
        self._drawn: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    @classmethod
    def packed(
        cls, seed: int, blocks: Sequence[Block], masks: Sequence[Tensor], factors: Sequence[float]
    ) -> "StrongNetwork":
        """Take masks as the buffers hold them: uint8, eight bits each, the first in the lowest."""
        found = cls(seed, (), (), factors)
        found.blocks = tuple(blocks)
        for number, mask in enumerate(masks):
            found.register_buffer(f"mask_{number}", mask.clone())
        return found

    @property
    def scale(self) -> float:
        """What the logits of the target are multiplied by."""
        return math.prod(self.factors)

    def mask(self, number: int) -> Tensor:
        """Give the mask of a block's second layer: bool ``[groups, N, columns]``."""
        block = self.blocks[number]
        sizes = (block.groups, block.candidates, block.columns)
        packed = self.get_buffer(f"mask_{number}").cpu().numpy()
        bits = np.unpackbits(packed, count=math.prod(sizes), bitorder="little")
        return torch.from_numpy(bits.astype(np.bool_)).view(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Run the neurons that are read."""
        for number, block in enumerate(self.blocks):
            for reshape in block.before:
                x = reshape(x)
            group, forth, back = (one.to(x.device) for one in self._weights(number))
            forth, back = forth.to(x.dtype), back.to(x.dtype)
            reads = group < block.inputs
            shape = (1, -1, *(1,) * (x.dim() - 2))
            # The neurons of the bias come last, and read nothing.
            hidden = x[:, group[reads]] * forth[reads].view(shape)
            constant = forth[~reads].view(shape).expand(len(x), -1, *x.shape[2:])
            hidden = functional.relu(torch.cat([hidden, constant], 1))
            if block.convolution:
                x = functional.conv2d(hidden, back, None, block.stride, block.padding, block.dilation)
            else:
                x = functional.linear(hidden, back.flatten(1))
            x = functional.relu(x) if block.relu else x
        return x

    def effective(self, number: int, sign: int = 1) -> tuple[Tensor, Tensor, int]:
        """Give the weights that a block has in effect, on inputs of a sign.

        Returns:
            float64 ``[groups, columns]`` of the sums; of the sums of their terms' magnitudes; and the most terms that
            one output adds up. The same bits on every machine.
        """
        block, mask = self.blocks[number], self.mask(number)
        u = block.first(self.seed, number).double()
        u[: block.inputs] *= u[: block.inputs] * sign > 0
        u[block.inputs :] = u[block.inputs :].clamp(min=0)
        sums = torch.zeros(block.groups, block.columns, dtype=torch.float64)
        sizes, terms = torch.zeros_like(sums), torch.zeros(block.columns, dtype=torch.int64)
        for groups in parts(block):
            v = block.second(self.seed, number, groups)
            some, used = slice(groups.start, groups.stop), mask[groups.start : groups.stop]
            for k in range(block.candidates):
                term = torch.where(used[:, k], u[some, k, None] * v[:, k].double(), 0.0)
                sums[some] += term
                sizes[some] += term.abs()
            terms += (used & (u[some, :, None] != 0)).sum((0, 1))
        return sums, sizes, int(terms.view(block.outputs, -1).sum(1).max()) if terms.numel() else 0

    @property
    def kept(self) -> int:
        """Count the random weights that the masks leave: of the second layers, and of the neurons that are read."""
        return sum(int(mask.sum()) + int(mask.any(2).sum()) for mask in map(self.mask, range(len(self.blocks))))

    @property
    def total(self) -> int:
        """Count the random weights."""
        return sum(block.total for block in self.blocks)

    def materialised(self) -> nn.Sequential:
        """Give the same as plain layers, each with all of its weights, those that the mask deletes as zeros.

        Memory is that of the whole random network, 4 bytes a weight.
        """
        return nn.Sequential(*(part for number in range(len(self.blocks)) for part in self._plain(number)))

    def _plain(self, number: int) -> Iterator[nn.Module]:
        block, mask = self.blocks[number], self.mask(number)
        yield from (_module(reshape) for reshape in block.before)
        neurons, read = block.groups * block.candidates, mask.any(2)
        forth = torch.zeros(block.groups, block.candidates, block.inputs)
        which = torch.arange(block.inputs)
        first = block.first(self.seed, number)
        forth[which, :, which] = torch.where(read[: block.inputs], first[: block.inputs], 0.0)
        bias = torch.zeros(block.groups, block.candidates)
        bias[block.inputs :] = torch.where(read[block.inputs :], first[block.inputs :], 0.0)
        back = torch.where(mask, block.second(self.seed, number, range(block.groups)), 0.0).view(neurons, -1)
        a: nn.Linear | nn.Conv2d
        b: nn.Linear | nn.Conv2d
        with torch.no_grad():
            if block.convolution:
                a = nn.Conv2d(block.inputs, neurons, 1, bias=block.bias)
                b = nn.Conv2d(
                    neurons, block.outputs, block.kernel, block.stride, block.padding, block.dilation, bias=False
                )
                b.weight.copy_(back.view(neurons, block.outputs, *block.kernel).transpose(0, 1))
            else:
                a = nn.Linear(block.inputs, neurons, bias=block.bias)
                b = nn.Linear(neurons, block.outputs, bias=False)
                b.weight.copy_(back.T)
            a.weight.copy_(forth.view(a.weight.shape))
            if a.bias is not None:
                a.bias.copy_(bias.flatten())
        yield from (a, nn.ReLU(), b)
        if block.relu:
            yield nn.ReLU()

    def _weights(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a block once: of each neuron that is read its group, what it reads by, and what reads it."""
        if number not in self._drawn:
            block, mask = self.blocks[number], self.mask(number)
            read = mask.any(2)
            group, which = read.nonzero(as_tuple=True)
            forth = block.first(self.seed, number)[group, which]
            rows = []
            for groups in parts(block):
                here = (group >= groups.start) & (group < groups.stop)
                v = block.second(self.seed, number, groups)
                own = group[here] - groups.start
                rows.append(torch.where(mask[group[here], which[here]], v[own, which[here]], 0.0))
            back = torch.cat(rows).view(-1, block.outputs, *block.kernel).transpose(0, 1).contiguous()
            self._drawn[number] = group, forth, back
        return self._drawn[number]


def parts(block: Block, at_once: int = 1 << 25) -> list[range]:
    """Split a block's groups so that what is drawn at once stays below a number of weights, if a group does."""
    step = max(1, at_once // max(1, block.candidates * block.columns))
    return [range(at, min(at + step, block.groups)) for at in range(0, block.groups, step)]


def _module(reshape: Reshape) -> nn.Module:
    match reshape.kind:
        case "flatten":
            return nn.Flatten()
        case "max":
            return nn.MaxPool2d(reshape.size, reshape.stride, reshape.padding)
        case _:
            return nn.AvgPool2d(reshape.size, reshape.stride, reshape.padding)
