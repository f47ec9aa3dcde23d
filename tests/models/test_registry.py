"""The named networks: exact parameter counts, shapes, initialisation and pruning rates."""

import re
from fractions import Fraction

import pytest
import torch
from torch import nn

from tombola.errors import InvalidValue, UnknownName
from tombola.models import build, count_params, kinds, layer_multipliers, macs, registry

CIFAR, MNIST = (3, 32, 32), (1, 28, 28)


def weights(module: nn.Module) -> dict[str, int]:
    """Parameter name -> size, of the weights of linear and convolutional layers."""
    kind = kinds(module)
    return {name: p.numel() for name, p in module.named_parameters() if kind[name] in ("linear", "conv")}


def test_lenet_has_the_papers_weights() -> None:
    net = build("lenet-300-100", MNIST, 10)
    assert weights(net) == {"fc1.weight": 235200, "fc2.weight": 30000, "output.weight": 1000}
    assert count_params(net).total == 266610


@pytest.mark.parametrize(
    ("name", "convs", "linears"),
    [("conv-2", 38592, 4262400), ("conv-4", 259776, 2165248), ("conv-6", 1144512, 1116672)],
)
def test_conv_nets_have_the_papers_weights(name: str, convs: int, linears: int) -> None:
    sizes = weights(build(name, CIFAR, 10))
    assert sum(n for key, n in sizes.items() if key.startswith("conv")) == convs
    assert sum(n for key, n in sizes.items() if not key.startswith("conv")) == linears


def test_resnet_20_has_the_papers_weights() -> None:
    net = build("resnet-20", CIFAR, 10)
    sizes = weights(net)
    shortcuts = sum(n for key, n in sizes.items() if "shortcut" in key)
    convs = sum(n for key, n in sizes.items() if "conv" in key) - shortcuts
    assert (convs, shortcuts, sizes["output.weight"]) == (267696, 2560, 640)
    assert count_params(net).total == 272474


def test_resnet_50_has_the_papers_weights_behind_a_small_stem() -> None:
    with torch.device("meta"):
        net = build("resnet-50", CIFAR, 10)
    sizes = weights(net)
    # He et al. (2016), table 1: (blocks, width, channels that enter); a bottleneck is 1x1, 3x3, 1x1 and gives 4 width.
    table = [(3, 64, 64), (4, 128, 256), (6, 256, 512), (3, 512, 1024)]
    first = sum((entering + 9 * wide + 4 * wide) * wide for _, wide, entering in table)
    further = sum((blocks - 1) * (4 + 9 + 4) * wide**2 for blocks, wide, _ in table)
    shortcuts = sum(n for key, n in sizes.items() if "shortcut" in key)
    main = sum(n for key, n in sizes.items() if "conv" in key) - shortcuts
    assert main == 3 * 64 * 9 + first + further == 20678336
    assert shortcuts == sum(entering * 4 * wide for _, wide, entering in table) == 2768896
    assert sizes["output.weight"] == 20480
    assert len(sizes) == 1 + 3 * 16 + 4 + 1
    assert sum(p.numel() for p in net.parameters()) == 23520842


def test_resnet_50_halves_the_image_three_times_and_reads_all_of_it() -> None:
    with torch.device("meta"):
        net = build("resnet-50", CIFAR, 10)
    sides = []
    for stage in (net.stage1, net.stage2, net.stage3, net.stage4):
        stage.register_forward_hook(lambda _, __, output: sides.append(tuple(output.shape[1:])))
    net(torch.zeros(2, *CIFAR, device="meta"))
    assert sides == [(256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)]
    strides = {name: part.stride[0] for name, part in net.named_modules() if isinstance(part, nn.Conv2d)}
    halving = {f"stage{stage}.0.{part}" for stage in (2, 3, 4) for part in ("conv2", "shortcut.conv")}
    assert {name for name, stride in strides.items() if stride != 1} == halving


@pytest.mark.parametrize(("name", "convs"), [("vgg-11", 9217728), ("vgg-16", 14710464), ("vgg-19", 20018880)])
def test_vgg_has_its_weights(name: str, convs: int) -> None:
    with torch.device("meta"):
        sizes = weights(build(name, CIFAR, 10))
    assert sum(n for key, n in sizes.items() if key.startswith("conv")) == convs
    assert sizes["output.weight"] == 5120
    assert len(sizes) == int(name.removeprefix("vgg-")) - 2


SMALLEST = {
    "lenet-300-100": (5,), "lenet-5": (2, 4, 5), "conv-2": (1, 2, 3), "conv-4": (2, 5, 4), "conv-6": (1, 8, 8),
    "resnet-20": (3, 4, 5), "resnet-50": (1, 8, 9), "vgg-11": (1, 16, 17), "vgg-16": (1, 16, 16), "vgg-19": (1, 16, 16),
}  # fmt: skip


