"""Construction: a masked random network that is a trained one, to the error that was asked for, on every path."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tombola import models
from tombola.data import load as load_data
from tombola.errors import CorruptTicket, InvalidValue, ShapeMismatch, TicketError, Unsolved
from tombola.files import write_all
from tombola.strong import file
from tombola.strong.certificate import Certifier, bisect, norm_above
from tombola.strong.construct import Construction, construct
from tombola.strong.law import draw
from tombola.strong.network import Block, StrongNetwork
from tombola.strong.plain import materialised
from tombola.strong.target import Reshape, Target, read
from tombola.strong.verify import classes, measure, verify, worst_error


def mlp(bias: bool = True) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 20, bias=bias), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 9, bias=bias), nn.ReLU(),
        nn.Linear(9, 4, bias=bias),
    )  # fmt: skip


def convnet() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=1),
        nn.ReLU(),
        nn.AvgPool2d((1, 2)),
        nn.Flatten(),
        nn.Linear(6, 5, bias=False),
    )


def biased() -> nn.Module:
    """Biases everywhere, behind flattening and pooling too."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, bias=False), nn.ReLU(), nn.MaxPool2d(2, stride=1, padding=1), nn.Flatten(),
        nn.Linear(36, 7), nn.ReLU(), nn.Linear(7, 3),
    )  # fmt: skip


def inputs(build: object, many: int = 40, *, signed: bool = False) -> Tensor:
    rng = torch.Generator().manual_seed(9)
    shape = (12,) if build is mlp else (2, 8, 6)
    x = torch.rand(many, *shape, generator=rng, dtype=torch.float64)
    return 2 * x - 1 if signed else x


def made(build: object = mlp, **how: object) -> Construction:
    return construct(read(build()), **{"error": 1e-3, **how})  # type: ignore[operator,arg-type]


NETS = pytest.mark.parametrize("build", [mlp, convnet, biased])
DEPTHS = pytest.mark.parametrize("doubled", [True, False])
SIGNS = pytest.mark.parametrize("signed", [False, True])


@NETS
@SIGNS
def test_the_masked_random_network_is_the_network_of_its_effective_weights(build: object, signed: bool) -> None:
    found = made(build, signed=signed)
    network, target, x = found.network, found.target, inputs(build, signed=signed)
    own, scale = [], 1.0
    for number, layer in enumerate(target.layers):
        block, factor = network.blocks[number], network.factors[number]
        scale *= factor
        sums = network.effective(number)[0]
        if signed and number == 0:
            # Positive and negative inputs have weights of their own, as near to each other as to the target's.
            assert (
                sums[: block.inputs] - network.effective(number, -1)[0][: block.inputs]
            ).abs().max() <= 2e-3 * factor
        weight = (sums[: block.inputs] / factor).view(block.inputs, block.outputs, *layer.weight.shape[2:])
        taps = torch.arange(block.outputs) * math.prod(block.kernel) + block.tap
        bias = sums[-1, taps] / scale if block.constants else None
        own.append(replace(layer, weight=weight.transpose(0, 1), bias=bias))
    with torch.no_grad():
        logits = network(x) / network.scale
        if not signed:
            assert torch.allclose(logits, Target(tuple(own))(x), atol=1e-12)
        assert torch.allclose(logits, target(x), atol=0.05)
        assert torch.allclose(logits, build().double().eval()(x), atol=0.05)  # type: ignore[operator]


@NETS
def test_reading_a_network_changes_nothing(build: object) -> None:
    module = build().double().eval()  # type: ignore[operator]
    with torch.no_grad():
        assert torch.allclose(read(module)(inputs(build)), module(inputs(build)), atol=1e-14)


