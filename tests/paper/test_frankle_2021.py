"""Missing the mark (Frankle et al. 2021): does it matter which weights are kept, or only how many per layer?"""

import torch

from tombola.prune.controls import Case, shuffle
from tombola.prune.masks import counts
from tombola.types import Snapshot


def test_layerwise_shuffling_puts_every_weight_of_a_layer_on_equal_terms() -> None:
    start = Snapshot(0, {"a": torch.zeros(10), "b": torch.zeros(2, 3)})
    masks = {"a": torch.arange(10) < 3, "b": torch.tensor([[True, True, True], [False, False, True]])}
    one = Case(start, masks, lambda: start, lambda: masks, torch.Generator().manual_seed(0))
    kept_a, kept_b = torch.zeros(10), torch.zeros(2, 3)
    for _ in range(2000):
        _, shuffled = shuffle(one)
        assert counts(shuffled) == {"a": 3, "b": 4}
        kept_a += shuffled["a"]
        kept_b += shuffled["b"]
    assert bool(((kept_a / 2000 - 3 / 10).abs() < 5 * (0.21 / 2000) ** 0.5).all())
    assert bool(((kept_b / 2000 - 4 / 6).abs() < 5 * (0.2223 / 2000) ** 0.5).all())
