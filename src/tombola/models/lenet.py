"""LeNet-300-100, the fully connected network of LeCun et al. (1998)."""

import math
from collections import OrderedDict

from torch import nn

from tombola.models.glorot import glorot


def lenet_300_100(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build input-300-100-classes with ReLU; Frankle & Carbin (2019), figure 2, "Lenet".

    On 28x28 images with 10 classes it has 235200 + 30000 + 1000 = 266200 weights and 410 biases.

    Args:
        input_shape: shape of one example, any; it is flattened.
        classes: number of classes.

    Returns:
        A module from ``(batch, *input_shape)`` to logits ``(batch, classes)``, both float32. Parameters: ``fc1``,
        ``fc2`` and ``output``, each with ``.weight`` and ``.bias``.
    """
    return glorot(
        nn.Sequential(
            OrderedDict[str, nn.Module](
                flatten=nn.Flatten(),
                fc1=nn.Linear(math.prod(input_shape), 300),
                relu1=nn.ReLU(),
                fc2=nn.Linear(300, 100),
                relu2=nn.ReLU(),
                output=nn.Linear(100, classes),
            )
        )
    )