@NETS
@SIGNS
@DEPTHS
def test_plain_layers_with_every_random_weight_give_the_same(build: object, signed: bool, doubled: bool) -> None:
    network, x = made(build, signed=signed, doubled=doubled).network, inputs(build, signed=signed)
    plain = materialised(network)
    with torch.no_grad():
        assert torch.allclose(plain.double()(x), network(x), atol=1e-12)
        assert torch.allclose(materialised(network)(x.float()), network(x.float()), atol=1e-4)
    weights = [p for p in plain.parameters() if p.dim() > 1]
    assert sum(int((p != 0).sum()) for p in plain.parameters()) == network.kept
    assert sum(p.numel() for p in plain.parameters()) == network.total
    assert sum(isinstance(part, nn.Linear | nn.Conv2d) for part in plain) == network.depth == (6 if doubled else 4)
    assert all(float(p.detach().abs().max()) <= 1 for p in weights), "they are of U[-1, 1), and none was scaled"


def test_each_weight_that_is_kept_is_the_one_that_was_drawn() -> None:
    network = made().network
    mask = network.mask(0)
    second = torch.stack([draw(0, 0, "v", group, 72 * 20).view(72, 20) for group in range(13)])
    plain = materialised(network)
    back = plain[3].weight.detach().T.view(13, 72, 20)
    assert torch.equal(back, torch.where(mask, second, 0.0))
    assert not list(network.parameters()), "nothing is there to be trained"
    assert {name for name, _ in network.named_buffers()} == {"mask_0", "mask_1", "mask_2"}
    assert network.total == 72 * sum((i + 1) * (i + 1 + o) for i, o in ((12, 20), (20, 9), (9, 4)))


@NETS
@DEPTHS
@pytest.mark.parametrize("error", [1e-2, 1e-3, 1e-5])
def test_no_weight_is_further_than_asked_in_the_targets_own_units(build: object, doubled: bool, error: float) -> None:
    found = made(build, error=error, doubled=doubled)
    assert found.unresolved == 0
    assert found.max_error <= error
    assert worst_error(found.network, found.target) == pytest.approx(found.max_error, rel=1e-6, abs=1e-12)
    if doubled:
        assert found.sums == found.target.weights


def test_large_weights_are_scaled_by_a_power_of_two_and_keep_their_units() -> None:
    module = mlp()
    with torch.no_grad():
        module[1].weight.mul_(37.0)  # type: ignore[operator,union-attr]
        module[4].bias.add_(5.0)  # type: ignore[operator,union-attr]
    found = construct(read(module), error=1e-3)
    assert all(math.log2(factor).is_integer() for factor in found.network.factors)
    assert found.max_error <= 1e-3
    x = inputs(mlp)
    with torch.no_grad():
        assert torch.allclose(found.network(x) / found.network.scale, found.target(x), atol=0.2)


def test_a_pruned_ticket_costs_its_survivors_alone() -> None:
    module = mlp()
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in module:
            if isinstance(part, nn.Linear):
                part.weight.mul_(torch.rand(part.weight.shape, generator=rng) < 0.1)
    whole, pruned = made(), construct(read(module), error=1e-3)
    left = sum(int((p != 0).sum()) for p in module.parameters())
    assert pruned.solved <= left
    assert pruned.network.kept < 0.3 * whole.network.kept
    gone = read(module).layers[0].weight == 0
    assert not pruned.network.mask(0).any(1)[:12].T[gone].any(), "a zero keeps nothing"


# One layer more than the target has


def copies(block: Block, weight: Tensor) -> Tensor:
    """Give a layer's weight as the masked random layer has it, once for each copy, without the constants."""
    return weight[: block.outputs * block.copies].view(block.outputs, block.copies, *weight.shape[1:])


def test_one_layer_more_than_the_target_has_copies_of_every_hidden_neuron() -> None:
    """Burkholz (2022): each copy is the target's neuron, by random weights of its own."""
    network, target = (found := made(doubled=False)).network, found.target
    x = inputs(mlp)
    plain = materialised(network).double()
    with torch.no_grad():
        hidden = [*target.activations(x)[1:]]
        at = x
        assert [type(part) for part in plain] == [
            nn.Flatten,
            nn.Linear,
            nn.ReLU,
            nn.Linear,
            nn.ReLU,
            nn.Linear,
            nn.ReLU,
            nn.Linear,
        ]
        seen = [at := part(at) for part in plain]
    for number, position, wanted in ((0, 4, hidden[0]), (1, 6, hidden[1])):
        block = network.blocks[number]
        alive = network.alive(number).view(block.outputs, block.copies)
        scale = math.prod(network.factors[: number + 1])
        own = seen[position][:, : block.outputs * block.copies].view(len(x), block.outputs, block.copies) / scale
        assert block.copies == 36
        assert bool(((own - wanted[:, :, None]).abs() < 0.03)[:, alive].all())
        assert bool(alive.any(1).all()), "every neuron of this target is read"
        own = copies(block, plain[position - 1].weight)
        assert all(
            len(set(map(tuple, one[there].tolist()))) == int(there.sum()) for one, there in zip(own, alive, strict=True)
        )


