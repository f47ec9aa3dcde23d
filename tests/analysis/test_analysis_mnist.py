"""A short real run: what training does to LeNet-300-100 on MNIST, as far as it is safe to say."""

from functools import cache

import pytest
import torch

from tombola.analysis.alignment import align, permuted
from tombola.analysis.conjecture import Conjecture, Verdict, conjecture
from tombola.analysis.connectivity import path
from tombola.analysis.family import Observed, one_shot_masks
from tombola.analysis.movement import movement
from tombola.analysis.overlap import agreement
from tombola.analysis.paths import effective
from tombola.analysis.signs import flips
from tombola.analysis.supermask import supermasks
from tombola.analysis.survival import survival
from tombola.data import Dataset, Split, load, split
from tombola.errors import DataMissing
from tombola.models import build, groups, initial, view
from tombola.seeds import generator
from tombola.train.recipe import Recipe
from tombola.train.sparse import SparseTrainer
from tombola.types import Params, Seed, Snapshot, TrainJob

COUNTS = {"fc1.weight": 235_200 // 5, "fc2.weight": 30_000 // 5, "output.weight": 1000 // 3}
STEPS, FAMILIES = 300, 3
RECIPE = Recipe(iterations=STEPS, batch_size=60, lr=1.2e-3, eval_every=STEPS)


def network() -> torch.nn.Module:
    return build("lenet-300-100", (1, 28, 28), 10)


@cache
def data() -> Dataset | str:
    try:
        return load("mnist")
    except DataMissing as missing:
        return f"MNIST is not on this machine: {missing}"


@cache
def parts() -> Split:
    found = data()
    if isinstance(found, str):
        pytest.skip(found)
    return split(found, Seed(0))


@cache
def families() -> tuple[Observed, ...]:
    """Three initialisations, each trained in two data orders."""
    held = parts()
    trainer = SparseTrainer(network, lambda _: held, RECIPE)
    found = []
    for replicate in range(FAMILIES):
        seeds = [Seed(0, replicate, order) for order in range(2)]
        begin = initial(network, seeds[0])
        ends = trainer([TrainJob(begin, {}, seed, STEPS) for seed in seeds])
        found.append(Observed(replicate, begin.params, tuple(one.end.params for one in ends), tuple(COUNTS)))
    return tuple(found)


def accuracy(params: Params) -> float:
    """Of the first 2,000 test examples."""
    module = network()
    with torch.no_grad():
        outputs = view(module, Snapshot(0, params)).forward({}, parts().test_x[:2000])
    return float((outputs.argmax(1) == parts().test_y[:2000]).double().mean())


@cache
def panel() -> Conjecture:
    units = groups(network(), "neurons", torch.zeros(1, 1, 28, 28))
    return conjecture(families(), COUNTS, seed=Seed(0), draws=3, evaluate=accuracy, groups=units)


def test_large_initial_weights_survive_and_keep_their_signs() -> None:
    for one in families():
        masks = one_shot_masks(one.ends[0], COUNTS)
        for found in survival(one.theta_0, masks).values():
            assert found.auc is not None
            assert found.auc > 0.5
            assert found.mean_kept is not None
            assert found.mean_pruned is not None
            assert found.mean_kept > found.mean_pruned
        for flipped in flips(one.theta_0, one.ends[0], masks).values():
            assert flipped.rate_kept is not None
            assert flipped.rate is not None
            assert flipped.rate_kept < flipped.rate
        assert all(found.correlation is not None for found in movement(one.theta_0, one.ends[0], COUNTS).values())


def test_pixels_that_are_always_black_are_not_counted_among_flips() -> None:
    one, held = families()[0], parts()
    black = int((held.train_x.flatten(1) == 0).all(0).sum())
    found = flips(one.theta_0, one.ends[0], one_shot_masks(one.ends[0], COUNTS))
    assert found["fc1.weight"].unmoved >= 300 * black > 0


def test_the_panel_measures_all_but_the_reinit_gap() -> None:
    found = panel()
    measured = {name for name, one in found.measurements.items() if one.mean is not None}
    assert measured == {"survival", "signs", "overlap", "supermask"}
    assert found.verdict is not Verdict.CANNOT_TELL
    for name in ("survival", "overlap"):
        nulls = found.measurements[name].null
        assert min(nulls) > (0.5 if name == "survival" else 0), "most of it is mechanical"


def test_the_same_initialisation_shares_more_than_another() -> None:
    found = panel().between
    assert found is not None
    assert found.aligned is not None
    same = agreement(*(one_shot_masks(end, COUNTS) for end in families()[0].ends))
    other = agreement(*(one_shot_masks(one.ends[0], COUNTS) for one in families()[:2]))
    assert all(same[name].jaccard > other[name].jaccard for name in COUNTS)
    assert 0.9 < found.layers["fc1.weight"][0] < 1.1, "given its inputs, the first layer of another shares nothing"
    assert found.aligned > found.raw


def test_supermasks_that_keep_signs_beat_random_ones() -> None:
    one = families()[0]
    names = ("large-final-same-sign", "random")
    draw = generator(Seed(0), "control", "test")
    found = supermasks(one.theta_0, one.ends[0], COUNTS, accuracy, generator=draw, criteria=names)
    assert found["large-final-same-sign"].accuracy > found["random"].accuracy + 0.2


def test_two_orders_of_one_start_are_connected_and_alignment_lowers_the_barrier_of_two() -> None:
    first, second = families()[:2]
    units = groups(network(), "neurons", torch.zeros(1, 1, 28, 28))

    def barrier(one: Params, other: Params) -> float:
        ends = (Snapshot(STEPS, params) for params in (one, other))
        return path(*ends, lambda at: 1 - accuracy(at.params), 7).barrier

    orders = barrier(*first.ends[:2])
    apart = barrier(first.ends[0], second.ends[0])
    order = align(first.ends[0], second.ends[0], units, generator(Seed(0), "control", "test"))
    aligned = barrier(first.ends[0], permuted(second.ends[0], units, order))
    assert orders < 0.02, "stable at initialisation, as Frankle et al. (2020) find for this network"
    assert orders < apart
    assert aligned < apart


def test_nearly_all_survivors_of_a_mild_cut_are_on_a_path() -> None:
    masks = one_shot_masks(families()[0].ends[0], COUNTS)
    found = effective(network(), torch.zeros(1, 1, 28, 28), masks)
    assert 0.99 * found.density < found.effective_density <= found.density
