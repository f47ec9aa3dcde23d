"""The recipe: what it refuses, its learning rates, and the papers' presets."""

import math
from dataclasses import replace
from typing import Any

import pytest

from tombola.errors import InvalidValue, UnknownName
from tombola.models import registry
from tombola.train.presets import preset
from tombola.train.recipe import AUGMENTATIONS, OPTIMIZERS, SCHEDULES, Recipe


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"optimizer": "adamm"}, "Did you mean 'adam'"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"iterations": 0}, "iterations is 0"),
        ({"iterations": 10.5}, "a whole number"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"eval_every": 0}, "eval_every is 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"warmup": 101}, "never reach"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lr": math.inf}, "lr is inf"),
        ({"gamma": 0.0}, "gamma is 0.0"),
        ({"weight_decay": -1e-4}, "weight_decay is -0.0001"),
        ({"weight_decay": math.nan}, "weight_decay is nan"),
        ({"optimizer": "sgd", "momentum": 1.0}, "momentum is 1.0"),
        ({"optimizer": "sgd", "momentum": math.nan}, "momentum is nan"),
        ({"momentum": 0.9}, "momentum belongs to sgd"),
        ({"nesterov": True}, "momentum belongs to sgd"),
        ({"optimizer": "sgd", "nesterov": True}, "nesterov needs a momentum"),
        ({"schedule": "step"}, "needs milestones"),
        ({"milestones": (10,)}, "needs milestones"),
        ({"schedule": "step", "milestones": (20, 10)}, "increasing"),
        ({"schedule": "step", "milestones": (0, 10)}, "from 1 on"),
        ({"schedule": "step", "milestones": (10, 10)}, "increasing"),
        ({"eval_every": 101}, "Evaluate more often"),
        ({"augment": "crop-flop"}, "Did you mean 'crop-flip'"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        Recipe(**{"iterations": 100, "eval_every": 10, **changes})


def test_unknown_names_are_their_own_error() -> None:
    for changes in ({"optimizer": "x"}, {"schedule": "x"}, {"augment": "x"}):
        with pytest.raises(UnknownName):
            Recipe(iterations=100, **changes)


def test_the_constant_rate() -> None:
    recipe = Recipe(iterations=100, lr=0.3, eval_every=1)
    assert {recipe.lr_at(step) for step in (0, 1, 50, 99, 100, 10_000)} == {0.3}


def test_the_cosine_rate_falls_from_lr_to_zero_at_the_end() -> None:
    recipe = Recipe(iterations=100, lr=0.3, schedule="cosine")
    for step in range(100):
        assert recipe.lr_at(step) == pytest.approx(0.15 * (1 + math.cos(math.pi * step / 100)), rel=1e-12)
    assert recipe.lr_at(0) == 0.3
    assert recipe.lr_at(50) == pytest.approx(0.15)
    # Beyond T the rate stays at that of the last iteration, so fine-tuning still moves.
    assert recipe.lr_at(100) == recipe.lr_at(99) == recipe.lr_at(5000) > 0


def test_the_step_rate_drops_at_each_milestone() -> None:
    recipe = Recipe(iterations=100, lr=1.0, schedule="step", milestones=(40, 70), gamma=0.1)
    expected = {0: 1.0, 39: 1.0, 40: 0.1, 69: 0.1, 70: 0.01, 99: 0.01, 100: 0.01, 999: 0.01}
    assert {step: recipe.lr_at(step) for step in expected} == pytest.approx(expected)


def test_warm_up_is_linear_and_multiplies_the_schedule() -> None:
    constant = Recipe(iterations=100, lr=0.2, warmup=10)
    assert [constant.lr_at(step) for step in range(12)] == pytest.approx(
        [0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.2, 0.2]
    )
    for changes in ({"schedule": "cosine"}, {"schedule": "step", "milestones": (5, 50)}):
        cold, warm = (Recipe(iterations=100, lr=0.2, warmup=w, **changes) for w in (0, 10))
        for step in range(120):
            assert warm.lr_at(step) == pytest.approx(cold.lr_at(step) * min(1.0, (step + 1) / 10))


def test_a_decaying_rate_says_nothing_about_speed() -> None:
    informative = {
        schedule: Recipe(iterations=100, schedule=schedule, milestones=(9,) if schedule == "step" else ())
        for schedule in SCHEDULES
    }
    assert [name for name, recipe in informative.items() if recipe.argmin_is_informative] == ["constant"]


def test_the_digest_differs_with_every_field() -> None:
    base = {"iterations": 100, "optimizer": "sgd", "momentum": 0.5, "schedule": "step", "milestones": (5,)}
    changes = [
        {}, {"iterations": 101}, {"batch_size": 61}, {"lr": 0.1}, {"momentum": 0.6}, {"nesterov": True},
        {"weight_decay": 0.1}, {"milestones": (6,)}, {"gamma": 0.2}, {"warmup": 1}, {"eval_every": 99},
        {"schedule": "constant", "milestones": ()}, {"optimizer": "adam", "momentum": 0.0},
        {"augment": "crop-flip"},
    ]  # fmt: skip
    digests = [Recipe(**{**base, **change}).digest for change in changes]
    assert len(set(digests)) == len(changes)
    assert Recipe(**base).digest == digests[0]


def test_recipes_from_before_there_was_augmentation_keep_their_digest() -> None:
    assert "augment" not in Recipe(iterations=100).as_json()
    assert Recipe(iterations=100, augment="crop-flip").as_json()["augment"] == "crop-flip"
    digests = {
        ("lenet-300-100", "mnist"): "72a8fede09d35451",
        ("conv-2", "cifar-10"): "2a55f1e3bbc112b4",
        ("resnet-20", "mnist"): "85f4dbbf28c9fd21",
        ("vgg-16", "digits"): "391d8543f7d460ad",
    }
    assert {case: preset(*case).recipe().digest for case in digests} == digests


def test_only_a_recipe_that_augments_is_augmented() -> None:
    assert {kind: Recipe(iterations=100, augment=kind).augmented for kind in AUGMENTATIONS} == {
        "none": False,
        "crop-flip": True,
    }


@pytest.mark.parametrize("model", registry())
@pytest.mark.parametrize("data", ["cifar-10", "mnist", "digits", "mine.npz"])
def test_residual_networks_and_vggs_see_cifar_10_augmented_and_nothing_else_is(model: str, data: str) -> None:
    wanted = data == "cifar-10" and model in ("resnet-20", "resnet-50", "vgg-11", "vgg-16", "vgg-19")
    found = preset(model, data)
    assert found.recipe().augment == ("crop-flip" if wanted else "none")
    assert ("He et al. (2016), section 4.2" in found.source) == wanted
    assert found.recipe(augment="none") == replace(found.recipe(), augment="none")


def test_networks_that_no_paper_of_tickets_has_take_the_nearest_recipe() -> None:
    assert preset("lenet-5", "mnist").recipe() == preset("lenet-300-100", "mnist").recipe()
    assert preset("resnet-50", "cifar-10").recipe() == preset("resnet-20", "cifar-10").recipe()
    for model in ("lenet-5", "resnet-50"):
        assert preset(model, "mnist").source.startswith("ours")


LENET = {"iterations": 50_000, "optimizer": "adam", "lr": 1.2e-3, "batch_size": 60, "eval_every": 100}
SGD_PRESET = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "schedule": "step", "gamma": 0.1}


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        ("lenet-300-100", "mnist", LENET),
        ("conv-2", "cifar-10", {**LENET, "iterations": 20_000, "lr": 2e-4}),
        ("conv-4", "cifar-10", {**LENET, "iterations": 25_000, "lr": 3e-4}),
        ("conv-6", "cifar-10", {**LENET, "iterations": 30_000, "lr": 3e-4}),
        (
            "resnet-20",
            "cifar-10",
            {**SGD_PRESET, "iterations": 30_000, "batch_size": 128, "milestones": (20_000, 25_000)},
        ),
        ("vgg-19", "cifar-10", {**SGD_PRESET, "iterations": 112_000, "batch_size": 64, "milestones": (56_000, 84_000)}),
    ],
)
def test_the_presets_are_the_papers(model: str, data: str, expected: dict[str, Any]) -> None:
    """Frankle & Carbin (2019), figure 2."""
    whole = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "schedule": "constant", "warmup": 0}
    found = preset(model, data).recipe()
    assert {**whole, **expected} == {name: getattr(found, name) for name in {**whole, **expected}}
    assert "Frankle & Carbin (2019), Figure 2" in preset(model, data).source