def test_a_copy_that_nothing_reads_is_not_made() -> None:
    module = mlp()
    with torch.no_grad():
        module[4].weight[:, :7] = 0  # type: ignore[operator,union-attr,index]
    found = construct(read(module), error=1e-3, doubled=False)
    alive = found.network.alive(0).view(20, 36)
    assert not alive[:7].any()
    assert alive[7:].any()
    assert not found.network.mask(0).view(13, 72, 20, 36)[:, :, :7].any()
    assert found.sums < made(doubled=False).sums
    with torch.no_grad():
        assert torch.allclose(found.network(inputs(mlp)) / found.network.scale, found.target(inputs(mlp)), atol=0.05)


@NETS
@DEPTHS
def test_any_mask_means_the_same_as_plain_layers(build: object, doubled: bool) -> None:
    """Masks that no solver made, which read neurons that pass nothing on too."""
    blocks = (network := made(build, doubled=doubled).network).blocks
    rng = torch.Generator().manual_seed(3)
    masks = [torch.rand(block.groups, block.candidates, block.columns, generator=rng) < 0.02 for block in blocks]
    other = StrongNetwork(1, blocks, masks, network.factors)
    plain, x = materialised(other), inputs(build, signed=True)
    with torch.no_grad():
        assert torch.allclose(plain.double()(x), other(x), atol=1e-11)
    assert sum(p.numel() for p in plain.parameters()) == other.total
    if doubled:
        assert sum(int((p != 0).sum()) for p in plain.parameters()) == other.kept


@NETS
@DEPTHS
@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_layer_of_zeros_keeps_nothing_and_still_runs(build: object, doubled: bool, which: int) -> None:
    module: nn.Module = build()  # type: ignore[operator]
    layer = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)][which]
    with torch.no_grad():
        for one in layer.parameters():
            one.zero_()
    found = construct(read(module), error=1e-3, doubled=doubled)
    x = inputs(build)
    with torch.no_grad():
        logits = found.network(x) / found.network.scale
        assert torch.allclose(logits, found.target(x), atol=0.05)
        assert torch.allclose(materialised(found.network).double()(x), found.network(x), atol=1e-11)
    certificate = Certifier(found.network, found.target)(x)
    assert bool(((logits - found.target(x)).norm(dim=1) <= certificate.bounds + 1e-15).all())
    assert worst_error(found.network, found.target) <= 1e-3


def test_an_average_over_padding_needs_twice_the_depth() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AvgPool2d(2, padding=1), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(18, 2),
    )  # fmt: skip
    with pytest.raises(InvalidValue, match="'3' there is an average with padding"):
        construct(read(module), doubled=False)
    assert construct(read(module)).unresolved == 0


def test_the_same_seed_gives_the_same_mask_however_many_work_on_it() -> None:
    one, two, other = made(threads=1), made(threads=3), made(seed=1)
    for number in range(3):
        assert torch.equal(one.network.mask(number), two.network.mask(number))
        assert not torch.equal(one.network.mask(number), other.network.mask(number))


def test_too_few_candidates_are_an_error_that_says_how_many_would_do() -> None:
    with pytest.raises(Unsolved, match=r"of 489 weights are further than 0.001.*Take (\d+)") as raised:
        made(candidates=12)
    enough = int(str(raised.value).split("Take ")[1].split()[0])
    assert made(candidates=enough).unresolved == 0
    with pytest.raises(Unsolved, match="Take --error 2e-08"):
        made(error=1e-12)
    kept = made(candidates=12, accept_unresolved=True)
    assert kept.unresolved > 0
    assert kept.max_error > 1e-3


