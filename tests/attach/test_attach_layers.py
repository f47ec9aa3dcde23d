"""Layers that need care: tied, attention, recurrent, parametrised, dead batch-norm channels."""

import copy
import pickle
from typing import Any

import pytest
import torch
from attach_kit import batch, conv, graded, half, revived, stock
from torch import nn
from torch.nn.utils import prune

from tombola.attach import attach, masked_call
from tombola.errors import InvalidValue


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(7, 5), nn.Linear(5, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(x))


def test_tied_weights_have_one_mask() -> None:
    model = Tied()
    mask = torch.rand(7, 5) < 0.5
    handle = attach(model, {"out.weight": mask})
    assert list(handle.masks) == ["embed.weight"], "counted once, under its first name"
    assert "18 of 35" in repr(handle) or f"{int(mask.sum())} of 35" in repr(handle)
    twin = copy.deepcopy(model)
    for net in (model, twin, pickle.loads(pickle.dumps(model))):
        optimizer = torch.optim.AdamW(net.parameters(), 0.1)
        net(torch.arange(7)).square().mean().backward()
        optimizer.step()
        assert net.embed.weight is net.out.weight
        assert torch.equal(net.out.weight != 0, mask)
        net.load_state_dict(net.state_dict())
        assert net.embed.weight.data_ptr() == net.out.weight.data_ptr()
    with pytest.raises(InvalidValue, match="one tied parameter, and their masks differ"):
        attach(Tied(), {"out.weight": mask, "embed.weight": ~mask})
    same = Tied()
    attach(same, {"out.weight": mask, "embed.weight": mask})
    assert same.embed.weight is same.out.weight
    apart = Tied()
    prune.custom_from_mask(apart.out, "weight", mask)
    assert (apart.embed.weight == 0).sum() != (apart.out.weight == 0).sum(), "negative control: silently untied"


def test_attention_in_training_and_on_the_fast_path() -> None:
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    masks = half(model)
    assert set(masks) == {"in_proj_weight", "out_proj.weight"}
    attach(model, masks)
    x = torch.randn(2, 3, 8)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        model(x, x, x)[0].square().sum().backward()
        assert graded(model, masks) == 0
        optimizer.step()
        assert revived(model, masks) == 0
    model.eval()
    dense = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    dense.load_state_dict(model.state_dict())
    with torch.no_grad():
        model.out_proj.weight.data[~masks["out_proj.weight"]] = float("nan")
        with torch.profiler.profile() as seen:
            fast = model(x, x, x, need_weights=False)[0]
        assert any("_native_multi_head_attention" in event.key for event in seen.key_averages()), "the fast path"
        assert torch.equal(fast, dense(x, x, x, need_weights=False)[0])
    copy.deepcopy(model)


def test_stock_attention_is_stale_and_fails_twice() -> None:  # negative control
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    stock(model, half(model))
    x = torch.randn(2, 3, 8)
    model(x, x, x)[0].sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        model(x, x, x)[0].sum().backward()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_networks(kind: Any) -> None:
    model = kind(4, 5, num_layers=2, bidirectional=True)
    masks = half(model)
    assert len(masks) == 8
    attach(model, masks)
    x = torch.randn(3, 2, 4)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(2):
        model(x)[0].square().sum().backward()
        assert graded(model, masks) == 0
        optimizer.step()
        model.flatten_parameters()
        assert revived(model, masks) == 0
    expected = masked_call(model, masks, {n: p.detach() for n, p in model.named_parameters()}, x)[0]
    assert torch.equal(model(x)[0], expected)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x)[0], expected)
    twin(x)[0].sum().backward()
    assert graded(twin, masks) == 0
    pruned = kind(4, 5)
    stock(pruned, half(pruned))
    pruned(x)[0].sum().backward()
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(pruned)


def test_parametrised_modules() -> None:
    for how, name in (("weight_norm", "original1"), ("spectral_norm", "original")):
        model = getattr(nn.utils.parametrizations, how)(nn.Linear(6, 4))
        mask = torch.rand(4, 6) < 0.5
        with pytest.raises(Exception, match=r"no parameter: it is computed from.*Mask the one of its shape"):
            attach(model, {"weight": mask})
        with pytest.raises(TypeError):
            prune.custom_from_mask(model, "weight", mask)
        key = f"parametrizations.weight.{name}"
        attach(model, {key: mask})
        optimizer = torch.optim.AdamW(model.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(5, 6)).square().sum().backward()
            assert graded(model, {key: mask}) == 0
            optimizer.step()
            assert not model.weight[~mask].any(), "a zero there is a zero in the effective weight"
            assert model.weight[mask].all()


def test_a_dead_batch_norm_channel_is_finite() -> None:
    model = conv()
    masks = half(model)
    masks["0.weight"][1] = False
    attach(model, masks)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(6, 2, 6, 6)), batch(size=6)[1]).backward()
        optimizer.step()
    model.eval()
    assert bool(model(torch.randn(2, 2, 6, 6)).isfinite().all())
    assert revived(model, masks) == 0
