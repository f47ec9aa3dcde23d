"""LeNet-5: the sizes everyone knows, what is where, and which images it takes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import InvalidValue
from tombola.models import build, count_params, layer_multipliers


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name.removesuffix(".weight"): tuple(p.shape) for name, p in net.named_parameters() if p.dim() > 1}


def test_it_has_the_61706_parameters_of_lenet_5() -> None:
    net = build("lenet-5", (1, 28, 28), 10)
    assert shapes(net) == {
        "conv1": (6, 1, 5, 5),
        "conv2": (16, 6, 5, 5),
        "fc1": (120, 400),
        "fc2": (84, 120),
        "output": (10, 84),
    }
    assert count_params(net).total == 61706


def test_it_is_relu_and_max_pooling() -> None:
    net = build("lenet-5", (3, 28, 20), 7)
    value = dict(net.named_parameters())
    x = torch.randn(4, 3, 28, 20)

    def layer(name: str, entering: Tensor, padding: int = 0) -> Tensor:
        weight, bias = value[f"{name}.weight"], value[f"{name}.bias"]
        if weight.dim() == 4:
            made = functional.conv2d(entering, weight, bias, padding=padding)
            return functional.max_pool2d(made.clamp(min=0), 2)
        return entering @ weight.T + bias

    inner = layer("conv2", layer("conv1", x, padding=2)).flatten(1)
    inner = layer("fc2", layer("fc1", inner).clamp(min=0)).clamp(min=0)
    torch.testing.assert_close(net(x), layer("output", inner))


def test_a_digit_of_28_pixels_is_seen_as_the_originals_of_32() -> None:
    """LeCun et al. (1998), section II.B: the digits are centred in 32x32 pixels."""
    small, large = (build("lenet-5", (1, side, side), 10) for side in (28, 32))
    large.load_state_dict(small.state_dict())
    x = torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(small(x), large(functional.pad(x, (2, 2, 2, 2))))


@pytest.mark.parametrize(
    ("height", "width", "kernel", "features"),
    [(4, 4, 3, 16), (8, 8, 3, 64), (11, 40, 3, 320), (12, 12, 5, 16), (31, 28, 5, 400), (32, 32, 5, 400),
     (33, 40, 5, 16 * 5 * 7)],
)  # fmt: skip
def test_the_shorter_side_decides_the_convolutions(height: int, width: int, kernel: int, features: int) -> None:
    net = build("lenet-5", (1, height, width), 3)
    found = shapes(net)
    assert found["conv1"][2:] == found["conv2"][2:] == (kernel, kernel)
    assert found["fc1"] == (120, features)
    assert net(torch.zeros(2, 1, height, width)).shape == (2, 3)


@pytest.mark.parametrize(
    ("shape", "says"), [((1, 3, 8), "at least 4x4"), ((64,), "channels, height, width"), ((8, 8), "(1, height, width)")]
)
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        build("lenet-5", shape, 10)
    assert str(caught.value).startswith("lenet-5 ")
    assert says in str(caught.value)


def test_its_output_layer_is_pruned_at_half_the_rate() -> None:
    net = build("lenet-5", (1, 8, 8), 10)
    percent = {name.removesuffix(".weight"): 20 * rate for name, rate in layer_multipliers("lenet-5", net).items()}
    assert percent == {"conv1": 20, "conv2": 20, "fc1": 20, "fc2": 20, "output": 10}