def test_the_advice_for_biases_behind_large_weights_can_be_followed() -> None:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for _ in range(5):
        layer = nn.Linear(6, 6)
        with torch.no_grad():
            layer.weight.mul_(60.0)
        parts += [layer, nn.ReLU()]
    target = read(nn.Sequential(*parts[:-1]))
    with pytest.raises(Unsolved, match="Take --error") as raised:
        construct(target, error=1e-3)
    enough = float(str(raised.value).split("--error ")[1].rstrip("."))
    assert construct(target, error=enough).unresolved == 0


@DEPTHS
@SIGNS
def test_progress_reaches_the_end(doubled: bool, signed: bool) -> None:
    heard: list[tuple[int, int]] = []
    found = made(doubled=doubled, signed=signed, told=lambda done, total: heard.append((done, total)))
    assert heard == sorted(heard)
    assert heard[-1][0] == heard[-1][1]
    assert found.solved <= found.sums <= heard[-1][0]
    if doubled:
        assert found.sums == heard[-1][0] == 489 + 240 * signed


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), "'1' is a Tanh"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), "no ReLU between '0' and '1'"),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)), "'1' is a BatchNorm1d"),
        (nn.Sequential(nn.Flatten()), "no Linear and no Conv2d"),
        (nn.LSTM(3, 4), "'the network' is a LSTM"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.ReLU()), "has groups"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.ReLU()), "number of zeros"),
        (nn.Sequential(nn.Conv2d(1, 2, 1, padding=1), nn.ReLU()), "pads so much"),
        (nn.Sequential(nn.Conv2d(1, 2, 2, padding=1), nn.ReLU()), "pads so much"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=2), nn.ReLU()), "pads so much"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.MaxPool2d(2)), "after the last layer"),
        (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Linear(2, 2)), "ceil_mode"),
    ],
)
def test_what_has_no_copy_in_random_relu_neurons_is_named(module: nn.Module, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        read(module)


def test_a_weight_that_is_no_number_is_refused() -> None:
    module = mlp()
    with torch.no_grad():
        module[4].weight[0, 0] = math.nan  # type: ignore[operator,union-attr,index]
    with pytest.raises(InvalidValue, match=r"1 of 180 values of 4.weight are NaN"):
        read(module)


@pytest.mark.parametrize("how", [{"error": 0.0}, {"error": math.nan}, {"candidates": 1}, {"candidates": 10**6}])
def test_settings_out_of_range_are_refused(how: dict[str, float]) -> None:
    with pytest.raises(InvalidValue):
        made(**how)


def test_a_target_larger_than_memory_is_refused_before_anything_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 30)
    with pytest.raises(InvalidValue, match=r"GiB.*\d+ candidates would fit|GiB.*fewer weights"):
        made()


