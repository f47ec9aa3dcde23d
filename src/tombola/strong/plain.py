"""A masked random network as plain layers, each with every random weight, those that the mask deletes as zeros."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tombola.strong.network import Block, StrongNetwork, parts
from tombola.strong.target import Reshape


def materialised(network: StrongNetwork) -> nn.Sequential:
    """Give the same function as layers of torch, which know nothing of seeds and masks.

    Memory is that of the whole random network, 4 bytes a weight.
    """
    return nn.Sequential(*(part for number in range(len(network.blocks)) for part in _block(network, number)))


def _block(network: StrongNetwork, number: int) -> Iterator[nn.Module]:
    block, mask = network.blocks[number], network.mask(number)
    yield from (_reshape(one) for one in block.before)
    if block.doubled:
        yield from (_first(network, number, mask.any(2)), nn.ReLU())
    beside, many = network.beside(number), block.outputs * block.copies
    second = _zeros(block, network.reads(number), many + beside, bias=beside > 0)
    places = _places(network, number)
    with torch.no_grad():
        for groups in parts(block):
            some = slice(groups.start, groups.stop)
            kept = torch.where(mask[some], block.second(network.seed, number, groups), 0.0)
            rows = kept.view(-1, many, *block.kernel)[:, :, *(() if block.convolution else (0, 0))]
            second.weight[:many, places[some].flatten()] = rows.transpose(0, 1)
        if beside and second.bias is not None:
            after = network.blocks[number + 1]
            read = network.mask(number + 1)[after.inputs :].any(2)
            constants = torch.where(read, after.first(network.seed, number + 1)[after.inputs :], 0.0)
            second.bias[many:] = constants.flatten()
    yield second
    if block.relu:
        yield nn.ReLU()


def _first(network: StrongNetwork, number: int, read: Tensor) -> nn.Linear | nn.Conv2d:
    """Give the first layer of a doubled block: each neuron that is read keeps the weight of one input, or its bias."""
    block = network.blocks[number]
    found = _zeros(block, block.inputs, block.groups * block.candidates, bias=block.constants > 0, first=True)
    drawn = torch.where(read, block.first(network.seed, number), 0.0)
    neurons, which = torch.arange(block.inputs * block.candidates), torch.arange(block.inputs)
    with torch.no_grad():
        weight = found.weight.view(len(found.weight), -1)
        weight[neurons, which.repeat_interleave(block.candidates)] = drawn[: block.inputs].flatten()
        if found.bias is not None:
            found.bias[len(neurons) :] = drawn[block.inputs :].flatten()
    return found


def _places(network: StrongNetwork, number: int) -> Tensor:
    """Say where in its input a layer reads the neurons of its groups: int64 ``[groups, N]``.

    Flattening puts the positions of an output last, and the groups have its copies last. Of a constant, which is the
    same at every position, the first is read.
    """
    block = network.blocks[number]
    places = torch.arange(block.groups * block.candidates).view(block.groups, block.candidates)
    positions = 1 if block.doubled else network.positions(number)
    if positions == 1:
        return places
    group, copy = torch.arange(block.inputs)[:, None], torch.arange(block.candidates)
    own = (group // positions * block.candidates + copy) * positions + group % positions
    apart = block.inputs * block.candidates
    return torch.cat([own, apart + (places[block.inputs :] - apart) * positions])


def _zeros(block: Block, inputs: int, outputs: int, *, bias: bool, first: bool = False) -> nn.Linear | nn.Conv2d:
    found: nn.Linear | nn.Conv2d
    if not block.convolution:
        found = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    elif first:
        found = nn.utils.skip_init(nn.Conv2d, inputs, outputs, 1, bias=bias)
    else:
        found = nn.utils.skip_init(
            nn.Conv2d, inputs, outputs, block.kernel, block.stride, block.padding, block.dilation, bias=bias
        )
    for one in found.parameters():
        nn.init.zeros_(one)
    return found


def _reshape(reshape: Reshape) -> nn.Module:
    match reshape.kind:
        case "flatten":
            return nn.Flatten()
        case "max":
            return nn.MaxPool2d(reshape.size, reshape.stride, reshape.padding)
        case _:
            return nn.AvgPool2d(reshape.size, reshape.stride, reshape.padding)
