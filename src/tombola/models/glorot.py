"""The initialisation of every network in Frankle & Carbin (2019), figure 2."""

from torch import nn


def glorot(module: nn.Module) -> nn.Module:
    r"""Draw the weights from the Gaussian Glorot distribution and set the biases to zero, in place.

    :math:`w \sim N(0, 2 / (n_{in} + n_{out}))` for every linear and convolutional layer; Glorot & Bengio (2010),
    equation 16, in its Gaussian form. Batch norm keeps scale 1 and shift 0.

    Returns:
        ``module`` itself.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.xavier_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module