# Certificates


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 7), (50, 50), (4, 0)])
def test_the_norm_is_bounded_from_above_and_closely(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    true = float(torch.linalg.matrix_norm(matrix, 2)) if matrix.numel() else 0.0
    assert true <= norm_above(matrix) <= true * (1 + 1e-6)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_norm_of_a_large_matrix_is_bounded_from_above_without_eigenvalues(
    spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = 3 + spread * torch.randn(40, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix[:, 4:] *= 0.01
    true = float(torch.linalg.matrix_norm(matrix, 2))
    monkeypatch.setattr("tombola.strong.certificate._LARGEST", 5)
    monkeypatch.delattr("torch.linalg.eigvalsh")
    assert true <= norm_above(matrix) <= 1.5 * true
    assert norm_above(torch.eye(40, dtype=torch.float64)) == 1


def test_the_norm_of_very_small_and_very_large_numbers_is_bounded_too() -> None:
    matrix = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    for size in (1e-200, 1e200, 4e307):
        assert 4 * size <= norm_above(matrix * size) <= 4 * size * (1 + 1e-9)


@NETS
@SIGNS
@DEPTHS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_logit_is_further_away_than_certified(
    build: object, signed: bool, doubled: bool, dtype: torch.dtype
) -> None:
    for error in (1e-2, 1e-4):
        found = made(build, error=error, signed=signed, doubled=doubled)
        x = inputs(build, 200, signed=signed) * torch.logspace(-2, 2, 200).view(-1, *(1,) * (inputs(build).dim() - 1))
        certifier = Certifier(found.network, found.target, dtype=dtype, signed=signed)
        certificate = certifier(x)
        with torch.no_grad():
            away = (found.network(x.to(dtype)).double() / found.network.scale - found.target(x)).norm(dim=1)
            alike = found.network(x.to(dtype)).argmax(1) == found.target(x).argmax(1)
        assert bool((away <= certificate.bounds).all())
        assert bool(alike[certificate.certified].all())
        everywhere = certifier.everywhere(float(x.flatten(1).norm(dim=1).max()), x[:1])
        assert everywhere >= float(certificate.bounds.max()) * (1 - 1e-9)
        assert everywhere >= float(away.max())


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 0), (2, 3, 0)])
def test_pooling_brings_inputs_no_further_apart_than_its_gain(kind: str, size: int, stride: int, padding: int) -> None:
    pool = Reshape(kind, (size, size), (stride, stride), (padding, padding))
    rng = torch.Generator().manual_seed(2)
    x, y = torch.randn(2, 300, 1, 9, 9, generator=rng, dtype=torch.float64)
    # One pixel alone is what overlapping windows repeat most, and a constant what averages keep best.
    y[:100] = x[:100]
    y[:100, :, 4, 4] += 5.0
    y[100:200] = x[100:200] + 1.0
    ratio = (pool(x) - pool(y)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1)
    assert float(ratio.max()) <= pool.gain * (1 + 1e-12)
    assert float(ratio.max()) > 0.3 * pool.gain


def test_a_certificate_for_float32_covers_what_rounding_does() -> None:
    """Weights so near that float32 is what is left: the bound for float64 does not hold there, and its own does."""
    found, x = construct(read(mlp(bias=False)), error=1e-8), inputs(mlp, 200)
    with torch.no_grad():
        away = (found.network(x.float()).double() / found.network.scale - found.target(x)).norm(dim=1)
    exact, rounded = (Certifier(found.network, found.target, dtype=one)(x) for one in (torch.float64, torch.float32))
    assert bool((away <= rounded.bounds).all())
    assert bool((away > exact.bounds).any())


@DEPTHS
def test_a_certificate_is_worth_something_and_scales_with_the_error(doubled: bool) -> None:
    fine, coarse = made(error=1e-6, doubled=doubled), made(error=1e-3, doubled=doubled)
    x = inputs(mlp)
    bounds = [Certifier(one.network, one.target)(x).bounds.mean() for one in (fine, coarse)]
    # Finer copies are read by more weights, so that their errors count for more.
    assert float(bounds[1] / bounds[0]) == pytest.approx(1000, rel=0.3 if doubled else 0.6)
    assert Certifier(fine.network, fine.target)(x).share == 1.0


def test_averages_of_both_signs_are_rounded_by_the_size_of_what_they_add_up() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3, bias=False))
    found = construct(read(module), error=1e-7, signed=True)
    x = torch.zeros(4, 2, 4, 4, dtype=torch.float64)
    x[:, :, ::2] = 1e6 * torch.rand(4, 2, 2, 4, generator=torch.Generator().manual_seed(0))
    x[:, :, 1::2] = -x[:, :, ::2]
    x += 1e-3
    bounds = Certifier(found.network, found.target, dtype=torch.float32, signed=True)(x).bounds
    with torch.no_grad():
        away = (found.network(x.float()).double() / found.network.scale - found.target(x)).norm(dim=1)
    assert bool((away > 1e-4).any())
    assert bool((away <= bounds).all())
    exact = Certifier(found.network, found.target, signed=True)(x).bounds
    assert bool((exact < 1e-3 * bounds).all()), "what cancels does so in the weights' errors"


