"""SNIP (Lee et al. 2019, equations 5 and 6), and the gradients that every criterion of the first order shares."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import grad
from torch.nn import functional

from tombola.errors import InvalidValue, MissingEvidence
from tombola.prune.criteria.snip import snip
from tombola.prune.evidence import Evidence
from tombola.types import Params

RNG = torch.Generator().manual_seed(0)
PARAMS = {n: torch.randn(s, generator=RNG) for n, s in {"a": (6, 5), "b": (6,), "c": (3, 6), "idle": (2,)}.items()}
MASKS = {n: torch.rand(PARAMS[n].shape, generator=RNG) < 0.7 for n in ("a", "c", "idle")}
X, Y = torch.randn(12, 5, generator=RNG), torch.randint(3, (12,), generator=RNG)


def forward(values: Params, x: Tensor) -> Tensor:
    """Give the outputs of a small network."""
    return functional.linear(functional.linear(x, values["a"], values["b"]).tanh(), values["c"])


def evidence(*cuts: int) -> Evidence:
    """Cut the examples into batches."""
    batches = list(zip(X.split(cuts), Y.split(cuts), strict=True))
    return Evidence(forward=forward, loss=functional.cross_entropy, batches=batches)


def by_switches(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Differentiate with respect to switches on the weights that are left, as the paper defines it, in float64."""

    def loss(switches: dict[str, Tensor]) -> Tensor:
        values = {n: v.double() * switches[n] if n in switches else v.double() for n, v in PARAMS.items()}
        return functional.cross_entropy(forward(values, x.double()), y)

    return {n: g.abs() * MASKS[n] for n, g in grad(loss)({n: m.double() for n, m in MASKS.items()}).items()}


@pytest.mark.parametrize("cuts", [(12,), (4, 4, 4), (1, 9, 2)])
def test_it_is_the_sensitivity_to_a_switch_in_proportion_to_all_however_the_examples_are_cut(
    cuts: tuple[int, ...],
) -> None:
    found = snip(PARAMS, MASKS, evidence(*cuts))
    expected = by_switches(X, Y)
    total = sum(float(e.sum()) for e in expected.values())
    for n, mask in MASKS.items():
        assert torch.allclose(found[n][mask], expected[n][mask] / total, rtol=1e-4, atol=1e-8)
        assert bool((found[n][~mask] == -torch.inf).all())
    assert abs(sum(float(s[MASKS[n]].sum()) for n, s in found.items()) - 1) < 1e-12
    assert bool((found["idle"][MASKS["idle"]] == 0).all()), "what the loss does not depend on scores nothing"


def test_a_pruned_weight_counts_as_zero_whatever_it_holds() -> None:
    strange = {n: torch.where(MASKS[n], v, torch.nan) if n in MASKS else v for n, v in PARAMS.items()}
    for n, scores in snip(strange, MASKS, evidence(12)).items():
        assert torch.equal(scores, snip(PARAMS, MASKS, evidence(12))[n])


def test_training_mode_is_used_where_there_is_one() -> None:
    given = replace(evidence(12), forward_training=lambda values, x: forward(values, 2 * x))
    other = replace(evidence(12), batches=[(2 * X, Y)])
    assert torch.equal(snip(PARAMS, MASKS, given)["a"], snip(PARAMS, MASKS, other)["a"])
    assert not torch.equal(snip(PARAMS, MASKS, given)["a"], snip(PARAMS, MASKS, evidence(12))["a"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_short_floats_are_widened_and_wide_ones_kept(dtype: torch.dtype) -> None:
    """Parameters, buffers, inputs and regression targets share one dtype in the pass."""
    seen = set()

    def watched(values: Params, x: Tensor) -> Tensor:
        seen.update({x.dtype, *(v.dtype for v in values.values())})
        return forward(values, x) + values["mean"]

    given = replace(
        evidence(12), forward=watched, buffers={"mean": torch.zeros(3), "batches": torch.tensor(4)},
        loss=functional.mse_loss, batches=[(X.to(dtype), torch.zeros(12, 3))],
    )  # fmt: skip
    snip({n: v.to(dtype) for n, v in PARAMS.items()}, MASKS, given)
    assert seen == {torch.float64 if dtype is torch.float64 else torch.float32}


def test_it_works_in_every_mode_of_the_caller_and_leaves_no_trace() -> None:
    expected = snip(PARAMS, MASKS, evidence(12))["a"]
    with torch.no_grad():
        assert torch.equal(snip(PARAMS, MASKS, evidence(12))["a"], expected)
    with torch.inference_mode():
        inside = {n: v.clone() for n, v in PARAMS.items()}
        given = replace(evidence(12), batches=[(X.clone(), Y.clone())])
        assert torch.equal(snip(inside, MASKS, given)["a"], expected)
    assert not any(v.requires_grad or v.grad is not None for v in PARAMS.values())
    training = {n: v.clone().requires_grad_() for n, v in PARAMS.items()}
    assert torch.equal(snip(training, MASKS, evidence(12))["a"], expected)
    assert all(v.grad is None for v in training.values())


def test_small_products_are_not_lost() -> None:
    """A product of two numbers of size 1e-25 is zero in float32."""
    given = Evidence(
        forward=lambda v, x: x @ v["w"], loss=lambda z, _: z.mean() * 1e-25, batches=[(torch.eye(2), torch.zeros(2))]
    )
    found = snip({"w": torch.tensor([3e-25, 1e-25])}, {"w": torch.ones(2, dtype=torch.bool)}, given)["w"]
    assert torch.allclose(found, torch.tensor([0.75, 0.25], dtype=torch.float64))


def test_nothing_left_nothing_masked_and_no_gradient_are_no_errors() -> None:
    dead = {n: torch.zeros_like(m) for n, m in MASKS.items()}
    assert all(bool((s == -torch.inf).all()) for s in snip(PARAMS, dead, evidence(12)).values())
    assert snip(PARAMS, {}, evidence(12)) == {}
    flat = replace(evidence(12), forward=lambda _, x: torch.zeros(len(x), 3))
    assert all(bool((s[MASKS[n]] == 0).all()) for n, s in snip(PARAMS, MASKS, flat).items())


def test_what_it_needs_is_named() -> None:
    for field in ("forward", "loss", "batches"):
        with pytest.raises(MissingEvidence, match=f"needs '{field}'"):
            snip(PARAMS, MASKS, replace(evidence(12), **{field: None}))
    with pytest.raises(InvalidValue, match="holds 0 batches without an example"):
        snip(PARAMS, MASKS, replace(evidence(12), batches=[]))
