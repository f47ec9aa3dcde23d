"""Second derivatives: equal to the Hessian's where a theorem says so, and not elsewhere."""

import math
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, jacrev
from torch.nn import functional

from tombola.errors import InvalidValue, MissingEvidence
from tombola.models import view
from tombola.prune.curvature import (
    Examples,
    examples,
    ggn_diagonal,
    grams,
    hutchinson_diagonal,
    mean_gradient,
    output_factor,
    rows,
)
from tombola.prune.curvature import blocks as blocks_module
from tombola.prune.evidence import Evidence
from tombola.prune.masks import apply
from tombola.types import Masks, Snapshot


def evidence_of(module: nn.Module, x: Tensor, y: Tensor, loss: Callable[..., Tensor] = functional.cross_entropy) -> Any:
    """Give (params, evidence, masks that keep two thirds) of a network in float64."""
    module = module.double()
    snapshot = Snapshot(0, dict(module.named_parameters()), dict(module.named_buffers()))
    seen = view(module, snapshot)
    rng = torch.Generator().manual_seed(7)
    params = {name: value.detach() for name, value in module.named_parameters()}
    masks = {n: torch.rand(v.shape, generator=rng) < 0.67 for n, v in params.items()}
    half = max(1, len(x) // 2)
    return params, masks, Evidence(
        forward=seen.forward, uses=seen.uses, stages=seen.stages, loss=loss, generator=rng,
        batches=[(x[:half], y[:half]), (x[half:], y[half:])],
    )  # fmt: skip


def hessian_of(given: Examples, evidence: Evidence) -> dict[str, Tensor]:
    """Give each tensor's own block of the exact Hessian of the mean loss, ``[n, n]``."""
    inputs, targets = (torch.cat(parts) for parts in zip(*given.batches, strict=True))
    found = {}
    for name in given.names:

        def value(one: Tensor, name: str = name) -> Tensor:
            return evidence.loss(evidence.forward({**given.values, name: one}, inputs), targets)  # type: ignore[misc]

        size = given.values[name].numel()
        found[name] = jacrev(grad(value))(given.values[name]).reshape(size, size)
    return found


def images(count: int = 6) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    return torch.randn(count, 2, 6, 6, dtype=torch.float64, generator=rng), torch.arange(count) % 3


def vectors(count: int = 7) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(4)
    return torch.randn(count, 5, dtype=torch.float64, generator=rng), torch.arange(count) % 3


def mlp(unit: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 6), unit, nn.Linear(6, 4), unit, nn.Linear(4, 3))


def conv(**extra: Any) -> nn.Module:
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 2, **extra), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    net(torch.randn(8, 2, 6, 6))
    return net


PIECEWISE = {
    "relu": (lambda: mlp(nn.ReLU()), vectors),
    "leaky": (lambda: mlp(nn.LeakyReLU(0.2)), vectors),
    "conv": (conv, images),
    "conv grouped": (lambda: conv(groups=2), images),
    "conv strided": (lambda: conv(stride=2, padding=1, dilation=2), images),
    "conv circular": (lambda: conv(padding=1, padding_mode="circular"), images),
    "conv 1d": (lambda: nn.Sequential(nn.Conv1d(5, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3, 3)),
                lambda: (vectors()[0][..., None], vectors()[1])),
    "positions": (lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)), images),
}  # fmt: skip


@pytest.mark.parametrize("case", PIECEWISE)
@pytest.mark.parametrize("fast", [True, False])
def test_the_diagonal_is_the_hessians_where_every_weight_acts_piecewise_linearly(case: str, fast: bool) -> None:
    net, data = PIECEWISE[case]
    params, masks, evidence = evidence_of(net(), *data())
    given = examples(params, masks, evidence)
    found = ggn_diagonal(given, evidence if fast else replace(evidence, uses=None))
    for name, want in hessian_of(given, evidence).items():
        worst = (found[name].reshape(-1) - want.diagonal()).abs().max()
        assert worst < 1e-12, f"{name}: {worst}"


def test_the_diagonal_is_not_the_hessians_with_tanh() -> None:
    params, masks, evidence = evidence_of(mlp(nn.Tanh()), *vectors())
    given = examples(params, masks, evidence)
    found, want = ggn_diagonal(given, evidence), hessian_of(given, evidence)
    flat = torch.cat([found[name].reshape(-1) for name in masks])
    exact = torch.cat([want[name].diagonal() for name in masks])
    assert (flat - exact).norm() / exact.norm() > 0.1