def test_a_certificate_for_inputs_that_are_not_negative_is_for_no_others() -> None:
    found = made()
    with pytest.raises(InvalidValue, match="negative"):
        Certifier(found.network, found.target)(inputs(mlp, signed=True))


def test_one_class_is_always_predicted() -> None:
    torch.manual_seed(0)
    found = construct(read(nn.Linear(4, 1)), error=1e-3)
    certificate = Certifier(found.network, found.target)(torch.rand(5, 4))
    assert certificate.share == 1.0
    assert bool((certificate.bounds > 0).all())


def test_the_bound_for_a_ball_is_none_of_its_rounding() -> None:
    """Norms that float32 would round down."""
    torch.manual_seed(0)
    found = construct(read(nn.Linear(6, 3, bias=False)), error=1e-2)
    certifier, x = Certifier(found.network, found.target), torch.rand(200, 6, dtype=torch.float64)
    bounds = certifier(x).bounds
    assert all(
        certifier.everywhere(float(one.norm()), x[:1]) >= float(bound) for one, bound in zip(x, bounds, strict=True)
    )


def test_an_unbounded_domain_has_no_certificate() -> None:
    found = made()
    with pytest.raises(InvalidValue, match="needs a domain"):
        Certifier(found.network, found.target).everywhere(math.inf, inputs(mlp)[:1])


def test_the_largest_error_is_found_by_halving() -> None:
    asked: list[float] = []

    def reaches(error: float) -> bool:
        asked.append(error)
        return error <= 3e-4

    assert bisect(reaches, start=1e-1, steps=16) == pytest.approx(3e-4, rel=1e-3)
    assert len(asked) == 18
    assert bisect(lambda _: True, start=0.1) == 0.1
    assert bisect(lambda _: False, start=0.1) is None


# Files


def written(tmp_path: Path, found: Construction, *, signed: bool = False) -> Path:
    claims = {
        "max_error": found.max_error,
        "effective": file.fingerprint(found.network, signed=signed),
        "signed": signed,
    }
    path = tmp_path / "strong.safetensors"
    write_all({path: file.encode(found.network, claims)})
    return path


@NETS
@SIGNS
@DEPTHS
def test_a_file_is_the_network_again_from_seed_and_mask(
    build: object, signed: bool, doubled: bool, tmp_path: Path
) -> None:
    found = made(build, signed=signed, doubled=doubled)
    path = written(tmp_path, found, signed=signed)
    assert file.is_strong(path)
    again = file.load(path).network
    x = inputs(build, signed=signed)
    with torch.no_grad():
        assert torch.equal(again(x), found.network(x))
    checks = verify(path, target=found.target)
    assert [(one.name, one.ok) for one in checks] == [("file", True), ("weights", True), ("error", True)]
    assert file.encode(again, file.load(path).claims) == path.read_bytes(), "equal arguments give equal bytes"


