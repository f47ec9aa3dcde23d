"""SynFlow (Tanaka et al. 2020): conservation of synaptic flow (Theorem 1), and no layer collapse (Algorithm 1)."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tombola.errors import EmptiedLayer, ImpossibleDensity, InvalidScores, InvalidValue, MissingEvidence
from tombola.prune.allocation import Global
from tombola.prune.criteria.magnitude import magnitude
from tombola.prune.criteria.synflow import STEPS, synaptic_flow, synflow
from tombola.prune.evidence import Criterion, Evidence
from tombola.prune.masks import counts, kept, ones
from tombola.prune.pruner import one_shot
from tombola.prune.select import select
from tombola.types import Params

SIZES = (7, 12, 9, 3)


def chain(values: Params, x: Tensor) -> Tensor:
    """Give the outputs of a ReLU network with biases."""
    for i in range(3):
        x = functional.linear(x if i == 0 else x.relu(), values[f"{i}.weight"], values[f"{i}.bias"])
    return x


def weights(seed: int = 0, scale: float = 1.0) -> dict[str, Tensor]:
    """Draw its parameters; biases are not zero."""
    rng = torch.Generator().manual_seed(seed)
    shapes = {f"{i}.weight": (SIZES[i + 1], SIZES[i]) for i in range(3)} | {
        f"{i}.bias": (SIZES[i + 1],) for i in range(3)
    }
    return {name: scale * torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def names(params: Params) -> list[str]:
    """Name what is prunable."""
    return [name for name in params if name.endswith("weight")]


def magnitudes(params: Params) -> list[Tensor]:
    """Give the chain's weights as the method takes them."""
    return [params[f"{i}.weight"].double().abs() for i in range(3)]


CHAIN = Evidence(forward=chain, example=torch.full((1, 7), -3.0), density=0.2)


def test_it_is_the_product_of_all_magnitudes_summed_over_the_paths_through_the_weight() -> None:
    params = weights()
    a, b, c = magnitudes(params)
    found = synaptic_flow(params, ones(params, names(params)), CHAIN)
    assert torch.allclose(found["1.weight"], (c.sum(0)[:, None] * b) * a.sum(1)[None, :], rtol=1e-12)
    assert found["1.weight"].dtype is torch.float64


