"""ResNet-20 for small images, which Frankle & Carbin (2019) call ResNet-18."""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.functional import relu

from tombola.models.glorot import glorot
from tombola.models.shapes import image_sides


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
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or entering != wide:
            self.shortcut = nn.Sequential(
                OrderedDict[str, nn.Module](
                    conv=nn.Conv2d(entering, wide, kernel_size=1, stride=stride, bias=False),
                    norm=nn.BatchNorm2d(wide),
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, entering, height, width)`` to ``(batch, wide, height / stride, width / stride)``."""
        inner = relu(self.norm1(self.conv1(x)))
        return relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


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
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, 16, kernel_size=3, padding=1, bias=False), norm=nn.BatchNorm2d(16), relu=nn.ReLU()
    )
    entering = 16
    for stage, wide in enumerate((16, 32, 64), start=1):
        first = Block(entering, wide, stride=1 if stage == 1 else 2)
        layers[f"stage{stage}"] = nn.Sequential(first, Block(wide, wide, stride=1), Block(wide, wide, stride=1))
        entering = wide
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(entering, classes)
    return glorot(nn.Sequential(layers))