@pytest.mark.parametrize("name", registry())
def test_every_network_maps_a_batch_to_logits(name: str) -> None:
    shape = SMALLEST[name]
    net = build(name, shape, 7).eval()
    with torch.no_grad():
        logits = net(torch.randn(3, *shape))
    assert logits.shape == (3, 7)
    assert logits.dtype == torch.float32
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("name", registry())
def test_registry_entries_say_what_they_are(name: str) -> None:
    entry = registry()[name]
    assert entry.name == name
    assert re.search(r"[A-Z]\w+ (et al\.|& [A-Z]\w+) \((19|20)\d\d\), (section|figure|table)", entry.paper)
    assert "\n" not in entry.what


@pytest.mark.parametrize("name", ["lenet-300-100", "conv-4", "resnet-20"])
def test_weights_have_glorots_variance_and_biases_are_zero(name: str) -> None:
    torch.manual_seed(0)
    net = build(name, (3, 16, 16), 10)
    kind = kinds(net)
    for key, value in net.named_parameters():
        if kind[key] == "bias":
            assert not bool(value.any())
        elif kind[key] in ("linear", "conv"):
            field = value[0, 0].numel() if value.dim() > 2 else 1
            variance = 2 / ((value.shape[0] + value.shape[1]) * field)
            # A sample variance of n normal values has relative standard deviation sqrt(2 / n).
            assert abs(float(value.detach().var()) / variance - 1) < 5 * (2 / value.numel()) ** 0.5
            assert abs(float(value.detach().mean())) < 5 * (variance / value.numel()) ** 0.5


@pytest.mark.parametrize(
    ("name", "shape", "hint"),
    [
        ("conv-2", (784,), "channels, height, width"),
        ("conv-2", (28, 28), "(1, height, width)"),
        ("conv-6", (3, 7, 32), "at least 8x8"),
        ("vgg-19", (3, 8, 8), "at least 16x16"),
        ("resnet-20", (3, 3, 3), "at least 4x4"),
        ("resnet-50", (3, 8, 7), "at least 8x8"),
        ("lenet-300-100", (), "without the batch"),
        ("lenet-300-100", (0,), "at least 1"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        build(name, shape, 10)
    assert hint in str(caught.value)
    assert str(shape) in str(caught.value) or "got" in str(caught.value)


def test_one_class_is_refused() -> None:
    with pytest.raises(InvalidValue, match="1 classes"):
        build("conv-2", CIFAR, 1)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="'lenet-300-100'"):
        build("lenet-300", MNIST, 10)


PAPER_RATES = {
    "lenet-300-100": {"fc1": 20, "fc2": 20, "output": 10},
    "conv-2": {"conv1": 10, "conv2": 10, "fc1": 20, "fc2": 20, "output": 10},
    "conv-4": {**{f"conv{i}": 10 for i in range(1, 5)}, "fc1": 20, "fc2": 20, "output": 10},
    "conv-6": {**{f"conv{i}": 15 for i in range(1, 7)}, "fc1": 20, "fc2": 20, "output": 10},
}


@pytest.mark.parametrize("name", PAPER_RATES)
def test_multipliers_give_the_papers_rates(name: str) -> None:
    entry = registry()[name]
    found = layer_multipliers(name, build(name, (1, 8, 8), 10))
    percent = {key.removesuffix(".weight"): 100 * entry.base_rate * value for key, value in found.items()}
    assert percent == PAPER_RATES[name]
    assert not entry.global_ranking


@pytest.mark.parametrize("name", ["resnet-20", "resnet-50", "vgg-11"])
def test_deep_nets_leave_shortcuts_and_output_alone(name: str) -> None:
    net = build(name, (3, 16, 16), 10)
    found = layer_multipliers(name, net)
    assert found.keys() == weights(net).keys()
    never = {key for key, value in found.items() if value == 0}
    assert never == {key for key in found if "shortcut" in key or key == "output.weight"}
    assert set(found.values()) == {Fraction(0), Fraction(1)}
    assert registry()[name].global_ranking


def test_other_networks_prune_their_last_linear_layer_at_half_the_rate() -> None:
    net = nn.Sequential(
        nn.Conv1d(1, 2, 3), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2), nn.MultiheadAttention(2, 1)
    )
    assert layer_multipliers("my.module:net", net) == {
        "0.weight": 1, "1.weight": 1, "3.weight": Fraction(1, 2), "4.in_proj_weight": 1, "4.out_proj.weight": 1,
    }  # fmt: skip
    assert layer_multipliers("x", nn.Conv1d(1, 2, 3)) == {"weight": 1}


def test_multiply_adds_of_the_named_networks() -> None:
    counted, missing = macs(build("lenet-300-100", MNIST, 10), MNIST)
    assert (sum(counted.values()), missing) == (266200, ())
    counted, missing = macs(build("conv-2", CIFAR, 10), CIFAR)
    assert missing == ()
    assert counted == {
        "conv1.weight": 3 * 64 * 9 * 1024,
        "conv2.weight": 64 * 64 * 9 * 1024,
        "fc1.weight": 16 * 16 * 64 * 256,
        "fc2.weight": 256 * 256,
        "output.weight": 2560,
    }
    counted, _ = macs(build("resnet-20", CIFAR, 10), CIFAR)
    assert 40_000_000 < sum(counted.values()) < 42_000_000
    assert counted["stage2.0.shortcut.conv.weight"] == 16 * 32 * 16 * 16
