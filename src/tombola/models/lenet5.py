"""LeNet-5, the convolutional network of LeCun et al. (1998), with ReLU and max pooling."""

from collections import OrderedDict
from typing import Final

from torch import nn

from tombola.models.glorot import glorot
from tombola.models.shapes import image_sides

_LARGE: Final = 32
"""Pixels a side of the original's input, which its publishers padded 28x28 digits to."""

_MEDIUM: Final = 12
"""The least side that, padded by 2 and halved, leaves a 5x5 convolution something to halve: 12 // 2 - 4 = 2."""


def lenet_5(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build two convolutions of 6 and 16 channels, each followed by 2x2 max pooling, then 120-84-classes, with ReLU.

    After LeCun et al. (1998), section II.B and figure 2. Ours is what the name has come to mean: each channel of the
    second convolution reads all of the first (the original's table 1 leaves some out), the pooling has no weights, the
    units are ReLUs and the output layer is linear. The shorter side of the image decides the convolutions:

    - 32 pixels and more: 5x5, as in the original;
    - 12 to 31: 5x5, and the first one is padded by 2, which makes of a 28x28 digit the original's 32x32 input;
    - 4 to 11, such as the 8x8 digits: 3x3, both padded by 1.

    On 28x28 grey images with 10 classes it has 150 + 2400 weights in convolutions, 48000 + 10080 + 840 in linear
    layers, and 61706 parameters in all.

    Args:
        input_shape: (channels, height, width).
        classes: number of classes.

    Returns:
        A module from ``(batch, *input_shape)`` to logits ``(batch, classes)``, both float32. Parameters: ``conv1``,
        ``conv2``, ``fc1``, ``fc2`` and ``output``, each with ``.weight`` and ``.bias``.

    Raises:
        InvalidValue: not an image, or one smaller than 4x4 pixels.
    """
    channels, height, width = image_sides("lenet-5", input_shape, smallest=4)
    kernel, padding = _convolutions(min(height, width))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, wide in enumerate((6, 16), start=1):
        pad = padding[number - 1]
        layers[f"conv{number}"] = nn.Conv2d(channels, wide, kernel_size=kernel, padding=pad)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        channels, height, width = wide, *((side + 2 * pad - kernel + 1) // 2 for side in (height, width))
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(channels * height * width, 120)
    layers["fc1_relu"] = nn.ReLU()
    layers["fc2"] = nn.Linear(120, 84)
    layers["fc2_relu"] = nn.ReLU()
    layers["output"] = nn.Linear(84, classes)
    return glorot(nn.Sequential(layers))


def _convolutions(side: int) -> tuple[int, tuple[int, int]]:
    """Give the size of both kernels, and the padding of each."""
    if side >= _LARGE:
        return 5, (0, 0)
    return (5, (2, 0)) if side >= _MEDIUM else (3, (1, 1))