@pytest.mark.parametrize("seed", range(5))
def test_every_layers_scores_sum_to_the_sum_of_the_outputs(seed: int) -> None:
    """Conservation, layer by layer; biases, which break it, are zero."""
    params = weights(seed)
    masks = {n: torch.rand(params[n].shape, generator=torch.Generator().manual_seed(seed)) < 0.6 for n in names(params)}
    a, b, c = (m * masks[f"{i}.weight"] for i, m in enumerate(magnitudes(params)))
    whole = float((c @ b @ a).sum())
    for n, scores in synaptic_flow(params, masks, CHAIN).items():
        assert math.isclose(float(scores[masks[n]].sum()), whole, rel_tol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_what_enters_a_hidden_unit_leaves_it(seed: int) -> None:
    params = weights(seed)
    found = synaptic_flow(params, ones(params, names(params)), CHAIN)
    for into, out in (("0.weight", "1.weight"), ("1.weight", "2.weight")):
        assert torch.allclose(found[into].sum(1), found[out].sum(0), rtol=1e-12, atol=0)


def residual(values: Params, x: Tensor) -> Tensor:
    """Give the outputs of a small convolutional network with batch norm by its running statistics and a shortcut."""
    x = functional.conv2d(x, values["stem"])
    for i in "ab":
        y = functional.conv2d(x.relu(), values[f"{i}.conv"], padding=1)
        y = functional.batch_norm(
            y, values[f"{i}.running_mean"], values[f"{i}.running_var"], values[f"{i}.scale"], values[f"{i}.bias"]
        )
        x = x + y
    return functional.linear(functional.adaptive_avg_pool2d(x.relu(), 1).flatten(1), values["out"])


def residual_weights(scale: float = 1.0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draw its parameters and buffers, as after some training: no shift is zero."""
    rng = torch.Generator().manual_seed(1)
    conv, norm = (6, 6, 3, 3), (6,)
    shapes = {"stem": (6, 3, 1, 1), "a.conv": conv, "b.conv": conv, "out": (4, 6)}
    params = {n: scale * torch.randn(s, generator=rng) for n, s in shapes.items()}
    params |= {f"{i}.{n}": torch.randn(norm, generator=rng) for i in "ab" for n in ("scale", "bias")}
    buffers = {f"{i}.running_mean": torch.randn(norm, generator=rng) for i in "ab"}
    buffers |= {f"{i}.running_var": torch.rand(norm, generator=rng) + 0.5 for i in "ab"}
    return params, {**buffers, "a.num_batches_tracked": torch.tensor(7)}


def shaped(scale: float = 1.0) -> tuple[dict[str, Tensor], dict[str, Tensor], Evidence]:
    """Give the residual network, dense masks and the evidence."""
    params, buffers = residual_weights(scale)
    given = Evidence(forward=residual, example=torch.zeros(1, 3, 5, 5), buffers=buffers, density=0.1)
    return params, ones(params, ["stem", "a.conv", "b.conv", "out"]), given


def test_biases_and_running_means_add_nothing_and_a_shortcut_carries_its_part() -> None:
    """What the stem and the output pass is all there is; a branch passes the rest of the shortcut."""
    params, masks, given = shaped()
    sums = {n: float(s.sum()) for n, s in synaptic_flow(params, masks, given).items()}
    assert math.isclose(sums["stem"], sums["out"], rel_tol=1e-12)
    assert 0 < sums["a.conv"] < sums["stem"]
    kinds = {n: "bias" if n.endswith("bias") else "norm" if n.endswith("scale") else "conv" for n in params}
    for n, scores in synaptic_flow(params, masks, replace(given, kinds=kinds)).items():
        assert torch.equal(scores, synaptic_flow(params, masks, given)[n])


def test_kinds_say_what_a_bias_is_where_they_are_given() -> None:
    """A weight whose name ends in bias is one where its kind says so, and a bias by another name is none."""
    params = {"unbias": torch.tensor([[2.0, 1.0]]), "shift": torch.tensor([5.0]), "out": torch.tensor([[3.0]])}
    given = Evidence(
        forward=lambda v, x: (x @ v["unbias"].T + v["shift"]) @ v["out"].T, example=torch.zeros(1, 2),
        kinds={"unbias": "linear", "shift": "bias", "out": "linear"},
    )  # fmt: skip
    assert synaptic_flow(params, ones(params, ["out"]), given)["out"].tolist() == [[9.0]]


@pytest.mark.parametrize("net", ["chain", "residual"])
@pytest.mark.parametrize("factor", [2.0**-200, 2.0**100])
def test_only_ratios_count_so_the_scale_of_the_weights_does_not(net: str, factor: float) -> None:
    """For a chain any scale of each layer; with a shortcut that of what all paths share."""
    params, masks, given = (weights(), ones(weights(), names(weights())), CHAIN) if net == "chain" else shaped()
    params = {n: v.double() for n, v in params.items()}
    scaled = {n: v * factor if n in ("stem", "1.weight") else v for n, v in params.items()}
    before, after = synflow(params, masks, given), synflow(scaled, masks, given)
    for n in masks:
        assert torch.equal(before[n], after[n])


@pytest.mark.parametrize("gain", [1e100, 1e-100])
def test_a_network_that_multiplies_beyond_float64_is_scored_by_ratios(gain: float) -> None:
    """Four layers of gain 1e100 give 1e400; scores equal those of the network of gain 1, up to a power of two."""
    rng = torch.Generator().manual_seed(2)
    plain = {f"{i}": torch.rand((4, 4), generator=rng, dtype=torch.float64) for i in range(4)}

    def forward(values: Params, x: Tensor) -> Tensor:
        for i in range(4):
            x = x @ values[str(i)].T
        return x

    given = Evidence(forward=forward, example=torch.zeros(1, 4), density=0.5)
    power = 2.0 ** round(math.log2(gain))
    found = synflow({n: v * power for n, v in plain.items()}, ones(plain, plain), given)
    for n, scores in synflow(plain, ones(plain, plain), given).items():
        assert torch.equal(scores, found[n])


def test_a_flow_that_no_scale_makes_finite_is_an_error_and_one_that_is_cut_off_none() -> None:
    params = {"w": torch.tensor([[math.inf, 1.0]])}
    given = Evidence(forward=lambda v, x: x @ v["w"].T, example=torch.zeros(1, 2), density=0.5)
    with pytest.raises(InvalidScores, match="not finite at any scale"):
        synflow(params, ones(params, ["w"]), given)
    params = weights()
    masks = {n: torch.full_like(params[n], n != "1.weight", dtype=torch.bool) for n in names(params)}
    found = synflow(params, masks, CHAIN)
    assert all(bool(found[n][masks[n]].isfinite().all()) for n in masks)
    dead = {n: torch.zeros_like(m) for n, m in masks.items()}
    assert all(bool((s == -torch.inf).all()) for s in synflow(params, dead, CHAIN).values())
    assert synflow(params, {}, CHAIN) == {}


def flows(masks: list[Tensor]) -> list[Tensor]:
    """Give the scores of the chain's weights that are left, in closed form."""
    a, b, c = (v * m for v, m in zip(magnitudes(weights()), masks, strict=True))
    into = [torch.ones(7).double(), a.sum(1), (b @ a).sum(1)]
    out = [(c @ b).sum(0), c.sum(0), torch.ones(3).double()]
    return [o[:, None] * v * n[None, :] for v, o, n in zip((a, b, c), out, into, strict=True)]


@pytest.mark.parametrize("density", [0.5, 0.08])
def test_the_scores_replay_algorithm_1(density: float) -> None:
    """At each of a hundred steps those go whose flow is least, through what the steps before have left.

    Up to rounding: where a unit has one way in and one way out, conservation makes the flows of both equal.
    """
    params = weights()
    masks = ones(params, names(params))
    given = replace(CHAIN, density=density)
    scores = synflow(params, masks, given)
    order = torch.cat([s.reshape(-1) for s in scores.values()]).argsort(descending=True, stable=True)
    size = len(order)
    before = [torch.ones_like(m) for m in magnitudes(params)]
    for step in range(1, STEPS + 1):
        kept_now = torch.zeros(size).index_fill_(0, order[: round(size * density ** (step / STEPS))], 1.0).double()
        through = torch.cat([f.reshape(-1) for f in flows(before)])
        alive = torch.cat([m.reshape(-1) for m in before]) > 0
        stay, gone = through[alive & (kept_now > 0)], through[alive & (kept_now == 0)]
        assert len(stay) == round(size * density ** (step / STEPS)), "what went does not come back"
        assert not gone.numel() or float(gone.max()) <= float(stay.min()) * (1 + 1e-9)
        before = [p.reshape(m.shape) for p, m in zip(kept_now.split([m.numel() for m in before]), before, strict=True)]
    pruned = one_shot(density, criterion=synflow, allocation=Global()).prune(1, params, masks, given)
    assert all(torch.equal(pruned[f"{i}.weight"], m > 0) for i, m in enumerate(before))


def test_what_is_cut_earlier_ranks_lower_so_that_every_density_on_the_way_can_be_had() -> None:
    """The masks at the counts of the steps nest, and each is the one that the algorithm had there."""
    params = weights()
    masks = ones(params, names(params))
    size = kept(masks)
    found = torch.cat([s.reshape(-1) for s in synflow(params, masks, replace(CHAIN, density=0.1)).values()])
    whole = torch.cat([s.reshape(-1) for s in synaptic_flow(params, masks, CHAIN).values()])
    first = round(size * 0.1 ** (1 / STEPS))
    assert first < size
    gone = torch.topk(whole, size - first, largest=False).indices
    assert sorted(gone.tolist()) == sorted(torch.topk(found, size - first, largest=False).indices.tolist())
    assert found[gone].max() < -1 <= found.sort(descending=True).values[round(size * 0.1) - 1]
    half = synflow(params, masks, replace(CHAIN, density=0.1 ** (50 / STEPS)))
    ranked = found.sort(descending=True).values[round(size * 0.1 ** (50 / STEPS)) - 1]
    assert bool(found.isfinite().all())
    assert half.keys() == masks.keys()
    assert float(ranked) < -1, "cut on the way"


def test_the_steps_start_from_the_mask_that_is_given() -> None:
    """From a density of .5, a cut to .25 takes the way of .5 * .5^(i/100), and nothing pruned comes back."""
    params = weights()
    masks = {n: torch.rand(params[n].shape, generator=torch.Generator().manual_seed(1)) < 0.5 for n in names(params)}
    size = sum(m.numel() for m in masks.values())
    scores = synflow(params, masks, replace(CHAIN, density=0.25))
    flat = torch.cat([s.reshape(-1) for s in scores.values()])
    last = round(size * (kept(masks) / size) * (0.25 * size / kept(masks)) ** (99 / STEPS))
    assert int((flat >= -1).sum()) == last
    assert all(bool((scores[n][~m] == -torch.inf).all()) for n, m in masks.items())
    same = synflow(params, masks, replace(CHAIN, density=0.9))
    once = synaptic_flow(params, masks, CHAIN)
    top = max(float(s.max()) for s in once.values())
    for n in masks:
        assert torch.equal(same[n], once[n] / top), "nothing is to be cut, so nothing is"


WIDTHS = (16, 16, *(32,) * 11, 96, 128, 128)


def deep(values: Params, x: Tensor) -> Tensor:
    """Give the outputs of sixteen convolutions and a linear layer."""
    for i in range(len(WIDTHS)):
        x = functional.conv2d(x, values[f"conv{i}"], padding=1).relu()
    return functional.linear(x.mean((2, 3)), values["out"])


def deep_weights(seed: int) -> dict[str, Tensor]:
    """Draw its weights as Glorot & Bengio (2010) do."""
    rng = torch.Generator().manual_seed(seed)
    pairs = zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
    params = {
        f"conv{i}": torch.randn((o, n, 3, 3), generator=rng) * (2 / (9 * (n + o))) ** 0.5
        for i, (n, o) in enumerate(pairs)
    }
    return {**params, "out": torch.randn((10, WIDTHS[-1]), generator=rng) * (2 / (10 + WIDTHS[-1])) ** 0.5}


def test_no_layer_collapses_where_magnitude_empties_one() -> None:
    """Figure 1: at a density of 10^-2.5, with one ranking of all layers."""
    params = deep_weights(0)
    density = 10**-2.5
    given = Evidence(forward=deep, example=torch.zeros(1, 3, 2, 2), density=density)

    def prune(criterion: Criterion) -> dict[str, Tensor]:
        return one_shot(density, criterion=criterion, allocation=Global()).prune(1, params, ones(params, params), given)

    found = prune(synflow)
    assert min(counts(found).values()) >= 1
    assert kept(found) == round(density * kept(ones(params, params)))
    assert sum(map(float, synaptic_flow(params, found, given)["out"][found["out"]])) > 0, "something passes"
    with pytest.raises(EmptiedLayer, match="would empty 'conv"):
        prune(magnitude)


def test_ties_are_broken_by_the_generator_that_is_given() -> None:
    params = {n: v.sign() for n, v in weights().items()}
    masks = ones(params, names(params))

    def draw(seed: int) -> dict[str, Tensor]:
        given = replace(CHAIN, generator=torch.Generator().manual_seed(seed))
        return select(synflow(params, masks, given), dict.fromkeys(masks, 5))

    first, again, other = draw(0), draw(0), draw(1)
    assert all(torch.equal(first[n], again[n]) for n in masks)
    assert any(not torch.equal(first[n], other[n]) for n in masks)


def test_what_it_needs_is_named_and_checked() -> None:
    params = weights()
    masks = ones(params, names(params))
    for field in ("forward", "example", "density"):
        with pytest.raises(MissingEvidence, match=f"needs '{field}'"):
            synflow(params, masks, replace(CHAIN, **{field: None}))
    for density in (0.0, 1.5, math.nan):
        with pytest.raises(ImpossibleDensity, match="steps down to a density"):
            synflow(params, masks, replace(CHAIN, density=density))
    with pytest.raises(InvalidValue, match=r"the example holds torch\.int64"):
        synflow(params, masks, replace(CHAIN, example=torch.zeros((1, 7), dtype=torch.int64)))


def test_nothing_that_is_given_is_written_to() -> None:
    params, masks, given = shaped()
    assert given.buffers is not None
    before = {n: v.clone() for n, v in {**params, **given.buffers}.items()}
    synflow(params, masks, given)
    assert all(torch.equal(v, before[n]) and not v.requires_grad for n, v in {**params, **given.buffers}.items())
    assert all(bool(m.all()) for m in masks.values())
