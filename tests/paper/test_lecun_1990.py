"""LeCun, Denker & Solla, "Optimal Brain Damage" (1990)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import InvalidValue
from tombola.models import view
from tombola.prune.criteria.magnitude import magnitude
from tombola.prune.criteria.obd import obd, obd_first
from tombola.prune.criteria.obd_hutchinson import obd_hutchinson, obd_hutchinson_first
from tombola.prune.criteria.obd_lecun import obd_lecun, obd_lecun_first
from tombola.prune.evidence import Criterion, Evidence
from tombola.prune.layers import Stage
from tombola.prune.masks import ones
from tombola.testing import check_criterion
from tombola.types import Params, Scores, Snapshot

EVERY: dict[str, Criterion] = {
    "obd": obd, "obd_first": obd_first, "obd_lecun": obd_lecun, "obd_lecun_first": obd_lecun_first,
    # A hundred probes, for the examples are few.
    "obd_hutchinson": partial(obd_hutchinson, probes=100),
    "obd_hutchinson_first": partial(obd_hutchinson_first, probes=100),
}  # fmt: skip

SQUARE = [
    Stage("linear", lambda v, x: functional.linear(x, v["in"]), "in"),
    Stage("activation", lambda _, x: x.square()),
    Stage("linear", lambda v, x: functional.linear(x, v["out"]), "out"),
]
"""One unit that squares: z = w_out (w_in x)^2."""


def run(stages: list[Stage], values: Params, x: Tensor) -> Tensor:
    for stage in stages:
        x = stage.apply(values, x)
    return x


def tensor(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def worked() -> tuple[dict[str, Tensor], Evidence]:
    """w_in = 1/2, w_out = 3, x = 2, d = 1: so a = 1, f(a) = 1, z = 3 and E = (d - z)^2 = 4; two examples alike."""
    evidence = Evidence(
        forward=lambda v, x: run(SQUARE, v, x),
        stages=SQUARE,
        loss=functional.mse_loss,
        batches=[(tensor([2.0], [2.0]), tensor([1.0], [1.0]))],
    )
    return {"in": tensor([0.5]), "out": tensor([3.0])}, evidence


def test_the_recursion_by_hand() -> None:
    params, evidence = worked()
    # h_out = 2 x 1^2; E''_a = f'^2 w_out^2 2 + f'' dE/dx = 4 x 9 x 2 + 2 x 12 = 96, h_in = 96 x 2^2.
    found = obd_lecun(params, ones(params, params), evidence)
    assert found["out"].item() == 2.0 * 3.0**2 / 2
    assert found["in"].item() == 384.0 * 0.5**2 / 2
    without = obd_lecun(params, ones(params, params), evidence, levenberg_marquardt=True)
    assert without["in"].item() == 288.0 * 0.5**2 / 2
    # dE/dw_out = 2 (z - d) f(a) = 4, dE/dw_in = 2 (z - d) w_out f' x = 48; deleting w changes E by -g w first.
    first = obd_lecun_first(params, ones(params, params), evidence)
    assert first["out"].item() == -4.0 * 3.0 + 9.0
    assert first["in"].item() == -48.0 * 0.5 + 48.0


def chained(
    net: nn.Module, x: Tensor, y: Tensor, loss: Any = functional.mse_loss
) -> tuple[dict[str, Tensor], Evidence]:
    net = net.double()
    seen = view(net, Snapshot(0, dict(net.named_parameters()), dict(net.named_buffers())))
    params = {name: value.detach() for name, value in net.named_parameters()}
    return params, Evidence(
        forward=seen.forward, uses=seen.uses, stages=seen.stages, loss=loss, batches=[(x, y)],
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


def once(net: nn.Module) -> nn.Module:
    """Set every weight to 1, and every bias to 0."""
    for value in net.parameters():
        nn.init.constant_(value, 1.0 if value.dim() > 1 else 0.0)
    return net


def scaled() -> nn.Module:
    norm = nn.BatchNorm1d(1, eps=0.0)
    net = once(nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), norm, nn.Flatten()))
    norm.weight.data.fill_(1.0)
    norm.load_state_dict({**norm.state_dict(), "running_var": torch.tensor([4.0])})
    return net


@pytest.mark.parametrize(
    ("net", "want", "why"),
    [
        (lambda: nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(2, 1, bias=False)), 10.0,
         "2 x 1^2 + 2 x 2^2; with the cross terms it would be 2 x 3^2"),
        (lambda: nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), nn.AvgPool1d(2), nn.Flatten()), 2.5,
         "the average halves, so a quarter of 10"),
        (lambda: nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), nn.MaxPool1d(2), nn.Flatten()), 8.0,
         "only the larger passes: 2 x 2^2"),
        (lambda: nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), nn.Flatten()), 5.0,
         "two outputs, each with the curvature 2 / 2"),
        (scaled, 1.25, "batch norm halves both: a quarter of 5"),
    ],
)  # fmt: skip
def test_a_shared_weights_curvature_is_the_sum_over_its_uses(
    net: Callable[[], nn.Module], want: float, why: str
) -> None:
    built = net() if net is scaled else once(net())
    x = tensor([[1.0, 2.0]])
    built.double().eval()
    params, evidence = chained(built, x, torch.zeros_like(built(x)))
    found = obd_lecun(params, ones(params, ["0.weight"]), evidence)["0.weight"]
    assert found.item() * 2 == pytest.approx(want, rel=1e-12), why


def test_the_last_layers_curvature_is_exact_and_biases_have_theirs() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(), nn.Linear(5, 3))
    params, evidence = chained(net, x, y, functional.cross_entropy)
    masks = ones(params, ["3.weight", "3.bias"])
    found, want = obd_lecun(params, masks, evidence), obd(params, masks, evidence)
    assert all(torch.allclose(found[name], want[name], rtol=1e-12) for name in masks)
    every = ones(params, params)
    assert (obd_lecun(params, every, evidence, levenberg_marquardt=True)["0.weight"] >= 0).all()
    assert not torch.allclose(obd_lecun(params, every, evidence)["0.weight"], obd(params, every, evidence)["0.weight"])


def test_what_is_no_chain_is_told_what_to_use() -> None:
    params, evidence = worked()
    with pytest.raises(InvalidValue, match="Use 'obd'"):
        obd_lecun(params, ones(params, params), replace(evidence, stages=None))
    with pytest.raises(InvalidValue, match="scale is of none"):
        obd_lecun({**params, "scale": tensor(1.0)}, ones({"scale": tensor(1.0)}, ["scale"]), evidence)


def trained(unit: nn.Module) -> tuple[dict[str, Tensor], Evidence]:
    """A small network, almost at a minimum."""
    torch.manual_seed(3)
    x = torch.randn(60, 6, dtype=torch.float64)
    y = (x[:, :3] + 0.8 * torch.randn(60, 3, dtype=torch.float64)).argmax(1)
    net = nn.Sequential(nn.Linear(6, 8), unit, nn.Linear(8, 3)).double()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    for _ in range(60):
        optimiser.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return chained(net, x, y, functional.cross_entropy)


def rank_correlation(first: Tensor, second: Tensor) -> float:
    ranks = [one.argsort().argsort().double() for one in (first, second)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def flat(scores: Scores) -> Tensor:
    return torch.cat([score.reshape(-1) for score in scores.values()])


@pytest.mark.parametrize("unit", [nn.Tanh(), nn.ReLU()])
def test_saliency_ranks_deletions_better_than_magnitude(unit: nn.Module) -> None:
    params, evidence = trained(unit)
    masks = ones(params, ["0.weight", "2.weight"])
    assert evidence.forward is not None
    assert evidence.batches is not None
    (x, y), losses = evidence.batches[0], []
    for name in masks:
        for place in range(params[name].numel()):
            value = params[name].clone()
            value.view(-1)[place] = 0.0
            losses.append(functional.cross_entropy(evidence.forward({**params, name: value}, x), y))
    true = torch.stack(losses) - functional.cross_entropy(evidence.forward(params, x), y)
    found = {name: rank_correlation(flat(score(params, masks, evidence)), true) for name, score in EVERY.items()}
    size = rank_correlation(flat(magnitude(params, masks, evidence)), true)
    assert min(found.values()) > size, (found, size)
    if isinstance(unit, nn.Tanh):
        # With ReLU a whole deletion crosses kinks, which no derivative sees: there the first order need not help.
        assert found["obd_first"] > found["obd"]
        assert found["obd_hutchinson_first"] > found["obd_hutchinson"]


@pytest.mark.parametrize("name", EVERY)
def test_what_pruned_weights_hold_does_not_matter(name: str) -> None:
    params, evidence = trained(nn.Tanh())
    masks = ones(params, ["0.weight", "2.weight"])
    masks["0.weight"][:, ::2] = False

    def scores(held: float) -> Tensor:
        filled = params["0.weight"].masked_fill(~masks["0.weight"], held)
        again = replace(evidence, generator=torch.Generator().manual_seed(0))
        return flat(EVERY[name]({**params, "0.weight": filled}, masks, again))

    assert torch.equal(scores(0.0), scores(5.0))


@pytest.mark.parametrize("name", EVERY)
def test_contract(name: str) -> None:
    criterion: Any = EVERY[name]
    check_criterion(partial(criterion, probes=2) if "hutchinson" in name else criterion)
