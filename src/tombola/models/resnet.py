"""ResNet-20, which Frankle & Carbin (2019) call ResNet-18, and ResNet-50, both for small images."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from torch import Tensor, nn
from torch.nn.functional import relu

from tombola.models.glorot import glorot
from tombola.models.shapes import image_sides

_GROWS: Final = 4
"""Channels that a bottleneck gives for each that it computes with."""


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; He et al. (2016), figure 2 and section 4.2.

    Where the size changes, the shortcut is a 1x1 convolution with batch norm (their option B).
    """

    def __init__(self, entering: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, wide, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.shortcut = _shortcut(entering, wide, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, entering, height, width)`` to ``(batch, wide, height / stride, width / stride)``."""
        inner = relu(self.norm1(self.conv1(x)))
        return relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut; He et al. (2016), figure 5 on the right.

    The last convolution gives four times the channels of the others. The stride is the 3x3 convolution's, as has become
    usual, where table 1 puts it in the 1x1 before: there three quarters of the pixels would not be read. The weights
    are as many.
    """

    def __init__(self, entering: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, wide, kernel_size=1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.conv3 = nn.Conv2d(wide, _GROWS * wide, kernel_size=1, bias=False)
        self.norm3 = nn.BatchNorm2d(_GROWS * wide)
        self.shortcut = _shortcut(entering, _GROWS * wide, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, entering, height, width)`` to ``(batch, 4 * wide, height / stride, width / stride)``."""
        inner = relu(self.norm1(self.conv1(x)))
        inner = relu(self.norm2(self.conv2(inner)))
        return relu(self.norm3(self.conv3(inner)) + self.shortcut(x))


def resnet_20(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build 16, 3x[16, 16], 3x[32, 32], 3x[64, 64], average pooling and a linear layer, with batch norm.

    He et al. (2016), section 4.2; Frankle & Carbin (2019), figure 2 and appendix I, "Resnet-18". On CIFAR-10 it has
    267696 weights in 3x3 convolutions, 2560 in shortcuts, 640 in the output layer, and 272474 parameters in all. The
    paper prunes neither the shortcuts nor the output layer.

    Args:
        input_shape: (channels, height, width).
        classes: number of classes.

    Returns:
        A module from ``(batch, *input_shape)`` to logits ``(batch, classes)``, both float32. Parameters: ``conv``,
        ``norm``, ``stage1.0.conv1`` ... ``stage3.2.norm2``, ``stage2.0.shortcut.conv``, ``output``.

    Raises:
        InvalidValue: not an image, or one smaller than 4x4 pixels.
    """
    channels, _, _ = image_sides("resnet-20", input_shape, smallest=4)
    return _residual(channels, classes, 16, Block, [(3, 16, 16), (3, 32, 32), (3, 64, 64)])


def resnet_50(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build ResNet-50 for small images: bottlenecks 3, 4, 6 and 3 times, of 64, 128, 256 and 512 channels, times four.

    He et al. (2016), table 1, but for the beginning: that table's 7x7 convolution of stride 2 and max pooling would
    leave 8x8 of 32x32 pixels, and a 3x3 convolution of stride 1 is in their place. On CIFAR-10 it has 20678336 weights
    in the convolutions of the main path, 2768896 in shortcuts, 20480 in the output layer, and 23520842 parameters in
    all. As of ResNet-20, neither the shortcuts nor the output layer are pruned.

    Args:
        input_shape: (channels, height, width).
        classes: number of classes.

    Returns:
        A module from ``(batch, *input_shape)`` to logits ``(batch, classes)``, both float32. Parameters: ``conv``,
        ``norm``, ``stage1.0.conv1`` ... ``stage4.2.norm3``, ``stage1.0.shortcut.conv`` ..., ``output``.

    Raises:
        InvalidValue: not an image, or one smaller than 8x8 pixels.
    """
    channels, _, _ = image_sides("resnet-50", input_shape, smallest=8)
    stages = [(count, wide, _GROWS * wide) for count, wide in zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)]
    return _residual(channels, classes, 64, Bottleneck, stages)


def _residual(
    channels: int,
    classes: int,
    stem: int,
    block: Callable[[int, int, int], nn.Module],
    stages: Sequence[tuple[int, int, int]],
) -> nn.Module:
    """Build a convolution, stages of (how many blocks, their width, what they give), an average and a linear layer."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, stem, kernel_size=3, padding=1, bias=False), norm=nn.BatchNorm2d(stem), relu=nn.ReLU()
    )
    entering = stem
    for stage, (count, wide, leaving) in enumerate(stages, start=1):
        first = block(entering, wide, 1 if stage == 1 else 2)
        layers[f"stage{stage}"] = nn.Sequential(first, *(block(leaving, wide, 1) for _ in range(count - 1)))
        entering = leaving
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(entering, classes)
    return glorot(nn.Sequential(layers))


def _shortcut(entering: int, leaving: int, stride: int) -> nn.Module:
    if stride == 1 and entering == leaving:
        return nn.Identity()
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv=nn.Conv2d(entering, leaving, kernel_size=1, stride=stride, bias=False),
            norm=nn.BatchNorm2d(leaving),
        )
    )
