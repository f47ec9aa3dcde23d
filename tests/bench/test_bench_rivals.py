"""Every way of training computes what the plain trainer computes; one that does not is seen."""

import pytest
import torch
from bench_kit import small
from torch import nn

from tombola.bench import rivals, rivals_compiled, rivals_jax, rivals_sparseprop
from tombola.bench.equal import TOLERANCE, distance, losses, reference, why_unlike
from tombola.bench.iteration import checked
from tombola.bench.loop import Masks, Ours, TorchLoop, Way, eager, started
from tombola.bench.rivals_csr import CsrLinear
from tombola.bench.workload import Workload
from tombola.errors import InvalidValue
from tombola.sparse.kernels.library import missing

needs_kernels = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def made(name: str, density: float) -> tuple[Way, Masks]:
    work = small()
    masks = work.masks(density)
    way = rivals.make(name, work, masks)
    assert not isinstance(way, str), way
    return way, masks


@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
def test_eager_is_the_plain_trainer(density: float) -> None:
    way, masks = made("eager", density)
    assert losses(way, small()) == reference(small(), masks)


@needs_kernels
@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
def test_ours_has_the_plain_losses(density: float) -> None:
    work = small()
    masks = work.masks(density)
    assert distance(losses(Ours(work, masks), work), reference(work, masks)) < TOLERANCE


@pytest.mark.parametrize("density", [0.9, 0.3, 0.05])
@pytest.mark.parametrize("name", ["prune", "csr"])
def test_pytorchs_own_ways_have_the_plain_losses(name: str, density: float) -> None:
    way, masks = made(name, density)
    assert distance(losses(way, small()), reference(small(), masks)) < TOLERANCE


def test_prune_takes_part_where_nothing_is_pruned() -> None:
    way, _ = made("prune", 1.0)
    assert losses(way, small()) == reference(small(), {})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(rivals_compiled.why_not() is not None, reason=str(rivals_compiled.why_not()))
def test_compiled_has_the_plain_losses_under_one_mask_after_another() -> None:
    for density in (1.0, 0.1):
        way, masks = made("compiled", density)
        assert distance(losses(way, small()), reference(small(), masks)) < TOLERANCE


@pytest.mark.skipif(rivals_sparseprop.why_not() is not None, reason=str(rivals_sparseprop.why_not()))
@pytest.mark.parametrize("density", [0.15, 0.02])
def test_sparseprop_has_the_plain_losses(density: float) -> None:
    way, masks = made("sparseprop", density)
    assert distance(losses(way, small()), reference(small(), masks)) < TOLERANCE


def test_a_rival_without_work_says_so() -> None:
    assert "dense" in str(rivals.make("csr", small(), {}))
    assert "80 %" in str(rivals.make("sparseprop", small(), small().masks(0.5)))


def test_csr_gradient_is_the_masked_dense_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(7, 11, generator=draw), torch.randn(11, 5, generator=draw)
    mask = torch.rand(7, 11, generator=draw) < 0.3
    mask[2] = False  # a row without survivors
    dense = (weight * mask).requires_grad_()
    inputs = x.clone().requires_grad_()
    (dense @ inputs).sin().sum().backward()
    layer = CsrLinear(weight, mask, torch.zeros(7))
    others = x.clone().requires_grad_()
    layer(others).sin().sum().backward()
    layer.hand_over()
    assert dense.grad is not None
    assert layer.values.grad is not None
    torch.testing.assert_close(layer.values.grad, dense.grad[mask])
    torch.testing.assert_close(others.grad, inputs.grad)
    with torch.no_grad():
        layer.values.zero_()
    assert not layer(x).any(), "the values have the weight's memory"


def test_masks_that_are_not_held_are_seen() -> None:
    work, masks = small(), small().masks(0.05)
    unheld = TorchLoop(work, started(work, masks))
    assert "the plain loop has" in str(why_unlike(losses(unheld, work), reference(work, masks)))


def test_another_rate_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    work, masks = small(), small().masks(0.3)
    monkeypatch.setattr("tombola.bench.loop.LR", 1.21e-3)
    assert why_unlike(losses(eager(work, masks), work), reference(work, masks)) is not None


@needs_kernels
def test_a_rival_that_trains_another_network_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(work: Workload, masks: Masks) -> TorchLoop:
        return TorchLoop(work, started(work, masks))

    monkeypatch.setitem(rivals._LOOPS, "prune", forgetful)  # type: ignore[arg-type]
    found = dict(checked(small(), small().masks(0.05), ["eager", "prune"]))
    assert isinstance(found["eager"], TorchLoop)
    assert "does not train the same network" in str(found["prune"])


def test_masks_stay_where_they_are() -> None:
    way, masks = made("eager", 0.1)
    losses(way, small())
    assert isinstance(way, TorchLoop)
    network = way._network
    assert isinstance(network, nn.Module)
    for name, mask in masks.items():
        assert not network.get_parameter(name)[~mask].any()


def test_an_absent_rival_is_an_error_by_name_and_a_sentence_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rivals._WHY_NOT, "jax", lambda: "JAX is not installed: pip install jax")  # type: ignore[index]
    assert [one.rival for one in rivals.absent(["eager", "jax"], by_name=False)] == ["jax"]
    with pytest.raises(InvalidValue, match="pip install jax"):
        rivals.absent(["jax"], by_name=True)


@pytest.mark.skipif(rivals_jax.why_not() is not None, reason=str(rivals_jax.why_not()))
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("density", [1.0, 0.2])
def test_jax_has_every_replicates_plain_losses(density: float) -> None:
    from tombola.bench.replicas import _mapped
    from tombola.types import Seed

    work, seeds = small(), [Seed(0, 0), Seed(0, 1)]
    masks = [work.masks(density, seed) for seed in seeds]
    mapped = rivals_jax.Vmapped(work, masks, seeds)
    for scans in (False, True):
        mapped._scans = scans
        mapped._start()
        for found, mask, seed in zip(_mapped(mapped, work, seeds), masks, seeds, strict=True):
            assert distance(found, reference(work, mask, seed)) < TOLERANCE