def test_milestones_scale_with_the_iterations() -> None:
    assert preset("resnet-20", "cifar-10").recipe(iterations=300).milestones == (200, 250)
    assert preset("vgg-16", "cifar-10").recipe(iterations=400).milestones == (200, 300)
    assert preset("resnet-20", "cifar-10").recipe(milestones=(7,)).milestones == (7,)
    # Short enough, and the drops fall together.
    assert preset("resnet-20", "cifar-10").recipe(iterations=1, eval_every=1).milestones == (1,)


def test_a_short_run_is_still_evaluated_thirty_times() -> None:
    assert preset("lenet-300-100", "mnist").recipe(iterations=300).eval_every == 10
    assert preset("lenet-300-100", "mnist").recipe(iterations=3).eval_every == 1
    assert preset("lenet-300-100", "mnist").recipe(iterations=300, eval_every=7).eval_every == 7


def test_another_optimiser_leaves_the_presets_momentum_behind() -> None:
    for optimizer in OPTIMIZERS:
        changed = preset("resnet-20", "cifar-10").recipe(optimizer=optimizer)
        assert changed.momentum == (0.9 if optimizer == "sgd" else 0.0)
    # One that was asked for is refused, not dropped in silence.
    with pytest.raises(InvalidValue, match="momentum belongs to sgd"):
        preset("resnet-20", "cifar-10").recipe(optimizer="adam", momentum=0.9)


def test_another_schedule_leaves_the_presets_milestones_behind() -> None:
    changed = preset("resnet-20", "cifar-10").recipe(schedule="cosine")
    assert (changed.schedule, changed.milestones) == ("cosine", ())


def test_digits_have_our_own_and_unknown_data_lenets() -> None:
    assert preset("conv-2", "digits").source.startswith("ours")
    mine = preset("my.module:net", "mine.npz").recipe()
    assert (mine.optimizer, mine.lr, mine.batch_size, mine.iterations) == ("adam", 1.2e-3, 60, 2000)
