"""Conv-2, Conv-4 and Conv-6, the small relatives of VGG in Frankle & Carbin (2019), figure 2."""

from collections import OrderedDict

from torch import nn

from tombola.models.glorot import glorot
from tombola.models.shapes import image_sides


def conv_n(depth: int, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build Conv-``depth``: pairs of 3x3 convolutions, each pair followed by 2x2 max pooling, then 256-256-classes.

    The pairs have 64, 128 and 256 channels. On CIFAR-10 the weights, convolutions + fully connected, number
    38592 + 4262400 (Conv-2), 259776 + 2165248 (Conv-4) and 1144512 + 1116672 (Conv-6); figure 2 says 1.7M for Conv-6,
    which the architecture it states does not give.

    Args:
        depth: 2, 4 or 6 convolutions.
        input_shape: (channels, height, width).
        classes: number of classes.

    Returns:
        A module from ``(batch, *input_shape)`` to logits ``(batch, classes)``, both float32. Parameters: ``conv1`` ...,
        ``fc1``, ``fc2`` and ``output``, each with ``.weight`` and ``.bias``.

    Raises:
        InvalidValue: not an image, or one smaller than 2 ** (depth / 2) pixels.
    """
    pairs = depth // 2
    channels, height, width = image_sides(f"conv-{depth}", input_shape, smallest=2**pairs)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for pair in range(pairs):
        wide = 64 * 2**pair
        for number, entering in ((2 * pair + 1, channels), (2 * pair + 2, wide)):
            layers[f"conv{number}"] = nn.Conv2d(entering, wide, kernel_size=3, padding=1)
            layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{pair + 1}"] = nn.MaxPool2d(2)
        channels, height, width = wide, height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(channels * height * width, 256)
    layers["fc1_relu"] = nn.ReLU()
    layers["fc2"] = nn.Linear(256, 256)
    layers["fc2_relu"] = nn.ReLU()
    layers["output"] = nn.Linear(256, classes)
    return glorot(nn.Sequential(layers))
