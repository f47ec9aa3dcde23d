"""What the replicas engine owes as a training routine, and what it refuses."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import train_checks as checks
from test_replicas import (
    BUILDS,
    Averaged,
    Residual,
    convolutions,
    family_jobs,
    layer_norm,
    odd,
    own_split,
    same_outcome,
    same_snapshot,
)
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from train_kit import (
    CLASSES,
    FEATURES,
    RECIPES,
    Build,
    ExtraDraws,
    dense_job,
    dense_masks,
    differing,
    mlp,
    random_masks,
    recipe,
    same_run,
    score,
    splits,
    stochastic,
)

from tombola.errors import DataTooSmall, InvalidValue, ShapeMismatch
from tombola.testing import check_train_fn
from tombola.train import replicas
from tombola.train.engines import trainer
from tombola.train.loss import mean_loss
from tombola.train.order import BatchOrder
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import Recipe
from tombola.train.replicas import ReplicaTrainer, footprint, little_gain
from tombola.train.replicas_data import Batches, Part
from tombola.train.replicas_graph import Captured
from tombola.train.replicas_nets import Chain, chain, why_not_stacked
from tombola.train.replicas_stack import Stack
from tombola.train.watch import Unwatched
from tombola.types import RunResult, Seed, TrainFn, TrainJob


def stacked(build: Build, how: Recipe) -> TrainFn:
    return ReplicaTrainer(build, splits, how)


@pytest.mark.parametrize(
    "check",
    [
        checks.check_pruned_stay_zero,
        checks.check_every_alive_weight_trains,
        checks.check_earliest_of_ties,
        checks.check_diverged_is_no_result,
    ],
)
def test_right_routines_pass(check: Callable[[checks.Make], None]) -> None:
    check(stacked)


@pytest.mark.parametrize("build", [build for build in BUILDS if build is not Averaged])
def test_the_public_contract_holds_for_stacks_of_one(build: Build) -> None:
    """In larger stacks one part cannot hold exactly, that a result depends on its job alone; see the next test."""
    how = recipe(momentum=0.9, optimizer="sgd", weight_decay=1e-2)
    check_train_fn(ReplicaTrainer(build, splits, how, at_once=1), replace(dense_job(build, how), stop=8))


@pytest.mark.parametrize("build", BUILDS)
def test_in_larger_stacks_the_other_jobs_make_no_difference_beyond_rounding(build: Build) -> None:
    how = RECIPES["adam"]
    job = dense_job(build, how, 15)
    train = stacked(build, how)
    ticket = replace(job, masks=random_masks(job.start))
    (dense, among, full), (alone,) = train([job, ticket, replace(job, masks=dense_masks(job.start))]), train([ticket])
    same_outcome(among, alone)
    same_outcome(full, dense)


@pytest.mark.parametrize("build", [odd, convolutions, Residual])
@pytest.mark.parametrize("how", RECIPES.values(), ids=RECIPES.keys())
def test_pruned_weights_and_their_moments_are_zero_at_every_step(build: Build, how: Recipe) -> None:
    jobs = family_jobs(build, how, 3, save_at=tuple(range(31)), with_optimizer=True)
    dense = stacked(build, how)([replace(job, masks={}) for job in jobs])
    for at in (0, 15):
        given = [replace(job, start=one.saved[at]) for job, one in zip(jobs, dense, strict=True)]
        for job, run in zip(given, stacked(build, how)(given), strict=True):
            assert sorted(run.saved) == list(range(at, 31))
            for snapshot in (run.end, run.best, *run.saved.values()):
                for name, mask in job.masks.items():
                    assert not bool(snapshot.params[name][~mask].any()), f"{name} at {snapshot.step}"
                    for slot, value in (snapshot.optimizer or {}).get(name, {}).items():
                        assert value.dim() == 0 or not bool(value[~mask].any()), f"{slot} of {name}"


@pytest.mark.parametrize("build", [mlp, Residual])
def test_resuming_in_the_middle_is_going_on(build: Build) -> None:
    for how in (RECIPES["nesterov"], RECIPES["adamw"]):
        jobs = family_jobs(build, how, 3, save_at=(13,), with_optimizer=True)
        whole = stacked(build, how)(jobs)
        rest = stacked(build, how)([replace(job, start=run.saved[13]) for job, run in zip(jobs, whole, strict=True)])
        for resumed, run in zip(rest, whole, strict=True):
            same_snapshot(resumed.end, run.end)
            assert differing(resumed.saved[13], run.saved[13]) == []


def test_the_best_snapshot_is_the_validation_minimum() -> None:
    how = recipe(iterations=60, lr=0.05)
    jobs = family_jobs(odd, how)
    for job, run in zip(jobs, ReplicaTrainer(odd, own_split, how)(jobs), strict=True):
        split = own_split(job.seed)
        least = run.curve.loss.index(min(run.curve.loss))
        assert run.early_stop_iteration == run.curve.steps[least] == run.best.step
        assert run.censored == (least == len(run.curve.loss) - 1)
        for snapshot, at, tested in (
            (run.best, least, run.test_accuracy_at_early_stop),
            (run.end, -1, run.test_accuracy),
        ):
            model = odd()
            model.load_state_dict(dict(snapshot.params))
            loss, accuracy = score(model, split.val_x, split.val_y)
            assert loss == pytest.approx(run.curve.loss[at], rel=1e-5)
            assert accuracy == run.curve.accuracy[at]
            assert score(model, split.test_x, split.test_y)[1] == tested


class Recorder:
    """A watcher that writes everything down, and stops before a given look."""

    def __init__(self, stop_at: float = math.inf) -> None:
        self.seen: list[tuple[int, int, float, float]] = []
        self.looks, self.stop_at = 0, stop_at

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:
        self.seen.append((job, step, loss, accuracy))

    def stop(self) -> bool:
        self.looks += 1
        return self.looks > self.stop_at


def test_the_watcher_is_told_of_every_evaluation_by_job() -> None:
    how = recipe()
    jobs = family_jobs(mlp, how)
    jobs[1] = replace(jobs[1], stop=25)
    for at_once in (2, None):
        watcher = Recorder()
        runs = ReplicaTrainer(mlp, own_split, how, watcher=watcher, at_once=at_once)(jobs)
        for number, run in enumerate(runs):
            told = [(step, loss, accuracy) for job, step, loss, accuracy in watcher.seen if job == number]
            curve = run.curve
            assert told == list(zip(curve.steps, curve.loss, curve.accuracy, strict=True))
    assert watcher.looks == 30 + 25


def test_a_stop_interrupts_the_stack_and_those_that_follow() -> None:
    how = recipe()
    jobs = family_jobs(mlp, how, 3)
    watcher = Recorder(stop_at=17)
    runs = ReplicaTrainer(mlp, own_split, how, watcher=watcher, at_once=2)(jobs)
    assert [run.result for run in runs] == [RunResult.INTERRUPTED] * 3
    assert [run.iterations for run in runs] == [17, 0, 0] or [run.iterations for run in runs] == [17, 17, 0]
    assert runs[0].sentence == "interrupted at iteration 17 of 30"
    assert (runs[0].end.step, runs[0].best.step, runs[0].curve.steps) == (17, 10, (10,))
    assert (runs[0].test_accuracy, runs[0].early_stop_iteration) == (None, None)
    (single,) = PlainTrainer(mlp, own_split, how, watcher=Recorder(stop_at=17))(jobs[:1])
    same_outcome(runs[0], single)


def test_a_stack_in_which_all_diverge_ends_there() -> None:
    how = recipe(optimizer="sgd", lr=1e30)
    watcher = Recorder()
    runs = ReplicaTrainer(mlp, own_split, how, watcher=watcher)(family_jobs(mlp, how, 3))
    assert all(run.result is RunResult.DIVERGED for run in runs)
    assert watcher.looks == 10


def test_no_iterations_and_no_jobs() -> None:
    how = recipe()
    (job,) = family_jobs(mlp, how, 1, stop=0, save_at=(0,))
    (run,), (single,) = ReplicaTrainer(mlp, own_split, how)([job]), PlainTrainer(mlp, own_split, how)([job])
    same_outcome(run, single)
    assert ReplicaTrainer(mlp, own_split, how)([]) == []


def test_the_callers_threads_and_random_state_make_no_difference_and_are_left_alone() -> None:
    how = RECIPES["adamw"]
    jobs = family_jobs(layer_norm, how, 3)
    first = ReplicaTrainer(layer_norm, own_split, how)(jobs)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.manual_seed(123)
        state = torch.get_rng_state()
        second = ReplicaTrainer(layer_norm, own_split, how)(jobs)
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(before)
    assert all(same_run(one, other) for one, other in zip(first, second, strict=True))


def test_the_seconds_of_a_stack_are_shared() -> None:
    how = recipe()
    runs = ReplicaTrainer(mlp, own_split, how)(family_jobs(mlp, how, 4))
    assert len({run.seconds for run in runs}) == 1
    assert runs[0].seconds > 0


@pytest.mark.parametrize("batch_size", [1, 20, 64, 130])
def test_batches_are_those_of_each_replicates_order(batch_size: int) -> None:
    lengths, seeds = (130, 151, 130), (Seed(0), Seed(0, 1), Seed(0, order=2))
    parts = [(torch.arange(n)[:, None].float() + 1000 * k, torch.arange(n)) for k, n in enumerate(lengths)]
    part = Part(parts, torch.device("cpu"))
    shares = (1.0, 1.0, 1.0) if batch_size > 65 else (1.0, 0.5, 0.9)
    batches = Batches(part, batch_size, seeds, shares)
    orders = [BatchOrder(n, batch_size, *of) for n, *of in zip(lengths, seeds, shares, strict=True)]
    for step in (*range(40), 100, 7, 131):
        x, y = part.gather(batches.at(step))
        for row, order in enumerate(orders):
            assert torch.equal(y[row], order.at(step))
            assert torch.equal(x[row, :, 0], order.at(step).float() + 1000 * row)


@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_chunks_cover_every_example_of_a_replicate_once_and_in_order(size: int) -> None:
    lengths = (7, 3, 12)
    parts = [(torch.arange(n)[:, None] + 100 * k, torch.arange(n) + 100 * k) for k, n in enumerate(lengths)]
    for given in (parts, [parts[2]] * 3):
        seen: list[list[int]] = [[], [], []]
        for x, y, own in Part(given, torch.device("cpu")).chunks(size):
            assert torch.equal(x[..., 0], y)
            for row, count in enumerate(own):
                seen[row] += y[row, :count].tolist()
        assert seen == [y.tolist() for _, y in given]


def test_equal_splits_are_held_once() -> None:
    x, y = torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64)
    assert Part([(x, y)] * 4, torch.device("cpu")).x is x


def test_equal_examples_with_other_labels_are_another_split() -> None:
    x, labels = torch.zeros(5, 2), [torch.full((5,), number) for number in range(3)]
    part = Part([(x, y) for y in labels], torch.device("cpu"))
    _, y = part.gather(torch.zeros(3, 1, dtype=torch.int64) + part.offsets)
    assert y.tolist() == [[0], [1], [2]]


class FakeGraph:
    """A CUDA graph as far as the order of iterations goes: what is recorded does not run, and is run by a replay."""

    def __init__(self) -> None:
        self.replays: list[Callable[[], None]] = []

    def replay(self) -> None:
        for again in self.replays:
            again()


def test_a_recorded_iteration_is_done_once_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[list[int]] = []
    recording: list[FakeGraph] = []

    @contextmanager
    def graph(made: FakeGraph) -> Iterator[None]:
        recording.append(made)
        yield
        recording.pop()

    def iterate(index: Tensor) -> None:
        if recording:
            recording[-1].replays.append(lambda: done.append(index.flatten().tolist()))
        else:
            done.append(index.flatten().tolist())

    stream = MagicMock()
    fakes = {"Stream": stream, "current_stream": stream, "device": MagicMock(), "stream": MagicMock()}
    for name, fake in {**fakes, "CUDAGraph": FakeGraph, "graph": graph}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    captured = Captured(iterate, torch.device("cuda"))
    for step in range(9):
        captured(torch.tensor([[step, 2 * step]]))
    assert done == [[step, 2 * step] for step in range(9)]


ACTIVATIONS = (nn.ReLU(), nn.ReLU(inplace=True), nn.Tanh(), nn.Sigmoid(), nn.LeakyReLU(0.3), nn.GELU(),
               nn.GELU(approximate="tanh"))  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize(("bias", "loss"), [(True, "cross-entropy"), (False, "cross-entropy"), (True, "mse")])
def test_the_written_out_gradient_of_a_chain_is_autograds(activation: nn.Module, bias: bool, loss: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 5, bias=bias), activation, nn.Linear(5, 4, bias=bias), nn.Linear(4, 3)
    ).double()
    x, y = torch.randn(7, 2, 3, dtype=torch.float64), torch.randint(3, (7,))
    layers = chain(net, x[0])
    assert layers is not None
    params = {name: nn.Parameter(p.detach()[None].clone()) for name, p in net.named_parameters()}
    one = Chain(layers, params, loss)
    one.differentiate(x[None], y[None])
    mean_loss(loss, net(x), y).backward()
    for name, p in net.named_parameters():
        torch.testing.assert_close(params[name].grad[0], p.grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(one.logits(params, {}, x[None])[0], net(x), rtol=1e-12, atol=1e-14)


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class SkipSequential(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Linear(FEATURES, CLASSES))
    net[0].register_forward_hook(lambda _, __, out: 2 * out)
    return net


def repeated() -> nn.Module:
    part = nn.Linear(FEATURES, FEATURES)
    return nn.Sequential(part, nn.ReLU(), part, nn.Linear(FEATURES, CLASSES))


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Tanh(), nn.Linear(FEATURES, FEATURES))
    net[2].weight = net[0].weight
    return net


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def parametrised() -> nn.Module:
    net = nn.Linear(FEATURES, CLASSES)
    parametrize.register_parametrization(net, "weight", Twice())
    return net


ALMOST_CHAINS: tuple[Build, ...] = (
    lambda: Doubled(FEATURES, CLASSES),
    lambda: SkipSequential(nn.Linear(FEATURES, FEATURES)),
    parametrised,
    lambda: nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Softplus(), nn.Linear(FEATURES, CLASSES)),
    hooked,
    repeated,
    tied,
)


@pytest.mark.parametrize("build", ALMOST_CHAINS)
def test_what_only_looks_like_a_chain_is_not_taken_for_one(build: Build) -> None:
    assert chain(build(), torch.zeros(FEATURES)) is None
    how = recipe()
    jobs = family_jobs(build, how, 2)
    singles = PlainTrainer(build, own_split, how)(jobs)
    for ours, theirs in zip(ReplicaTrainer(build, own_split, how)(jobs), singles, strict=True):
        same_outcome(ours, theirs)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x if bool(x.sum() > 0) else -x)


class Loose(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out, self.projection = nn.Linear(6, CLASSES), torch.randn(FEATURES, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x @ self.projection)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(3, CLASSES, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x.view(-1, 4, 3))[0][:, -1]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (stochastic, "Dropout '3' drops at random"),
        (lambda: nn.Sequential(mlp(), nn.RReLU()), "RReLU '1' draws at random"),
        (Recurrent, "GRU 'cell' is recurrent"),
        (Loose, "Loose holds the tensor 'projection'"),
        (Branching, "cannot stack Branching"),
        (ExtraDraws, "cannot stack ExtraDraws"),
        (lambda: parametrizations.weight_norm(nn.Linear(FEATURES, CLASSES)), "rule for aten::_weight_norm"),
    ],
)
def test_a_network_that_cannot_be_stacked_is_refused_by_name(build: Build, says: str) -> None:
    how = recipe()
    jobs = family_jobs(build, how, 2)
    reason = why_not_stacked(build(), torch.randn(FEATURES))
    assert reason is not None
    assert says in reason
    assert reason.endswith(".")
    with pytest.raises(InvalidValue, match="plain engine"):
        ReplicaTrainer(build, own_split, how)(jobs)


def test_a_network_that_can_be_stacked_is_told_so_and_left_as_it_was() -> None:
    for build in BUILDS:
        net = build().eval()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        assert why_not_stacked(net, torch.randn(FEATURES)) is None
        assert not net.training
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert why_not_stacked(nn.Sequential(mlp(), nn.Dropout(0.0))) is None


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (mlp, None),
        (
            lambda: nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)),
            None,
        ),
        (
            lambda: nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.Linear(100, 10)),
            "a network of 266,610 weights gains little",
        ),
        (convolutions, "no chain of linear layers gains little"),
        (layer_norm, "no chain of linear layers gains little"),
    ],
)
def test_on_a_cpu_stacking_pays_for_small_chains_only(build: Build, says: str | None) -> None:
    sentence = little_gain(build(), "cpu")
    assert sentence is None if says is None else says in str(sentence)
    assert little_gain(build(), "cuda:0") is None


def test_a_stack_takes_no_more_than_its_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    one = footprint(mlp(), torch.zeros(FEATURES), 20)
    assert one > 7 * sum(p.nbytes for p in mlp().parameters())
    assert footprint(mlp(), torch.zeros(FEATURES), 2000) > one
    trainer, bounded = ReplicaTrainer(mlp, splits, recipe()), ReplicaTrainer(mlp, splits, recipe(), at_once=3)
    job = dense_job(mlp, recipe())
    for memory, most in ((0, 1), (2 * one, 1), (4 * one, 2), (11 * one, 4), (33 * one, 16)):
        monkeypatch.setattr(replicas, "_memory", lambda _, memory=memory: memory)
        assert trainer._most(job) == most
        assert bounded._most(job) == min(most, 3)


def test_a_job_leaves_its_start_as_it_was() -> None:
    how = RECIPES["momentum"]
    for build in (mlp, Residual):
        (dense,) = stacked(build, how)([dense_job(build, how, 10)])
        start = dense.saved[10]
        copy = replace(
            start,
            params={name: value.clone() for name, value in start.params.items()},
            buffers={name: value.clone() for name, value in start.buffers.items()},
            optimizer={name: {s: v.clone() for s, v in slots.items()} for name, slots in start.optimizer.items()},
        )
        stacked(build, how)([TrainJob(start, random_masks(start), Seed(3, 1), 30)] * 2)
        assert differing(start, copy) == []


def test_wrong_calls_are_refused() -> None:
    how = recipe()
    job, other = family_jobs(mlp, how, 2)
    train = ReplicaTrainer(mlp, own_split, how)
    with pytest.raises(InvalidValue, match="must not run back"):
        train([job, replace(other, start=replace(other.start, step=31))])
    with pytest.raises(InvalidValue, match="at least 1 replicate"):
        ReplicaTrainer(mlp, own_split, how, at_once=0)
    with pytest.raises(DataTooSmall):
        ReplicaTrainer(mlp, own_split, recipe(batch_size=131))([job, other])
    params = {**other.start.params, "0.bias": torch.zeros(3)}
    with pytest.raises(ShapeMismatch, match=r"0\.bias"):
        train([job, replace(other, start=replace(other.start, params=params))])
    with pytest.raises(ShapeMismatch, match="optimiser state"):
        train([replace(job, start=replace(job.start, optimizer={"odd": {"exp_avg": torch.zeros(1)}}))])


def test_a_stack_does_not_depend_on_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits may depend on what is stacked together, so 33 jobs make two stacks, whatever else the machine holds."""
    sizes: list[list[int]] = []

    class Noted(Stack):
        def __init__(self, *given: Any, **named: Any) -> None:
            sizes[-1].append(len(named["jobs"]))
            super().__init__(*given, **named)

    monkeypatch.setattr(replicas, "Stack", Noted)
    how = recipe(iterations=2, eval_every=2)
    job = dense_job(mlp, how)
    sysconf = os.sysconf
    for free in (0, 1 << 40):
        about = {"SC_PHYS_PAGES": 1 << 22, "SC_PAGE_SIZE": 1 << 12, "SC_AVPHYS_PAGES": free}
        monkeypatch.setattr(os, "sysconf", lambda name, about=about: about[name] if name in about else sysconf(name))
        sizes.append([])
        with trainer("replicas", mlp, splits, how, "cpu", 1, Unwatched()) as train:
            assert len(train([job] * 33)) == 33
    assert sizes == [[16, 17], [16, 17]]
