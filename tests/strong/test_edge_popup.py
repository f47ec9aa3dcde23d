"""Edge-popup from end to end: masks are learned and weights stay as drawn, in linear and convolutional networks."""

from functools import partial

import pytest
import torch

from tombola.data import load as load_data
from tombola.errors import Diverged
from tombola.prune.learned import Popup, Supermask
from tombola.search.named import builder
from tombola.strong.edge_popup import Learned, learn, random_network, summary
from tombola.ticket.canonical import digest
from tombola.train.engines import trainer
from tombola.train.plain import evaluate, load
from tombola.train.recipe import Recipe
from tombola.train.source import Splits
from tombola.train.watch import Unwatched
from tombola.types import ScoreRule, Seed, Step

SPLITS = Splits(partial(load_data, "digits"))
SEEDS = [Seed(4, 0), Seed(4, 1)]


def learned(
    rule: ScoreRule, model: str = "lenet-300-100", iterations: int = 250, share: float = 0.5, **how: object
) -> list[Learned]:
    build = builder(model, SPLITS.dataset)
    recipe = Recipe(iterations=iterations, batch_size=64, eval_every=min(50, iterations))
    train = trainer("plain", build, SPLITS, recipe, "cpu", 1, how.pop("watcher", Unwatched()))  # type: ignore[arg-type]
    return learn(build, train, SEEDS, rule, iterations, share=share, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("density", [0.5, 0.3])
def test_a_random_network_holds_a_good_one_and_no_weight_moves(density: float) -> None:
    found = learned(Popup(density), share=density)
    build = builder("lenet-300-100", SPLITS.dataset)
    for one in found:
        network, names = random_network(build, one.seed, "signed-constant", density)
        assert one.digest == digest(network.params, "")
        assert all(torch.equal(one.weights.params[name], value) for name, value in network.params.items())
        assert one.accuracy > 0.88
        for name in names:
            mask = one.masks[name]
            assert abs(int(mask.sum()) - density * mask.numel()) <= 1, "in the mask that is exported"
            deviation = (2 / (density * mask.shape[1])) ** 0.5
            assert torch.allclose(network.params[name].abs(), torch.tensor(deviation)), "and in the initial scaling"


@pytest.mark.parametrize(
    ("rule", "model"),
    [(Popup(0.5), "lenet-5"), (Supermask(rescale=True), "lenet-300-100"), (Popup(0.4, "global"), "conv-2")],
)
def test_masks_on_plain_weights_give_the_accuracy_that_is_reported(rule: ScoreRule, model: str) -> None:
    """Put together by hand: random weights, masks, and the scale beside them; nothing of the trainer."""
    one = learned(rule, model, iterations=60)[0]
    module = builder(model, SPLITS.dataset)()
    effective = {
        name: value * one.masks[name] * one.scales.get(name, 1.0) if name in one.masks else value
        for name, value in one.weights.params.items()
    }
    load(module, type(one.weights)(0, effective, one.weights.buffers))
    split = SPLITS(one.seed)
    assert evaluate(module, split.test_x, split.test_y)[1] == pytest.approx(one.accuracy)
    assert bool(one.scales) == isinstance(rule, Supermask)


def test_over_all_layers_the_total_is_exact() -> None:
    one = learned(Popup(0.3, "global"), iterations=30)[0]
    total = sum(mask.numel() for mask in one.masks.values())
    assert sum(int(mask.sum()) for mask in one.masks.values()) == round(0.3 * total)


def test_it_is_the_same_again_and_a_ticket() -> None:
    one, two = (learned(Popup(0.5), iterations=40) for _ in range(2))
    assert [a.accuracy for a in one] == [b.accuracy for b in two]
    ticket = one[0].ticket({"model": "lenet-300-100"})
    assert ticket.density == 0.5
    assert ticket.provenance["untrained"] == {"test_accuracy": one[0].accuracy, "trained": False}
    kept = ticket.masks["fc1.weight"]
    assert torch.equal(ticket.start["fc1.weight"][kept], one[0].weights.params["fc1.weight"][kept])
    told = summary(one, Popup(0.5), "signed-constant")
    assert told["mean"] == pytest.approx(sum(told["test_accuracy"]) / 2)
    assert told["low"] <= told["mean"] <= told["high"]
    assert told["layers"]["output.weight"] == {"kept": 500, "total": 1000}


class Stopping:
    """Wants to stop at once."""

    def evaluated(self, job: int, step: Step, loss: float, accuracy: float) -> None:
        """Hear nothing."""

    def stop(self) -> bool:
        return True


def test_an_interrupted_or_diverged_training_is_none() -> None:
    with pytest.raises(KeyboardInterrupt):
        learned(Popup(0.5), iterations=30, watcher=Stopping())
    with pytest.raises(Diverged, match="Lower their learning rate"):
        learned(Popup(0.5, lr=1e30), iterations=60)