def test_one_flipped_bit_is_caught_wherever_it_is(tmp_path: Path) -> None:
    path = written(tmp_path, made())
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    broken = tmp_path / "broken.safetensors"
    for at in rng.choice(len(data), 150, replace=False):
        broken.write_bytes(data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :])
        checks = verify(broken)
        assert not all(one.ok for one in checks), at
    for size in (0, 7, 100, len(data) // 2, len(data) - 1):
        broken.write_bytes(data[:size])
        assert not verify(broken)[0].ok


def test_a_mask_that_was_changed_with_its_digest_is_caught_by_its_weights(tmp_path: Path) -> None:
    """Someone writes another mask in earnest: the effective weights are not those that were claimed."""
    found = made()
    mask = found.network.mask(1)
    mask[0, 0, 0] = ~mask[0, 0, 0]
    masks = [found.network.mask(0), mask, found.network.mask(2)]
    other = StrongNetwork(0, found.network.blocks, masks, found.network.factors)
    claims = {"max_error": found.max_error, "effective": file.fingerprint(found.network)}
    path = tmp_path / "other.safetensors"
    write_all({path: file.encode(other, claims)})
    u = found.network.blocks[1].first(0, 1)[0, 0]
    assert [one.ok for one in verify(path)] == [True, float(u) <= 0]


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": 0}, {"inputs": 1 << 40}, {"candidates": -1}, {"kernel": [1]}, {"convolution": 1}, {"relu": "yes"},
        {"before": [{"kind": "evil", "size": [1, 1], "stride": [1, 1], "padding": [0, 0]}]}, {"padding": [9, 9]},
        {"padding": [0, 4096]}, {"before": [{"kind": "max", "size": [2, 2], "stride": [1, 1], "padding": [0, 9]}]},
        {"more": 1}, {"outputs": 21}, {"copies": 2}, {"doubled": False}, {"constants": -1}, {"constants": 1 << 30},
    ],
)  # fmt: skip
@DEPTHS
def test_hostile_sizes_are_refused(change: dict[str, object], doubled: bool, tmp_path: Path) -> None:
    from tombola import canonical
    from tombola.ticket import container
    from tombola.ticket.canonical import digest

    data = written(tmp_path, made(doubled=doubled)).read_bytes()
    length = int.from_bytes(data[:8], "little")
    metadata, _ = container.read_header(data[8 : 8 + length], len(data) - 8 - length, "here")
    body = canonical.loads(metadata[file.KEY])
    body["blocks"][0].update(change)
    tensors = container.read_tensors(data, "here")
    # Whoever alters a file can give it its digest too.
    del body["digest"]
    body["digest"] = digest(tensors, canonical.dumps(body))
    with pytest.raises(CorruptTicket):
        file.decode(container.write(tensors, file.KEY, canonical.dumps(body)), "here")


@pytest.mark.parametrize(
    ("number", "change", "says"),
    [
        (0, {"copies": 35}, "in copies"),
        (0, {"doubled": False, "constants": 0}, "in copies"),
        (1, {"doubled": True}, "in copies"),
        (1, {"inputs": 21}, "in copies"),
        (2, {"copies": 2}, "in copies"),
        (1, {"constants": -1}, "sizes"),
        (2, {"candidates": 5000}, "sizes"),
        (1, {"constants": True}, "sizes"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused_whole_as_the_file_is(
    number: int, change: dict[str, int], says: str
) -> None:
    network = made(doubled=False).network
    blocks = list(network.blocks)
    blocks[number] = replace(blocks[number], **change)  # type: ignore[arg-type]
    masks = [torch.zeros(one.groups, one.candidates, one.columns, dtype=torch.bool) for one in blocks]
    data = file.encode(StrongNetwork(0, blocks, masks, network.factors), {})
    with pytest.raises(CorruptTicket, match=says):
        file.decode(data, "here")


def test_another_law_and_no_strong_ticket_are_said(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(b"nothing")
    assert not file.is_strong(path)
    assert not file.is_strong(tmp_path / "absent")
    with pytest.raises(TicketError):
        file.load(path)
    found = made()
    data = file.encode(found.network, {}).replace(b"uniform-1", b"uniform-2")
    with pytest.raises(TicketError, match="law uniform-2"):
        file.decode(data, "here")


def test_a_mask_of_another_size_is_refused() -> None:
    found = made().network
    with pytest.raises(ShapeMismatch, match="the mask of block 0"):
        StrongNetwork(0, found.blocks, [found.mask(1), found.mask(1), found.mask(2)], found.factors)
    with pytest.raises(InvalidValue, match="another network"):
        worst_error(
            found, read(nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 4)))
        )


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e-30])
def test_weights_that_are_hardly_numbers_are_within_the_error_of_zero(size: float) -> None:
    module = mlp().double()
    with torch.no_grad():
        module[1].weight.fill_(size)  # type: ignore[operator,union-attr]
        module[1].bias.fill_(size)  # type: ignore[operator,union-attr]
    assert construct(read(module), error=1e-3).unresolved == 0


@pytest.mark.parametrize("x", [torch.rand(2, 13), torch.rand(2, 11), torch.rand(2, 1, 12), torch.rand(2, 12, 1, 1)])
def test_inputs_for_another_network_are_refused(x: Tensor) -> None:
    blocks = (network := made().network).blocks
    bare = StrongNetwork(
        0, [replace(blocks[0], before=()), *blocks[1:]], [network.mask(n) for n in range(3)], [1.0] * 3
    )
    with pytest.raises(ShapeMismatch, match="block 0 reads inputs of shape"):
        bare(x)


