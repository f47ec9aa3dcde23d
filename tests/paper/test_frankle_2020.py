"""Linear mode connectivity and the lottery ticket hypothesis (Frankle et al. 2020): rewinding to step k."""

import torch

from tombola.prune.evidence import Evidence
from tombola.prune.masks import ones
from tombola.prune.pruner import imp
from tombola.prune.rewinding import masked, restart, rewind_to_step
from tombola.types import Snapshot


def test_algorithm_2_prunes_by_the_end_and_restarts_from_step_k() -> None:
    rng = torch.Generator().manual_seed(0)
    run = {
        k: Snapshot(k, {"w": torch.randn(20, 10, generator=rng)}, {"mean": torch.full((1,), k)}) for k in (0, 50, 900)
    }
    pruner = imp("0.5", rewind=rewind_to_step(50))
    found = pruner.prune(1, run[900].params, ones(run[0].params, ["w"]), Evidence())["w"]
    end = run[900].params["w"].abs()
    assert torch.equal(found, end >= end.reshape(-1).sort().values[100])
    ticket = masked(restart(pruner.rewind, init=run[0], at_step=run[50], end=run[900]), {"w": found})
    assert ticket.step == 50, "the schedule and the data order go on from k"
    assert torch.equal(ticket.params["w"][found], run[50].params["w"][found]), "theta_k, bit for bit"
    assert not ticket.params["w"][~found].any()
    assert ticket.buffers["mean"] == 50
    assert ticket.optimizer is None, "fresh, as in the authors' code"


def test_step_zero_is_the_original_hypothesis() -> None:
    init, end = Snapshot(0, {"w": torch.ones(3)}), Snapshot(9, {"w": torch.zeros(3)})
    assert restart(rewind_to_step(0), init=init, at_step=None, end=end) == init
