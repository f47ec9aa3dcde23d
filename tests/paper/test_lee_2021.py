"""Layer-adaptive sparsity for the magnitude-based pruning (Lee et al. 2021): LAMP."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.errors import InvalidScores
from tombola.prune.allocation import LAMP
from tombola.prune.allocation.lamp import lamp_scores
from tombola.prune.evidence import Evidence
from tombola.prune.masks import counts
from tombola.prune.pruner import one_shot


def by_definition(weights: list[float]) -> list[float]:
    """Equation 6, word for word, for weights in ascending order."""
    return [w**2 / sum(v**2 for v in weights[u:]) for u, w in enumerate(weights)]


def test_the_golden_list() -> None:
    found = lamp_scores(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.ones(4, dtype=torch.bool))
    assert [round(value, 5) for value in found.tolist()] == [0.03333, 0.13793, 0.36, 1.0]


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30, unique=True), st.randoms())
@settings(deadline=None)
def test_scores_are_the_definition_in_any_order(weights: list[float], random: object) -> None:
    expected = dict(zip(sorted(weights), by_definition(sorted(weights)), strict=True))
    random.shuffle(weights)  # type: ignore[attr-defined]
    found = lamp_scores(torch.tensor(weights, dtype=torch.float64), torch.ones(len(weights), dtype=torch.bool))
    assert found.tolist() == pytest.approx([expected[w] for w in weights], rel=1e-12)
    assert float(found.max()) == 1.0
    in_order = found[torch.tensor(weights, dtype=torch.float64).argsort()]
    assert bool((in_order.diff() >= 0).all()), "the order within a layer is magnitude's"


def test_pruned_weights_are_out_of_the_sums() -> None:
    mask = torch.tensor([True, False, True])
    found = lamp_scores(torch.tensor([3.0, 100.0, 4.0]), mask)
    assert found.tolist() == [9 / 25, -torch.inf, 1.0]


def test_every_layer_keeps_its_largest_weight() -> None:
    rng = torch.Generator().manual_seed(0)
    params = {"big": 100 * torch.randn(1000, generator=rng), "tiny": 1e-6 * torch.randn(50, generator=rng)}
    params["zero"] = torch.zeros(40)
    names = tuple(params)
    for keep in ("3/1090", "10/1090", "0.5"):
        found = one_shot(keep, allocation=LAMP()).prune_dense(1, params, names, Evidence())
        assert all(count >= 1 for count in counts(found).values())
        assert found["tiny"][params["tiny"].abs().argmax()]
        assert found["big"][params["big"].abs().argmax()]


def test_lamp_does_not_see_a_layers_scale() -> None:
    rng = torch.Generator().manual_seed(0)
    params = {"a": torch.randn(300, generator=rng), "b": torch.randn(200, generator=rng)}
    scaled = {"a": params["a"] * 64, "b": params["b"]}
    found = [one_shot("0.1", allocation=LAMP()).prune_dense(1, p, "ab", Evidence()) for p in (params, scaled)]
    assert torch.equal(found[0]["a"], found[1]["a"])
    assert torch.equal(found[0]["b"], found[1]["b"])


@pytest.mark.parametrize("bad", [-1.0, torch.inf])
def test_scores_that_are_no_magnitudes_are_refused(bad: float) -> None:
    scores, masks = {"w": torch.tensor([1.0, bad])}, {"w": torch.ones(2, dtype=torch.bool)}
    with pytest.raises(InvalidScores, match="lamp squares the scores, and some of 'w' are negative or infinite"):
        LAMP().place(scores, masks, {"w": 1}, None)
