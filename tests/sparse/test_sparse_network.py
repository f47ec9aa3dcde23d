"""The network: what is dropped, what is laid out how, and the same bits however it is cut up."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_kit import DENSITIES, seeds
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import InvalidValue, ShapeMismatch, UnknownName
from tombola.sparse import LOSSES, Rule, SparseNetwork, layers, read_chain
from tombola.sparse.kernels.library import LEVELS, Kernels, available, kernels
from tombola.sparse.layers import RowsLayout, live_features
from tombola.sparse.network import OPTIMIZERS

pytestmark = pytest.mark.skipif(not available(), reason="the compiled kernels are not here")

N, CLASSES, BATCH = 90, 4, 20


def problem(seed: int, density: float, widths: tuple[int, ...]) -> tuple[nn.Module, dict[str, Tensor], Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        parts += [nn.Linear(inputs, outputs), nn.Tanh()]
    model = nn.Sequential(*parts[:-1])
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) * 0.5)
    masks = {n: torch.rand(p.shape, generator=draw) < density for n, p in model.named_parameters() if p.dim() > 1}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    x = torch.randn(N, widths[0], generator=draw)
    return model, masks, x, torch.randint(widths[-1], (N,), generator=draw)


def sparse(
    model: nn.Module,
    masks: dict[str, Tensor],
    x: Tensor,
    rule: Rule,
    *,
    level: str | None = None,
    loss: str = "cross-entropy",
) -> SparseNetwork:
    params = {name: p.detach() for name, p in model.named_parameters()}
    return SparseNetwork(read_chain(model, x), params, masks, rule, batch_size=BATCH, loss=loss, level=level)


def torch_loss(name: str, logits: Tensor, y: Tensor) -> Tensor:
    if name == "mse":
        return functional.mse_loss(logits, functional.one_hot(y, logits.shape[1]).float())
    return functional.cross_entropy(logits, y)


def torch_optimizer(model: nn.Module, rule: Rule, lr: float) -> torch.optim.Optimizer:
    decay, name = rule.weight_decay, rule.optimizer
    if name in ("adam", "adamw"):
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        return kind(model.parameters(), lr=lr, weight_decay=decay)
    nesterov = name == "nesterov"
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=rule.momentum, weight_decay=decay, nesterov=nesterov)


def order(steps: int, seed: int = 0) -> Tensor:
    return torch.randint(N, (steps, BATCH), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=40, deadline=None)
@given(
    density=st.sampled_from(DENSITIES),
    widths=st.sampled_from(
        ((1, 1, 2), (1, 7, 1), (12, 1, 4), (40, 33, 4), (12, 20, 17, 9, 4), (5, 3), (70, 130, 3), (9, 1))
    ),
    seed=seeds,
)
def test_one_step_of_sgd_is_the_gradient_on_every_level(
    level: Kernels, name: str, density: float, widths: tuple[int, ...], seed: int
) -> None:
    model, masks, x, y = problem(seed, density, widths)
    network = sparse(model, masks, x, Rule("sgd"), level=level.level, loss=name)
    loss, accuracy = network.evaluate(x, y)
    with torch.no_grad():
        assert loss == pytest.approx(float(torch_loss(name, model(x), y)), rel=1e-5)
        assert accuracy == int((model(x).argmax(1) == y).sum()) / N
    batch = order(1)
    torch_loss(name, model(x[batch[0]]), y[batch[0]]).backward()
    assert network.train(x, y, batch, [1.0]) == 1
    after = network.params()
    for name, p in model.named_parameters():
        gradient = p.grad * masks[name] if name in masks else p.grad
        torch.testing.assert_close(p.detach() - gradient, after[name], rtol=1e-5, atol=2e-6)
        if name in masks:
            assert not after[name][~masks[name]].any()


RULES = (
    Rule("sgd", weight_decay=0.01),
    Rule("momentum", 0.9),
    Rule("nesterov", 0.9, 0.01),
    Rule("adam", weight_decay=0.01),
    Rule("adamw", weight_decay=0.01),
)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("rule", RULES, ids=OPTIMIZERS)
@pytest.mark.parametrize("widths", [(40, 33, 17, 4), (1, 12, 4), (40, 33, 1)])
def test_fifty_iterations_are_those_of_torch(level: Kernels, name: str, rule: Rule, widths: tuple[int, ...]) -> None:
    model, masks, x, y = problem(6, 0.4, widths)
    network = sparse(model, masks, x, rule, level=level.level, loss=name)
    lr = 0.001 if rule.counts_steps else 0.02
    optimizer = torch_optimizer(model, rule, lr)
    for batch in order(50):
        optimizer.zero_grad()
        torch_loss(name, model(x[batch]), y[batch]).backward()
        for parameter, mask in masks.items():
            model.get_parameter(parameter).grad.mul_(mask)
        optimizer.step()
    assert network.train(x, y, order(50), [lr] * 50) == 50
    with torch.no_grad():
        loss, accuracy = network.evaluate(x, y)
        assert loss == pytest.approx(float(torch_loss(name, model(x), y)), rel=1e-5, abs=1e-7)
        assert accuracy == pytest.approx(int((model(x).argmax(1) == y).sum()) / N, abs=0.02)
    for parameter, p in model.named_parameters():
        torch.testing.assert_close(network.params()[parameter], p.detach(), rtol=1e-4, atol=1e-5)


def test_a_loss_that_does_not_exist_is_refused() -> None:
    model, masks, x, _ = problem(0, 1.0, (12, 4))
    with pytest.raises(UnknownName, match="Did you mean 'mse'"):
        sparse(model, masks, x, Rule("sgd"), loss="msr")


def test_dead_features_are_those_no_output_depends_on() -> None:
    first = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=bool)
    second = np.array([[1, 0, 1], [0, 0, 0]], dtype=bool)
    live = live_features([first, second])
    assert [list(one) for one in live] == [[0, 1], [0, 2], [0, 1]]


def test_dead_survivors_still_decay() -> None:
    """A weight into a unit that nothing depends on has no gradient, and torch moves it by its decay alone."""
    model, masks, x, y = problem(1, 1.0, (12, 6, 4))
    masks["2.weight"][:, 2] = False
    with torch.no_grad():
        model[2].weight.mul_(masks["2.weight"])
    network = sparse(model, masks, x, Rule("adam", weight_decay=0.1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    for batch in order(5):
        optimizer.zero_grad()
        functional.cross_entropy(model(x[batch]), y[batch]).backward()
        model[2].weight.grad.mul_(masks["2.weight"])
        optimizer.step()
    network.train(x, y, order(5), [0.01] * 5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), network.params()[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("density", [0.3, 0.8, 1.0])
def test_bits_do_not_depend_on_how_the_iterations_are_cut(density: float) -> None:
    model, masks, x, y = problem(2, density, (40, 33, 17, 4))
    batches, rates = order(12), [0.01] * 12
    ends = []
    for cuts in ((12,), (1,) * 12, (5, 7)):
        network = sparse(model, masks, x, Rule("adam", weight_decay=0.01))
        first = 0
        for cut in cuts:
            network.train(x, y, batches[first : first + cut], rates[first : first + cut])
            network.evaluate(x, y)
            first += cut
        ends.append((network.params(), network.optimizer()))
    for params, state in ends[1:]:
        assert all(torch.equal(params[name], ends[0][0][name]) for name in params)
        assert state is not None
        assert all(torch.equal(v, ends[0][1][n][s]) for n, slots in state.items() for s, v in slots.items())


def test_dense_and_row_kernels_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for threshold in (0.0, 2.0):
        monkeypatch.setattr(layers, "DENSE_FROM", threshold)
        model, masks, x, y = problem(3, 0.5, (40, 33, 17, 4))
        network = sparse(model, masks, x, Rule("nesterov", 0.9, 0.01))
        assert network.dense_layers == (threshold == 0.0,) * 3
        network.train(x, y, order(10), [0.05] * 10)
        ends.append(network.params())
    for name in ends[0]:
        torch.testing.assert_close(*(end[name] for end in ends), rtol=1e-4, atol=1e-5)


def test_a_call_ends_when_its_time_is_up() -> None:
    model, masks, x, y = problem(4, 1.0, (40, 33, 4))
    network = sparse(model, masks, x, Rule("sgd"))
    assert network.train(x, y, order(1000), [0.0] * 1000, seconds=0.0) == 1


def test_what_would_be_read_beyond_the_end_is_refused() -> None:
    model, masks, x, y = problem(5, 1.0, (12, 4))
    network = sparse(model, masks, x, Rule("adam"))
    for wrong in (order(1) + N, order(1) - N, order(1)[:, 1:]):
        with pytest.raises(InvalidValue, match="does not fit"):
            network.train(x, y, wrong, [0.1])
    with pytest.raises(InvalidValue, match="labels run from"):
        network.evaluate(x, y + 4)
    with pytest.raises(ShapeMismatch, match="11 features and the network takes 12"):
        network.evaluate(x[:, 1:].contiguous(), y)
    with pytest.raises(InvalidValue, match=r"x is torch\.float64"):
        network.evaluate(x.double(), y)
    with pytest.raises(InvalidValue, match=r"y is torch\.float32"):
        network.evaluate(x, y.float())
    with pytest.raises(InvalidValue, match="x is array"):
        network.evaluate(x.numpy(), y)  # type: ignore[arg-type]
    for some_x, some_y in ((x[1:], y), (x, y[:, None]), (x[:0], y[:0])):
        with pytest.raises(ShapeMismatch, match="one label an example"):
            network.evaluate(some_x, some_y)
    with pytest.raises(InvalidValue, match=r"order is torch\.int32"):
        network.train(x, y, order(1).int(), [0.1])
    with pytest.raises(InvalidValue, match="dropout"):
        network.train(x, y, order(1), [0.1], dropout=[torch.ones(1, BATCH, 3)])
    with pytest.raises(ShapeMismatch, match=r"0\.weight"):
        network.load_optimizer({"0.weight": {"exp_avg": torch.zeros(3, 3)}})


def test_data_that_are_not_contiguous_are_refused_by_name_even_where_others_began() -> None:
    """Memory, shape and dtype are those of the data before; the order is another."""
    model, masks, _, _ = problem(6, 1.0, (12, 4))
    x, y = torch.randn(12, 12), torch.zeros(24, dtype=torch.int64)
    network = sparse(model, masks, x, Rule("sgd"))
    network.evaluate(x, y[:12])
    with pytest.raises(InvalidValue, match=r"x is not contiguous.*x\.contiguous\(\)"):
        network.evaluate(x.T, y[:12])
    with pytest.raises(InvalidValue, match=r"y is not contiguous.*y\.contiguous\(\)"):
        network.evaluate(x, y[::2])


WRONG_NETWORKS: dict[str, tuple[dict[str, object], type[Exception], str]] = {
    "dtype": ({"0.weight": torch.zeros(4, 12).double()}, InvalidValue, r"'0\.weight' is torch\.float64"),
    "type": ({"0.weight": [0.0]}, InvalidValue, r"'0\.weight' is \[0\.0\]; give a tensor"),
    "shape": ({"0.weight": torch.zeros(12, 4)}, ShapeMismatch, r"shape \(12, 4\), in the chain \(4, 12\)"),
    "name": ({"1.weight": torch.zeros(4, 12)}, ShapeMismatch, r"1\.weight is in one only"),
}


@pytest.mark.parametrize("case", WRONG_NETWORKS)
def test_parameters_of_another_kind_are_refused_by_name(case: str) -> None:
    changed, error, says = WRONG_NETWORKS[case]
    model, _, x, _ = problem(7, 1.0, (12, 4))
    params = {name: p.detach() for name, p in model.named_parameters()} | changed
    with pytest.raises(error, match=says):
        SparseNetwork(read_chain(model, x), params, {}, Rule("sgd"), batch_size=BATCH)  # type: ignore[arg-type]
    with pytest.raises(error, match=says):
        sparse(model, {}, x, Rule("sgd")).load_params(params)  # type: ignore[arg-type]


def test_masks_rules_and_batches_of_another_kind_are_refused_by_name() -> None:
    model, _, x, _ = problem(7, 1.0, (12, 4))
    with pytest.raises(ShapeMismatch, match=r"mask '0\.weight' has shape \(12, 4\)"):
        sparse(model, {"0.weight": torch.ones(12, 4, dtype=torch.bool)}, x, Rule("sgd"))
    with pytest.raises(ShapeMismatch, match=r"mask for '9\.weight'"):
        sparse(model, {"9.weight": torch.ones(4, 12, dtype=torch.bool)}, x, Rule("sgd"))
    with pytest.raises(InvalidValue, match=r"Use mask\.bool"):
        sparse(model, {"0.weight": torch.ones(4, 12)}, x, Rule("sgd"))
    with pytest.raises(UnknownName, match="Did you mean 'adam'"):
        Rule("adm")
    params = {name: p.detach() for name, p in model.named_parameters()}
    with pytest.raises(InvalidValue, match="batch size is 0"):
        SparseNetwork(read_chain(model, x), params, {}, Rule("sgd"), batch_size=0)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout_masks_are_those_of_torch(p: float) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(12, 9), nn.Dropout(p), nn.Linear(9, 4))
    network = sparse(model, {}, torch.randn(BATCH, 12), Rule("sgd"))
    masks = network.draw_dropout(torch.Generator().manual_seed(7))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        expected = [functional.dropout(torch.ones(BATCH, w), q) for w, q in ((12, 0.5), (9, p))]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(masks, expected, strict=True))


def test_columns_are_cut_into_blocks_that_stay_in_a_cache() -> None:
    mask = np.random.default_rng(0).random((300, 784)) < 0.2
    layout = RowsLayout(mask, 64)
    assert layout.blocks > 1
    assert np.array_equal(np.sort(layout.row * 784 + layout.column), np.flatnonzero(mask))
    assert RowsLayout(mask & (np.arange(784) < 3), 64).blocks == 1


def test_a_level_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in available():
        monkeypatch.setenv("TOMBOLA_KERNELS", name)
        assert kernels().level == name
    monkeypatch.setenv("TOMBOLA_KERNELS", "avx1024")
    with pytest.raises(UnknownName, match="Did you mean"):
        kernels()
    monkeypatch.delenv("TOMBOLA_KERNELS")
    assert kernels().level == available()[-1]
    for name in set(LEVELS) - set(available()):
        with pytest.raises(InvalidValue, match="do not run here"):
            kernels(name)
