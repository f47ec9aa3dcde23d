"""GraSP (Wang et al. 2020, section 4) and its variant by magnitude (Frankle et al. 2021, section 3)."""

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import hessian
from torch.func import grad
from torch.nn import functional

from tombola.prune.criteria.grasp import grasp, grasp_magnitude
from tombola.prune.evidence import Evidence
from tombola.types import Params

RNG = torch.Generator().manual_seed(0)
PARAMS = {
    n: 2 * torch.randn(s, generator=RNG, dtype=torch.float64) for n, s in {"a": (4, 3), "b": (4,), "c": (3, 4)}.items()
}
DENSE = {n: torch.ones_like(PARAMS[n], dtype=torch.bool) for n in ("a", "c")}
MASKS = {n: torch.rand(m.shape, generator=RNG) < 0.6 for n, m in DENSE.items()}
X, Y = torch.randn(12, 3, generator=RNG, dtype=torch.float64), torch.randint(3, (12,), generator=RNG)


def forward(values: Params, x: Tensor) -> Tensor:
    """Give the outputs of a small tanh network."""
    return functional.linear(functional.linear(x, values["a"], values["b"]).tanh(), values["c"])


def evidence(*cuts: int) -> Evidence:
    """Cut the examples into batches."""
    batches = list(zip(X.split(cuts), Y.split(cuts), strict=True))
    return Evidence(forward=forward, loss=functional.cross_entropy, batches=batches)


def loss_of(vector: Tensor, masks: dict[str, Tensor]) -> Tensor:
    """Give the loss as a function of the weights that are left, one after another."""
    values = dict(PARAMS)
    for name, mask in masks.items():
        values[name] = torch.zeros_like(PARAMS[name]).masked_scatter(mask, vector[: int(mask.sum())])
        vector = vector[int(mask.sum()) :]
    return functional.cross_entropy(forward(values, X) / 200, Y)


@pytest.mark.parametrize("cuts", [(12,), (5, 4, 3), (1,) * 12])
@pytest.mark.parametrize("masks", [DENSE, MASKS], ids=["dense", "masked"])
def test_it_is_the_weight_times_the_explicit_hessian_times_the_gradient(
    masks: dict[str, Tensor], cuts: tuple[int, ...]
) -> None:
    w = torch.cat([PARAMS[n][m] for n, m in masks.items()])
    expected = w * (hessian(lambda v: loss_of(v, masks), w) @ grad(loss_of)(w, masks))
    for criterion, wanted in ((grasp, expected), (grasp_magnitude, expected.abs())):
        found = criterion(PARAMS, masks, evidence(*cuts))
        together = torch.cat([found[n][m] for n, m in masks.items()])
        assert torch.allclose(together, wanted, rtol=1e-9, atol=float(wanted.abs().max()) * 1e-12)
        assert all(bool((found[n][~m] == -torch.inf).all()) for n, m in masks.items())
    assert bool((expected < 0).any()), "the two differ"
    assert bool((expected > 0).any())


def test_the_flow_falls_by_twice_the_score_as_the_weight_goes() -> None:
    """The sign: the derivative of the squared norm of the gradient along a weight's removal is -2 w (H g)."""
    w = torch.cat([PARAMS[n][m] for n, m in DENSE.items()])
    scores = torch.cat([s.reshape(-1) for s in grasp(PARAMS, DENSE, evidence(12)).values()])
    for i in torch.argsort(scores.abs(), descending=True)[:5].tolist():
        step = torch.zeros_like(w)
        step[i] = 1e-4 * w[i]
        up, down = (grad(loss_of)(w + s, DENSE).square().sum() for s in (step, -step))
        assert float((down - up) / 2e-4) == pytest.approx(-2 * float(scores[i]), rel=1e-4)


def test_a_loss_without_curvature_has_no_score() -> None:
    """Also where the loss is linear, so that its gradient has no graph."""
    given = Evidence(
        forward=lambda v, x: x @ v["w"], loss=lambda z, _: z.mean(), batches=[(torch.eye(2), torch.zeros(2))]
    )
    found = grasp({"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([True, False])}, given)["w"]
    assert found.tolist() == [0.0, -torch.inf]
    assert grasp({"w": torch.ones(2)}, {}, given) == {}
