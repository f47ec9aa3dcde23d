"""A masked random network: a seed, sizes and a bit mask, and nothing that was ever trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import ShapeMismatch
from tombola.strong.law import draw
from tombola.strong.target import Layer, Reshape

FORTH, BACK, CONSTANT = "u", "v", "a"
"""What is drawn for a block: the weights that a neuron reads its one input by, those that its readers have, and the
biases of the neurons that read nothing. Every other weight the mask deletes, so it is never drawn."""


MOST_CANDIDATES: Final = 4096
"""N, at most."""


@final
@dataclass(frozen=True)
class Block:
    """What stands for one layer of the target: two random layers with a ReLU between them, or a single one.

    Of two, the first has N neurons for each input, of which the mask leaves that one weight each, and N for the bias,
    of which it leaves the bias each. A single one reads N copies of each input, and for the bias neurons beside them of
    which the mask leaves nothing but their own biases: Burkholz (2022). Of the layer that reads them the mask leaves a
    subset for each weight of the target.

    Attributes:
        inputs, outputs: of the layer that it stands for.
        kernel: height and width of a convolution; ``(1, 1)`` for a linear layer.
        convolution: whether it is one.
        doubled: whether it is two random layers.
        candidates: N.
        constants: how many times N neurons there are for the bias; 0 without one.
        copies: how many there are of each output, for the block that follows; 1 where that is doubled.
        relu: whether a ReLU follows.
        before: what is done to the input first.
        stride, padding, dilation: of a convolution.
    """

    inputs: int
    outputs: int
    kernel: tuple[int, int]
    convolution: bool
    doubled: bool
    candidates: int
    constants: int
    copies: int
    relu: bool
    before: tuple[Reshape, ...]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(cls, layer: Layer, candidates: int, *, doubled: bool = True, copies: int = 1) -> "Block":
        """Give the block for a layer."""
        outputs, inputs = layer.weight.shape[:2]
        kernel = (layer.weight.shape[2], layer.weight.shape[3]) if layer.convolution else (1, 1)
        # Every second constant is cut off by the ReLU, as every second neuron of a doubled block, and no copy is.
        constants = 0 if layer.bias is None else 1 if doubled else 2
        return cls(
            inputs, outputs, kernel, layer.convolution, doubled, candidates, constants, copies, layer.relu,
            layer.before, layer.stride, layer.padding, layer.dilation,
        )  # fmt: skip

    @property
    def groups(self) -> int:
        """The inputs, and those for the bias."""
        return self.inputs + self.constants

    @property
    def columns(self) -> int:
        """What reads a neuron: a copy of an output, through each place of a kernel."""
        return self.outputs * self.copies * math.prod(self.kernel)

    @property
    def taps(self) -> Tensor:
        """The columns by which the bias is read, at the place of the kernel that is always on the image."""
        return torch.arange(self.outputs * self.copies) * math.prod(self.kernel) + self.tap

    @property
    def tap(self) -> int:
        """That place."""
        height, width = (pad // far for pad, far in zip(self.padding, self.dilation, strict=True))
        return height * self.kernel[1] + width

    def first(self, seed: int, number: int) -> Tensor:
        """Draw what the neurons read their one input by: float32 ``[groups, N]``; the bias's come last.

        Ones for copies, which no random layer stands before.
        """
        ones = torch.ones(self.candidates)
        rows = [
            draw(seed, number, FORTH, group, self.candidates) if self.doubled else ones for group in range(self.inputs)
        ]
        return torch.stack([*rows, *(draw(seed, number, CONSTANT, g, self.candidates) for g in range(self.constants))])

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
        """Take the masks of the layers that read the neurons: bool ``[groups, N, columns]``, one for each block.

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
        self._drawn: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self._sums: dict[tuple[int, int], tuple[Tensor, Tensor, int]] = {}

        self.register_load_state_dict_post_hook(_forget)

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
        """Give the mask of the layer that reads a block's neurons: bool ``[groups, N, columns]``."""
        block = self.blocks[number]
        sizes = (block.groups, block.candidates, block.columns)
        packed = self.get_buffer(f"mask_{number}").cpu().numpy()
        bits = np.unpackbits(packed, count=math.prod(sizes), bitorder="little")
        return torch.from_numpy(bits.view(np.bool_)).view(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Run the neurons that are read.

        Raises:
            ShapeMismatch: the input is for another network.
        """
        copies = 1
        for number, block in enumerate(self.blocks):
            for reshape in block.before:
                x = _flat(x, copies) if reshape.kind == "flatten" else reshape(x)
            self._check(x, number)
            copies = block.copies
            which, forth, constant, back = self._weights(number)
            which, forth, constant, back = which.to(x.device), forth.to(x), constant.to(x), back.to(x)
            shape = (1, -1, *(1,) * (x.dim() - 2))
            hidden = x[:, which]
            if block.doubled:
                hidden = functional.relu(hidden * forth.view(shape))
            hidden = torch.cat([hidden, constant.view(shape).expand(len(x), -1, *x.shape[2:])], 1)
            if block.convolution:
                x = functional.conv2d(hidden, back, None, block.stride, block.padding, block.dilation)
            else:
                x = functional.linear(hidden, back.flatten(1))
            x = functional.relu(x) if block.relu else x
        return x

    def _check(self, x: Tensor, number: int) -> None:
        block = self.blocks[number]
        wanted = block.inputs if block.doubled else block.inputs * block.candidates
        if x.dim() != (4 if block.convolution else 2) or x.shape[1] != wanted:
            shape = f"[batch, {wanted}{', height, width' if block.convolution else ''}]"
            raise ShapeMismatch(f"block {number} reads inputs of shape {shape}, and these are {list(x.shape)}.")

    def effective(self, number: int, sign: int = 1) -> tuple[Tensor, Tensor, int]:
        """Give the weights that a block has in effect, on inputs of a sign.

        Returns:
            float64 ``[groups, columns]`` of the sums; of the sums of their terms' magnitudes; and the most terms that
            one output adds up. The same bits on every machine.
        """
        if (number, sign) not in self._sums:
            self._sums[number, sign] = self._effective(number, sign)
        return self._sums[number, sign]

    def _effective(self, number: int, sign: int) -> tuple[Tensor, Tensor, int]:
        block, mask = self.blocks[number], self.mask(number)
        u = block.first(self.seed, number).double()
        u[: block.inputs] *= u[: block.inputs] * sign > 0
        u[block.inputs :] = u[block.inputs :].clamp(min=0)
        sums = torch.zeros(block.groups, block.columns, dtype=torch.float64)
        sizes, terms = torch.zeros_like(sums), np.zeros(block.columns, dtype=np.int64)
        for groups in parts(block):
            v = block.second(self.seed, number, groups)
            some, used = slice(groups.start, groups.stop), mask[groups.start : groups.stop]
            for k in range(block.candidates):
                term = torch.where(used[:, k], u[some, k, None] * v[:, k].double(), 0.0)
                sums[some] += term
                sizes[some] += term.abs()
            terms += (used & (u[some, :, None] != 0)).flatten(0, 1).numpy().sum(0, dtype=np.int64)
        return sums, sizes, int(terms.reshape(-1, math.prod(block.kernel)).sum(1).max()) if terms.size else 0

    def alive(self, number: int) -> Tensor:
        """Say which copies of a block's outputs are read: bool ``[outputs * copies]``; all, where they are single."""
        block = self.blocks[number]
        if number + 1 == len(self.blocks) or self.blocks[number + 1].doubled:
            return torch.ones(block.outputs * block.copies, dtype=torch.bool)
        return read_copies(self.blocks[number + 1], self.mask(number + 1), block.outputs)

    @property
    def kept(self) -> int:
        """Count the random weights that the masks leave, and the biases; of first layers those of neurons read."""
        found = 0
        for block, mask in ((block, self.mask(number)) for number, block in enumerate(self.blocks)):
            own = mask if block.doubled else mask[block.inputs :]
            found += int(mask.count_nonzero()) + int(own.any(2).count_nonzero())
        return found

    @property
    def depth(self) -> int:
        """Count the random layers."""
        return sum(1 + block.doubled for block in self.blocks)

    @property
    def total(self) -> int:
        """Count the random weights, and the biases where a layer has any."""
        found = 0
        for number, block in enumerate(self.blocks):
            neurons, outputs = self.reads(number), block.outputs * block.copies + self.beside(number)
            if block.doubled:
                found += neurons * block.inputs + neurons * (block.constants > 0)
            found += neurons * outputs * math.prod(block.kernel) + outputs * (self.beside(number) > 0)
        return found

    def beside(self, number: int) -> int:
        """Count the neurons beside the copies of a block's outputs, which are constants for the block that follows."""
        if number + 1 == len(self.blocks) or self.blocks[number + 1].doubled:
            return 0
        return self.blocks[number + 1].constants * self.blocks[number + 1].candidates

    def positions(self, number: int) -> int:
        """How many inputs of a single layer come from each output before it: more than one after flattening."""
        return self.blocks[number].inputs // self.blocks[number - 1].outputs

    def reads(self, number: int) -> int:
        """Count what the last layer of a block reads."""
        block = self.blocks[number]
        if block.doubled:
            return block.groups * block.candidates
        return (block.inputs + self.positions(number) * block.constants) * block.candidates

    def _weights(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw a block once: of what is read the places in its input, what it is read by, constants, and the rest."""
        if number not in self._drawn:
            block, mask = self.blocks[number], self.mask(number)
            read = mask.any(2)
            if not bool(read.any()):
                # A layer of nothing else is no layer of torch; what this neuron is read by is 0.
                read[0, 0] = True
            group, which = read.nonzero(as_tuple=True)
            forth = block.first(self.seed, number)[group, which]
            rows = []
            for groups in parts(block):
                here = (group >= groups.start) & (group < groups.stop)
                v = block.second(self.seed, number, groups)
                own = group[here] - groups.start
                rows.append(torch.where(mask[group[here], which[here]], v[own, which[here]], 0.0))
            back = torch.cat(rows).view(len(group), -1, *block.kernel).transpose(0, 1).contiguous()
            # The neurons of the bias come last, and read nothing.
            many = int((group < block.inputs).sum())
            place = group if block.doubled else group * block.candidates + which
            self._drawn[number] = place[:many], forth[:many], forth[many:].clamp(min=0), back
        return self._drawn[number]


def _forget(network: nn.Module, _: object) -> None:
    """Draw and add up again after other masks were loaded."""
    assert isinstance(network, StrongNetwork)
    network._drawn.clear()
    network._sums.clear()


def read_copies(block: Block, mask: Tensor, outputs: int) -> Tensor:
    """Say which copies of so many outputs a single layer reads: bool ``[outputs * N]``."""
    return mask[: block.inputs].any(2).view(outputs, -1, block.candidates).any(1).flatten()


def parts(block: Block, at_once: int = 1 << 25) -> list[range]:
    """Split a block's groups so that what is drawn at once stays below a number of weights, if a group does."""
    step = max(1, at_once // max(1, block.candidates * block.columns))
    return [range(at, min(at + step, block.groups)) for at in range(0, block.groups, step)]


def _flat(x: Tensor, copies: int) -> Tensor:
    """Flatten, with the copies of an output last."""
    if copies == 1:
        return x.flatten(1)
    return x.reshape(len(x), x.shape[1] // copies, copies, -1).transpose(2, 3).flatten(1)
