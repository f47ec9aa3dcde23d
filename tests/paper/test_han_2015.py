"""Learning both weights and connections (Han et al. 2015): train, prune by magnitude, train what is left."""

import torch

from tombola.prune.evidence import Evidence
from tombola.prune.masks import nested, ones
from tombola.prune.pruner import train_prune_finetune
from tombola.prune.rewinding import masked, restart
from tombola.types import Snapshot


def test_survivors_keep_their_trained_weights_and_the_smallest_are_removed() -> None:
    rng = torch.Generator().manual_seed(0)
    init = Snapshot(0, {"w": torch.randn(50, 4, generator=rng)})
    pruner, masks = train_prune_finetune(), ones(init.params, ["w"])
    for level in (1, 2, 3):
        end = masked(Snapshot(100 * level, {"w": torch.randn(50, 4, generator=rng)}), masks)
        found = pruner.prune(level, end.params, masks, Evidence())
        start = masked(restart(pruner.rewind, init=init, at_step=None, end=end), found)
        assert nested(found, masks)
        assert torch.equal(start.params["w"][found["w"]], end.params["w"][found["w"]])
        left, gone = end.params["w"].abs()[found["w"]], end.params["w"].abs()[masks["w"] & ~found["w"]]
        assert float(left.min()) >= float(gone.max())
        assert start.step == 100 * level, "training goes on where it stopped"
        masks = found
    assert int(masks["w"].sum()) == 102, "200, 160, 128, 102"