def test_other_masks_that_are_loaded_are_the_ones_that_run() -> None:
    one, other, x = made().network, made(error=1e-2).network, inputs(mlp)
    with torch.no_grad():
        before = one(x)
        one.load_state_dict(other.state_dict())
        assert not torch.equal(one(x), before)
        assert torch.equal(one(x), other(x))
    assert file.fingerprint(one) == file.fingerprint(other)


def test_another_target_is_refused() -> None:
    found = made(convnet)
    layers = found.target.layers
    for number, change in ((0, {"bias": None}), (1, {"stride": (1, 1)}), (1, {"before": ()}), (2, {"relu": True})):
        other = [replace(one, **change) if at == number else one for at, one in enumerate(layers)]  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match="another network"):
            worst_error(found.network, Target(tuple(other)))


@pytest.mark.parametrize(
    "tensors",
    [
        {"mask_0": lambda mask: mask.view(torch.int8)},
        {"predictions": lambda _: torch.tensor(3, dtype=torch.uint8)},
        {"predictions": lambda _: torch.rand(5)},
        {"predictions": lambda _: torch.zeros(0, dtype=torch.uint8)},
    ],
)
def test_tensors_of_other_types_are_refused(tensors: dict[str, Callable[[Tensor], Tensor]]) -> None:
    from tombola import canonical
    from tombola.ticket import container
    from tombola.ticket.canonical import digest

    data = file.encode(made().network, {})
    length = int.from_bytes(data[:8], "little")
    metadata, _ = container.read_header(data[8 : 8 + length], len(data) - 8 - length, "here")
    body = canonical.loads(metadata[file.KEY])
    held = container.read_tensors(data, "here")
    held |= {name: change(held.get(name, torch.zeros(0))) for name, change in tensors.items()}
    del body["digest"]
    body["digest"] = digest(held, canonical.dumps(body))
    with pytest.raises(CorruptTicket, match=r"has (a mask of|predictions)"):
        file.decode(container.write(held, file.KEY, canonical.dumps(body)), "here")


def test_sizes_are_told_beside_the_plain_network() -> None:
    found = made()
    told = file.sizes(found.network, found.target.weights)
    assert told["mask"] == found.network.total / 8
    assert told["mask_entropy"] < told["mask_second"] < told["mask"]
    assert told["network"] == 4 * 489


def test_the_law_is_the_same_everywhere() -> None:
    """Golden: the first numbers of a stream, as multiples of 2^-23."""
    assert [round(float(value) * 2**23) for value in draw(0, 0, "v", 0, 4)] == GOLDEN
    many = draw(5, 1, "u", 2, 200_001)
    assert many.dtype is torch.float32
    assert float(many.mean()) == pytest.approx(0, abs=0.01)
    assert float(many.var()) == pytest.approx(1 / 3, rel=0.01)
    assert -1 <= float(many.min()) < -0.9999
    assert 0.9999 < float(many.max()) < 1


GOLDEN = [7846082, -3150543, 5744031, 1724500]


def test_a_digits_network_is_measured_as_it_is() -> None:
    dataset = load_data("digits")
    torch.manual_seed(0)
    module = models.build("lenet-300-100", dataset.input_shape, dataset.classes)
    found = construct(read(module), error=1e-6)
    measured = measure(found.network, found.target, dataset.train_x[:300], dataset.train_y[:300])
    assert measured.agreement == 1.0
    assert measured.accuracy == measured.target_accuracy
    assert 0 < measured.furthest < 0.05
    assert 0 < measured.certified <= 1
    predicted, logits = classes(found.network, dataset.train_x[:300])
    assert torch.equal(predicted, measured.predictions)
    assert logits.shape == (300, 10)
    with pytest.raises(InvalidValue, match="NaN"):
        measure(found.network, found.target, dataset.train_x[:3] * math.nan, dataset.train_y[:3])
