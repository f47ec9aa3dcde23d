"""The networks known by name, each with its paper and its pruning rates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import partial
from types import MappingProxyType
from typing import Final

from torch import nn

from tombola.errors import UnknownName
from tombola.models.conv import conv_n
from tombola.models.kinds import kinds
from tombola.models.lenet import lenet_300_100
from tombola.models.lenet5 import lenet_5
from tombola.models.resnet import resnet_20, resnet_50
from tombola.models.shapes import check_shape
from tombola.models.vgg import vgg

_HALF: Final = Fraction(1, 2)


@dataclass(frozen=True)
class ModelEntry:
    """A network known by name.

    Attributes:
        name: what it is called on the command line.
        what: one line about it.
        paper: where it is described.
        factory: ``(input_shape, classes) -> module``; call :func:`build`, which checks its arguments first.
        rates: pairs of a parameter-name pattern and the layer's pruning rate as a multiple of ``base_rate``; the first
            pattern that matches counts, no match means 1, and 0 means that the paper never prunes the layer. They are
            ours, after the nearest network's, where ``paper`` says so.
        base_rate: fraction of the surviving weights that the paper prunes in a round.
        global_ranking: the paper ranks the weights of all layers together.
    """

    name: str
    what: str
    paper: str
    factory: Callable[[tuple[int, ...], int], nn.Module]
    rates: tuple[tuple[str, Fraction], ...]
    base_rate: Fraction = Fraction(1, 5)
    global_ranking: bool = False


def _entries() -> tuple[ModelEntry, ...]:
    paper = "Frankle & Carbin (2019), figure 2"
    convs = {2: _HALF, 4: _HALF, 6: Fraction(3, 4)}
    vggs = {11: "A", 16: "D", 19: "E"}
    never = Fraction(0)
    spared = (("*.shortcut.*", never), ("output.weight", never))
    return (
        ModelEntry(
            "lenet-300-100", "fully connected, 300 and 100 hidden units", f'{paper}, "Lenet"',
            lenet_300_100, (("output.weight", _HALF),),
        ),
        ModelEntry(
            "lenet-5", "2 convolutions and 120-84 hidden units",
            "LeCun et al. (1998), figure 2, with ReLU and max pooling; the pruning rates are ours",
            lenet_5, (("output.weight", _HALF),),
        ),
        *(
            ModelEntry(
                f"conv-{depth}", f"{depth} convolutions and 256-256 hidden units", f'{paper}, "Conv-{depth}"',
                partial(conv_n, depth), (("conv*.weight", rate), ("output.weight", _HALF)),
            )
            for depth, rate in convs.items()
        ),
        ModelEntry(
            "resnet-20", "residual, 20 layers, batch norm", f'He et al. (2016), section 4.2; {paper}, "Resnet-18"',
            resnet_20, spared, global_ranking=True,
        ),
        ModelEntry(
            "resnet-50", "residual, 50 layers, bottlenecks, batch norm",
            "He et al. (2016), table 1, with a first layer for small images; the pruning rates are ResNet-20's",
            resnet_50, spared, global_ranking=True,
        ),
        *(
            ModelEntry(
                f"vgg-{depth}", f"{depth - 3} convolutions, batch norm, average pooling",
                f"Simonyan & Zisserman (2015), table 1, {letter}" + (f'; {paper}, "VGG-19"' if depth == 19 else ""),
                partial(vgg, depth), (("output.weight", never),), global_ranking=True,
            )
            for depth, letter in vggs.items()
        ),
    )  # fmt: skip


_REGISTRY: Final[Mapping[str, ModelEntry]] = MappingProxyType({entry.name: entry for entry in _entries()})


def registry() -> Mapping[str, ModelEntry]:
    """Give every network known by name, read-only.

    Example:
        >>> list(registry())[:5]
        ['lenet-300-100', 'lenet-5', 'conv-2', 'conv-4', 'conv-6']
        >>> list(registry())[5:]
        ['resnet-20', 'resnet-50', 'vgg-11', 'vgg-16', 'vgg-19']
    """
    return _REGISTRY


def build(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build a network by name, its weights drawn from torch's global generator.

    For weights that a study can draw again, pass it to :func:`tombola.models.initial`.

    Args:
        name: one of ``registry()``.
        input_shape: shape of one example, without the batch.
        classes: number of classes.

    Returns:
        A module from ``(batch, *input_shape)`` to logits ``(batch, classes)``, float32, on the CPU, in training mode.

    Raises:
        UnknownName: no network is called so.
        InvalidValue: the shape does not fit the network.
    """
    if name not in _REGISTRY:
        raise UnknownName.among("model", name, _REGISTRY, "Your own is 'package.module:factory'.")
    check_shape(name, input_shape, classes)
    return _REGISTRY[name].factory(input_shape, classes)


def layer_multipliers(name: str, module: nn.Module) -> dict[str, Fraction]:
    """Give each weight tensor its pruning rate as an exact multiple of the base rate.

    Frankle & Carbin (2019), figure 2: the output layer is pruned at half the rate, and the convolutions of Conv-2,
    Conv-4 and Conv-6 at 10, 10 and 15 % where the base rate is 20 %. The paper has no LeNet-5 and no ResNet-50: the
    one is pruned as its LeNet, the other as its Resnet-18.

    Args:
        name: the name that ``module`` was built under. For a name outside the registry, such as a dotted path, every
            weight has 1 and the weight of the last linear layer 1/2.
        module: the network.

    Returns:
        parameter name -> multiplier, for every parameter that is neither a bias nor a norm's; 0 where the paper never
        prunes.

    Example:
        >>> layer_multipliers("lenet-300-100", build("lenet-300-100", (4,), 2))
        {'fc1.weight': Fraction(1, 1), 'fc2.weight': Fraction(1, 1), 'output.weight': Fraction(1, 2)}
    """
    kind = {key: value for key, value in kinds(module).items() if value not in ("bias", "norm")}
    if name not in _REGISTRY:
        last = next((key for key in reversed(kind) if kind[key] == "linear"), None)
        return {key: _HALF if key == last else Fraction(1) for key in kind}
    rates = _REGISTRY[name].rates
    return {key: next((rate for pattern, rate in rates if fnmatchcase(key, pattern)), Fraction(1)) for key in kind}
