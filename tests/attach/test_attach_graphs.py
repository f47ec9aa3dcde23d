"""Compiled, exported and functional uses, and the pure reference."""

import os
from typing import Any

import pytest
import torch
from attach_kit import backward, batch, graded, half, mlp, revived, stock, train
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from tombola.attach import attach, attached, masked_call
from tombola.errors import InvalidValue

BACKENDS = ["eager", "aot_eager"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_compile_in_one_graph(backend: str, when: str) -> None:
    torch._dynamo.reset()
    model, twin = mlp(), mlp()
    masks, fewer = half(model), half(model, seed=4)
    graphs: list[Any] = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    if when == "before":
        handle = attach(model, masks)
        compiled = torch.compile(model, fullgraph=True, backend=count)
    else:
        compiled = torch.compile(model, fullgraph=True, backend=count)
        handle = attach(compiled, masks)
    assert attached(compiled) is handle
    other = attach(twin, masks)
    plain = torch.optim.AdamW(twin.parameters(), 0.01)
    for new in (None, fewer):
        if new is not None:
            handle.update(new)
            other.update(new)
        train(compiled, optimizer, 4, clip=0.1, after=lambda: _holds(model, handle.masks))
        train(twin, plain, 4, clip=0.1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert len(graphs) == 1, "an update compiles nothing again"


def _holds(model: nn.Module, masks: Any) -> None:
    assert revived(model, masks) == graded(model, masks) == 0


@pytest.mark.skipif(not os.environ.get("TOMBOLA_SLOW"), reason="slow: set TOMBOLA_SLOW=1 to compile with inductor")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compile_with_inductor() -> None:
    torch._dynamo.reset()
    model = mlp()
    masks = half(model)
    handle = attach(model, masks)
    compiled = torch.compile(model, fullgraph=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    train(compiled, optimizer, 3)
    handle.update(half(model, seed=4))
    train(compiled, optimizer, 3, after=lambda: _holds(model, handle.masks))
    assert torch.allclose(compiled(batch()[0]), model(batch()[0]), atol=1e-5)


@pytest.mark.parametrize("strict", [True, False])
def test_export(strict: bool) -> None:
    model = mlp().eval()
    masks = half(model)
    attach(model, masks)
    x = batch()[0]
    program = torch.export.export(model, (x,), strict=strict)
    assert torch.equal(program.module()(x), model(x))
    assert set(program.state_dict) == set(model.state_dict())
    assert not any("bitwise" in str(node.target) or "mul" in str(node.target) for node in program.graph.nodes)


def test_replicates_leave_no_batched_tensor() -> None:
    models = [mlp() for _ in range(3)]
    for seed, model in enumerate(models):
        attach(model, half(model, seed=seed))
    base = mlp()
    attach(base, half(base))
    own = {name: value.clone() for name, value in base.state_dict().items()}
    params, buffers = stack_module_state([m for m in models])  # noqa: C416
    x = batch()[0]
    out = vmap(lambda p, b: functional_call(base, (p, b), (x,)))(params, buffers)
    for n, model in enumerate(models):
        assert torch.allclose(out[n], model(x), atol=1e-6)
    for part in base.modules():
        for value in vars(part).values():
            assert not (isinstance(value, Tensor) and torch._C._functorch.is_batchedtensor(value))
    assert all(torch.equal(value, own[name]) for name, value in base.state_dict().items())
    backward(base)
    assert graded(base, half(base)) == 0
    dense = mlp()
    before = dense[0].weight.detach().clone()
    functional_call(base, dict(dense.named_parameters()), (x,))
    assert torch.equal(dense[0].weight, before), "stand-ins are the caller's: they are not written to"


def test_stock_replicates_leak() -> None:  # negative control
    base = stock(mlp(), half(mlp()))
    params = {name: torch.stack([p.detach()] * 2) for name, p in base.named_parameters()}
    x = batch()[0]
    vmap(lambda p: functional_call(base, p, (x,)))(params)
    assert torch._C._functorch.is_batchedtensor(base[0].weight)


def test_transforms_of_a_masked_module() -> None:
    model = mlp()
    masks = half(model)
    attach(model, masks)
    x, y = batch()
    slope = torch.func.grad(lambda v: model(v).square().sum())(x)
    assert slope.shape == x.shape
    per_example = vmap(lambda v: model(v))(x)
    assert torch.allclose(per_example, model(x), atol=1e-6)
    with torch.inference_mode():
        model[0].weight.data[~masks["0.weight"]] = float("nan")
        assert bool(model(x).isfinite().all())
    traced = torch.func.functional_call(model, dict(model.named_parameters()), (x,))
    nn.functional.cross_entropy(traced, y).backward()
    assert graded(model, masks) == 0


def test_the_reference_is_pure_and_stacks() -> None:
    base = mlp()
    masks = [half(base, seed=seed) for seed in range(3)]
    params = {n: p.detach().clone() for n, p in base.named_parameters()}
    stacked = {name: torch.stack([mask[name] for mask in masks]) for name in masks[0]}
    x = batch()[0]
    every = vmap(lambda m: masked_call(base, m, params, x))(stacked)
    for n, mask in enumerate(masks):
        bad = {name: value.clone() for name, value in params.items()}
        for name in mask:
            bad[name][~mask[name]] = float("nan")
        leaves = {name: value.requires_grad_() for name, value in bad.items()}
        alone = masked_call(base, mask, leaves, x)
        assert torch.allclose(every[n], alone, atol=1e-6)
        alone.square().sum().backward()
        assert all(not leaves[name].grad[~mask[name]].any() for name in mask)
    with pytest.raises(InvalidValue, match="masks were given for 'x'"):
        masked_call(base, {"x": masks[0]["0.weight"]}, params, x)


@pytest.mark.parametrize(
    ("make", "masks", "error"),
    [
        (mlp, {"0.weight": torch.ones(8, 6)}, "masks are torch.bool"),
        (mlp, {"0.weight": torch.ones(6, 8, dtype=torch.bool)}, r"has shape \(6, 8\), its parameter has \(8, 6\)"),
        (mlp, {"9.weight": torch.ones(6, 8, dtype=torch.bool)}, "the network has no such parameter"),
        (lambda: nn.LazyLinear(3), {"weight": torch.ones(3, 3, dtype=torch.bool)}, "no shape yet"),
        (lambda: _sharded(), {"weight": torch.ones(3, 3, dtype=torch.bool)}, "sharded .FSDP, tensor parallel"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_cannot_be_masked_is_refused(make: Any, masks: Any, error: str) -> None:
    model = make()
    with pytest.raises(Exception, match=error):
        attach(model, masks)
    with pytest.raises(InvalidValue):
        attached(model)


class Shard(Tensor):
    """Stands in for ``DTensor``, which needs a process group."""


def _sharded() -> nn.Module:
    model = nn.Linear(3, 3)
    model.weight = nn.Parameter(model.weight.detach().as_subclass(Shard))
    return model


def test_attaching_twice_is_refused() -> None:
    model = mlp()
    masks = half(model)
    handle = attach(model, masks)
    for net in (model, nn.Sequential(model), model[0]):
        with pytest.raises(InvalidValue, match="masks are on this model already"):
            attach(net, {})
    handle.detach()
    attach(model, {}).detach()
