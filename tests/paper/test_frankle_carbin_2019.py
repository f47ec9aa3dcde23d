"""The Lottery Ticket Hypothesis (Frankle & Carbin 2019): its ladder, its labels, its two algorithms."""

from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from tombola.models import build, kinds, layer_multipliers
from tombola.prune.allocation import LayerRates, Uniform
from tombola.prune.counting import Cut, Shapes
from tombola.prune.evidence import Evidence
from tombola.prune.masks import counts, density, nested, ones
from tombola.prune.pruner import Pruner, imp, one_shot
from tombola.prune.rewinding import masked, restart
from tombola.prune.schedules import geometric, ladder
from tombola.prune.scope import choose
from tombola.types import Snapshot

LENET = {"fc1.weight": (300, 784), "fc2.weight": (100, 300), "output.weight": (10, 100)}
HALF = {"output.weight": Fraction(1, 2)}
LADDER = (
    266200, 213060, 170538, 136511, 109282, 87490, 70051, 56094, 44923, 35981, 28823,
    23093, 18506, 14834, 11893, 9537, 7650, 6138, 4927, 3957, 3179,
)  # fmt: skip
PRINTED = [
    "100.00", "80.04", "64.06", "51.28", "41.05", "32.87", "26.32", "21.07", "16.88", "13.52",
    "10.83", "8.68", "6.95", "5.57", "4.47", "3.58", "2.87", "2.31", "1.85", "1.49",
]  # fmt: skip


def totals(pruner: Pruner, shapes: Shapes, levels: int) -> list[int]:
    """Sum what each level keeps."""
    return [sum(level.values()) for level in pruner.plan(shapes, levels)]


def test_the_ladder_of_lenet_20_20_10() -> None:
    kept = totals(imp(allocation=LayerRates(HALF)), LENET, 20)
    assert tuple(kept) == LADDER
    assert [f"{100 * count / 266200:.2f}" for count in kept[:20]] == PRINTED
    assert [f"{100 * kept[level] / 266200:.1f}" for level in (3, 7, 9, 12, 15, 18)] == [
        "51.3", "21.1", "13.5", "7.0", "3.6", "1.9",
    ]  # fmt: skip


def test_the_ladder_is_n_minus_floor_of_pn_plus_half_in_every_layer() -> None:
    plan = imp(allocation=LayerRates(HALF)).plan(LENET, 20)
    for before, after in pairwise(plan):
        for name in LENET:
            pruned = 2 * before[name] if name != "output.weight" else before[name]
            assert after[name] == before[name] - (2 * pruned + 10) // 20, "floor(n/5 + 1/2) and floor(n/10 + 1/2)"


@pytest.mark.parametrize(("percent", "rounds"), [(50, 4), (20, 8), (10, 11), (5, 14), (3.6, 15), (2, 18), (1, 21)])
def test_the_rounds_that_a_density_takes_at_one_rate(percent: float, rounds: int) -> None:
    kept = totals(imp(allocation=Uniform()), {"w": (1000, 1000)}, rounds)
    assert kept[rounds] <= percent * 10_000 < kept[rounds - 1]


@pytest.mark.parametrize(
    ("model", "size", "labels"),
    [
        ("conv-2", 4_300_992, {11: "8.8", 14: "4.6"}),
        ("conv-4", 2_425_024, {11: "11.1", 12: "9.2"}),
        ("conv-6", 2_261_184, {7: "26.6", 10: "15.3"}),
    ],
)
def test_the_labels_of_the_convolutional_networks(model: str, size: int, labels: dict[int, str]) -> None:
    module = build(model, (3, 32, 32), 10)
    params = dict(module.named_parameters())
    prunable = choose(params, kinds(module)).prunable
    rates = LayerRates(layer_multipliers(model, module))
    kept = totals(imp(allocation=rates), {name: tuple(params[name].shape) for name in prunable}, 14)
    assert kept[0] == size
    assert {level: f"{100 * kept[level] / size:.1f}" for level in labels} == labels


def test_a_tenth_in_ten_equal_rounds() -> None:
    kept = totals(imp(allocation=Uniform(), schedule=geometric(0.1, 10)), LENET, 10)
    assert kept == [266200, 211450, 167961, 133416, 105976, 84180, 66867, 53115, 42190, 33513, 26620]
    assert totals(imp(allocation=Uniform(), schedule=geometric(0.1, 10)), LENET, 11)[11] == 26620, "and stays there"


def test_p_to_the_one_over_n_is_the_keep_fraction_of_a_round() -> None:
    cuts = [geometric(Fraction(1, 10), 10)(level).density or 0 for level in range(11)]
    keeps = {f"{float(after / before):.9f}" for before, after in pairwise(cuts)}
    assert keeps == {"0.794328235"}
    assert cuts[0] == 1
    assert cuts[10] == Fraction(1, 10), "exactly"


def test_one_shot_is_one_cut_and_its_ladder_has_the_ladders_counts() -> None:
    assert totals(one_shot(0.2, allocation=LayerRates(HALF)), LENET, 1) == [266200, 53240]
    many = one_shot(allocation=LayerRates(HALF), schedule=ladder())
    assert tuple(totals(many, LENET, 20)) == LADDER
    params = {name: torch.randn(shape, generator=torch.Generator().manual_seed(1)) for name, shape in LENET.items()}
    previous = ones(params, LENET)
    for level in (1, 7, 15):
        found = many.prune(level, params, ones(params, LENET), Evidence())
        assert sum(counts(found).values()) == LADDER[level]
        assert nested(found, previous), "one ranking, so the cuts nest"
        previous = found


def test_iterative_magnitude_pruning_by_hand() -> None:
    """Section 2: train, prune the smallest p % of the survivors of each layer, reset the rest to theta_0, repeat."""
    rng = torch.Generator().manual_seed(0)
    theta_0 = {name: torch.randn(shape, generator=rng) for name, shape in LENET.items()} | {"bias": torch.ones(10)}
    init, pruner = Snapshot(0, theta_0), imp(allocation=LayerRates(HALF))
    masks = ones(theta_0, LENET)
    for level in range(1, 6):
        start = masked(init, masks)
        trained = {name: value + torch.randn(value.shape, generator=rng) for name, value in start.params.items()}
        end = masked(Snapshot(1000, trained), masks)
        found = pruner.prune(level, end.params, masks, Evidence())
        for name, mask in found.items():
            left = end.params[name].abs()
            assert float(left[mask].min()) >= float(left[masks[name] & ~mask].max())
        assert nested(found, masks)
        assert f"{100 * density(found):.2f}" == PRINTED[level]
        ticket = masked(restart(pruner.rewind, init=init, at_step=None, end=end), found)
        assert ticket.step == 0
        assert ticket.optimizer is None
        for name, mask in found.items():
            assert torch.equal(ticket.params[name][mask], theta_0[name][mask]), "bit for bit theta_0"
            assert not ticket.params[name][~mask].any()
        assert torch.equal(ticket.params["bias"], theta_0["bias"]), "biases are reset too, and not pruned"
        masks = found


@pytest.mark.parametrize("level", [1, 3, 7, 12])
def test_a_density_stands_where_the_ladder_passes_it(level: int) -> None:
    rates, sizes = LayerRates(HALF), {"fc1.weight": 235_200, "fc2.weight": 30_000, "output.weight": 1_000}
    passed = imp(allocation=rates).plan(LENET, level)[level]
    found = rates.plan(LENET, sizes, Cut(keep=LADDER[level]))
    assert sum(found.values()) == LADDER[level]
    assert all(abs(found[name] - passed[name]) <= 3 for name in LENET), "but for the ladder's own roundings"