class Shares(nn.Module):
    """Uses one layer twice, and by itself once more where asked."""

    def __init__(self, *, directly: bool) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.inner, self.out, self.directly = nn.Linear(5, 5), nn.Linear(5, 3), directly

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.inner(x).tanh())
        if self.directly:
            x = x + functional.linear(x, self.inner.weight)
        found: Tensor = self.out(x.tanh())
        return found


class AlongTheSecond(nn.Module):
    """Gives its layer the examples along the second axis."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.inner, self.out = nn.Linear(2, 3), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(self.inner(x.reshape(-1, 4, 2).transpose(0, 1)).transpose(0, 1).flatten(1).relu())
        return found


@pytest.mark.parametrize("net", [Shares(directly=False), Shares(directly=True), AlongTheSecond()])
def test_uses_give_what_examples_by_themselves_give(net: nn.Module) -> None:
    x, y = vectors()
    x = x if isinstance(net, Shares) else torch.cat([x, x[:, :3]], 1)
    params, masks, evidence = evidence_of(net, x, y)
    given = examples(params, masks, evidence)
    fast, slow = ggn_diagonal(given, evidence), ggn_diagonal(given, replace(evidence, uses=None))
    for name in masks:
        assert torch.allclose(fast[name], slow[name], rtol=1e-12, atol=1e-15), name
    layered = {one.name for one in rows(given, evidence) if one.plain is None}
    assert ("inner.weight" in layered) == (isinstance(net, Shares) and not net.directly)
    assert "out.weight" in layered


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_memory_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, data = PIECEWISE["relu" if kind == "linear" else "conv grouped"]
    params, masks, evidence = evidence_of(net(), *data())
    given = examples(params, masks, evidence)
    wide = {gram.name: gram for gram in grams(given, masks, evidence, 4)}
    diagonal = ggn_diagonal(given, evidence)
    monkeypatch.setattr(import_module("tombola.prune.curvature.rows"), "BYTES", 1)
    monkeypatch.setattr(blocks_module, "BYTES", 8 * 4 * 4 * 2)
    narrow = list(grams(given, masks, evidence, 4))
    assert len(narrow) > len(wide)
    for name, gram in wide.items():
        joined = torch.cat([one.matrices for one in narrow if one.name == name])
        assert torch.allclose(joined, gram.matrices, rtol=1e-12, atol=1e-15)
        assert torch.equal(torch.cat([one.index for one in narrow if one.name == name]), gram.index)
    again = ggn_diagonal(given, evidence)
    assert all(torch.allclose(again[name], diagonal[name], rtol=1e-12) for name in masks)


def test_blocks_are_those_of_the_hessian_of_a_weight_that_acts_linearly() -> None:
    params, masks, evidence = evidence_of(mlp(nn.ReLU()), *vectors())
    masks = {"4.weight": masks["4.weight"]}
    given = examples(params, masks, evidence)
    (gram,) = grams(given, masks, evidence, 5)
    exact = hessian_of(given, evidence)["4.weight"]
    alive = masks["4.weight"].reshape(-1).nonzero().reshape(-1)
    assert torch.equal(gram.index, alive)
    for place, some in enumerate(alive.split(5)):
        want = exact[some][:, some]
        assert torch.allclose(gram.matrices[place, : len(some), : len(some)], want, rtol=1e-10, atol=1e-14)
        assert not gram.matrices[place, len(some) :].any()


@pytest.mark.parametrize("size", [(100, 128), (266_200, 64), (25_000_000, 32)])
def test_blocks_become_smaller_with_the_network(size: tuple[int, int]) -> None:
    assert blocks_module.block_size(size[0]) == size[1]


def test_the_factor_of_cross_entropy_and_of_squared_errors_are_those_known() -> None:
    z, y = (
        torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(8)),
        torch.tensor([0, 1, 2, 0]),
    )
    p = z.softmax(1)
    known = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]
    found = output_factor(functional.cross_entropy, z, y)
    assert torch.allclose(found @ found.mT, known @ known.mT, atol=1e-15)
    assert found.shape[-1] == 2, "the Hessian of cross-entropy has one zero eigenvalue"
    found = output_factor(functional.mse_loss, z.float(), p.float())
    assert torch.allclose(found @ found.mT, 2 / 3 * torch.eye(3, dtype=torch.float64).expand(4, 3, 3))


def test_the_factor_is_not_lost_where_the_loss_is_nearly_zero() -> None:
    found = output_factor(functional.cross_entropy, torch.tensor([[25.0, 0.0]]), torch.tensor([0]))
    p = 1 / (1 + math.exp(25))
    assert math.isclose(float((found @ found.mT)[0, 0, 0]), p * (1 - p), rel_tol=1e-4)


def test_a_loss_that_is_not_convex_is_refused() -> None:
    params, masks, evidence = evidence_of(mlp(nn.ReLU()), *vectors(), loss=lambda z, _: -z.square().mean())
    with pytest.raises(InvalidValue, match="not convex in the network's outputs"):
        ggn_diagonal(examples(params, masks, evidence), evidence)


def test_the_gradient_is_that_of_the_mean_over_batches_of_any_size() -> None:
    params, masks, evidence = evidence_of(mlp(nn.Tanh()), *vectors(70))
    x, y = vectors(70)
    evidence = replace(evidence, batches=[(x[:3], y[:3]), (x[3:], y[3:])])
    values = {name: value.requires_grad_() for name, value in apply(params, masks).items()}
    wants = torch.autograd.grad(functional.cross_entropy(evidence.forward(values, x), y), list(values.values()))
    found = mean_gradient(examples(params, masks, evidence), evidence)
    assert all(torch.allclose(found[n], want, rtol=1e-10, atol=1e-15) for n, want in zip(values, wants, strict=True))


def diagonal_problem() -> tuple[dict[str, Tensor], Masks, Evidence]:
    """A loss with the diagonal Hessian 1, 2, 3, 4, and a term that couples the two weights that are pruned."""
    curves = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0, 0.0], dtype=torch.float64)
    params = {"w": torch.ones(6, dtype=torch.float64)}
    masks = {"w": torch.tensor([True, True, True, True, False, True])}
    return params, masks, Evidence(
        forward=lambda v, x: (v["w"].square() * curves / 2).sum() + 9 * v["w"][4] * v["w"][5] + 0 * x,
        loss=lambda z, _: z.mean(), generator=torch.Generator().manual_seed(0),
        batches=[(torch.zeros(3, 1, dtype=torch.float64), torch.zeros(3, 1))],
    )  # fmt: skip


def test_probes_are_exact_where_the_hessian_of_the_weights_left_is_diagonal() -> None:
    params, masks, evidence = diagonal_problem()
    found = hutchinson_diagonal(examples(params, masks, evidence), masks, evidence, probes=1)["w"]
    assert found.tolist() == [1.0, 2.0, 3.0, 4.0, 0.0, 0.0]


def test_probes_are_unbiased_and_their_error_falls_with_the_root_of_their_number() -> None:
    params, masks, evidence = evidence_of(mlp(nn.Tanh()), *vectors())
    given = examples(params, masks, evidence)
    exact = {name: value.diagonal() for name, value in hessian_of(given, evidence).items()}
    want = torch.cat([exact[name][masks[name].reshape(-1)] for name in masks])

    def error(probes: int) -> float:
        found = hutchinson_diagonal(given, masks, evidence, probes)
        flat = torch.cat([found[name][masks[name]] for name in masks])
        return float((flat - want).norm() / want.norm())

    few, many = error(20), error(320)
    assert 2 < few / many < 8, "the error of 16 times as many probes is about a quarter"
    assert many < 0.3


def test_probes_follow_the_generator_and_are_asked_for() -> None:
    params, masks, evidence = evidence_of(mlp(nn.Tanh()), *vectors())
    given = examples(params, masks, evidence)
    first, second, other = (
        hutchinson_diagonal(given, masks, replace(evidence, generator=torch.Generator().manual_seed(seed)), 2)
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in masks)
    assert not all(torch.equal(first[name], other[name]) for name in masks)
    with pytest.raises(MissingEvidence):
        hutchinson_diagonal(given, masks, replace(evidence, generator=None))
    with pytest.raises(InvalidValue, match="at least 1"):
        hutchinson_diagonal(given, masks, evidence, 0)


def test_no_example_is_refused() -> None:
    params, masks, evidence = evidence_of(mlp(nn.ReLU()), *vectors())
    with pytest.raises(InvalidValue, match="hold no example"):
        examples(params, masks, replace(evidence, batches=[]))
