"""VGG-11, VGG-16 and VGG-19 for small images: convolutions with batch norm, average pooling, one linear layer."""

from collections import OrderedDict
from typing import Final

from torch import nn

from tombola.models.glorot import glorot
from tombola.models.shapes import image_sides

STAGES: Final = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions before each halving, Simonyan & Zisserman (2015), table 1, configurations A, D and E."""


def vgg(depth: int, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build VGG-``depth`` with batch norm; Frankle & Carbin (2019), figure 2 and appendix H.

    The paper's VGG-19 has no hidden fully connected layers: the last stage is averaged and meets the output layer, so
    its 20.0M convolutional weights are all but 5120. Convolutions carry no bias, which batch norm would undo.

    Args:
        depth: 11, 16 or 19.
        input_shape: (channels, height, width).
        classes: number of classes.

    Returns:
        A module from ``(batch, *input_shape)`` to logits ``(batch, classes)``, both float32. Parameters:
        ``conv1.weight``, ``norm1.weight``, ``norm1.bias`` ..., ``output.weight``, ``output.bias``.

    Raises:
        InvalidValue: not an image, or one smaller than 16x16 pixels.
    """
    channels, _, _ = image_sides(f"vgg-{depth}", input_shape, smallest=16)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    number = 0
    for stage, (convolutions, wide) in enumerate(zip(STAGES[depth], (64, 128, 256, 512, 512), strict=True)):
        if stage:
            layers[f"pool{stage}"] = nn.MaxPool2d(2)
        for _ in range(convolutions):
            number += 1
            layers[f"conv{number}"] = nn.Conv2d(channels, wide, kernel_size=3, padding=1, bias=False)
            layers[f"norm{number}"] = nn.BatchNorm2d(wide)
            layers[f"relu{number}"] = nn.ReLU()
            channels = wide
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(channels, classes)
    return glorot(nn.Sequential(layers))
