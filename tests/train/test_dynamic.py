"""Masks that change during training, and what training accumulates."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from train_kit import (
    DATA,
    RECIPES,
    dense_job,
    dense_masks,
    differing,
    mlp,
    random_masks,
    recipe,
    same_run,
    splits,
    stochastic,
)

from tombola.data import Split
from tombola.errors import InvalidValue
from tombola.prune.allocation import Global
from tombola.prune.dynamic import SET, Gradual, RigL, Updates
from tombola.prune.evidence import Evidence, only_alive
from tombola.prune.masks import counts
from tombola.sparse.kernels.library import available
from tombola.train.augment import augmented
from tombola.train.engines import pick
from tombola.train.order import BatchOrder
from tombola.train.own import OwnTrainer
from tombola.train.plain import PlainTrainer
from tombola.train.recipe import Recipe
from tombola.train.replicas import ReplicaTrainer
from tombola.train.row import Progress
from tombola.train.run import changes
from tombola.train.sparse import SparseTrainer
from tombola.types import Masks, Params, RunResult, Scores, Seed, Step, TrainJob, TrainOutcome

SPARSE = pytest.param(SparseTrainer, marks=pytest.mark.skipif(not available(), reason="the kernels are not here"))
BOTH = pytest.mark.parametrize("kind", [PlainTrainer, SPARSE])
FINAL = (("0.weight", 40), ("2.weight", 30), ("4.weight", 12))


def by_moved(params: Params, masks: Masks, evidence: Evidence) -> Scores:  # noqa: ARG001
    moved: Params = evidence.require("moved")
    return only_alive({name: moved[name] for name in masks}, masks)


METHODS: dict[str, Updates] = {
    "gradual": Gradual(FINAL, begin=4, end=22, every=6),
    "every step": Gradual(FINAL, begin=1, end=12, every=1),
    "global": Gradual(FINAL, begin=4, end=22, every=6, allocation=Global(), min_keep=1),
    "set": SET(end=25, every=4),
    "rigl": RigL(end=25, every=4, fraction=0.5),
}


@dataclass(frozen=True)
class Noting:
    """Writes down what an update is given and gives."""

    inner: Updates
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.inner.steps

    def wants_gradient(self, step: Step) -> bool:
        return self.inner.wants_gradient(step)

    def update(self, step: Step, params: Params, masks: Masks, *rest: Any) -> dict[str, Tensor]:
        found = self.inner.update(step, params, masks, *rest)
        self.calls.append((step, params, dict(masks), found, *rest))
        return found

    def describe(self) -> Mapping[str, Any]:
        return self.inner.describe()


@dataclass(frozen=True)
class Still:
    """Changes nothing, having looked at everything."""

    steps: tuple[Step, ...] = (3, 7, 10, 20, 29)
    gradient: bool = True

    def wants_gradient(self, step: Step) -> bool:  # noqa: ARG002
        return self.gradient

    def update(self, step: Step, params: Params, masks: Masks, *_: Any) -> dict[str, Tensor]:  # noqa: ARG002
        return {name: mask.clone() for name, mask in masks.items()}

    def describe(self) -> Mapping[str, Any]:
        return {}


class Keeping:
    """A keeper that keeps at every chance, and a watcher that stops after so many questions."""

    def __init__(self, after: int = 10**9) -> None:
        self.left, self.kept = after, list[Progress]()

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None: ...

    def stop(self) -> bool:
        self.left -= 1
        return self.left < 0

    def due(self) -> bool:
        return True

    def keep(self, progress: Progress) -> None:
        self.kept.append(progress)


def job_of(method: str, how: Recipe, build: Callable[[], nn.Module] = mlp, **changes: Any) -> TrainJob:
    start = dense_job(build, how).start
    masks = dense_masks(start) if isinstance(METHODS.get(method), Gradual) else random_masks(start)
    job = replace(dense_job(build, how), masks=masks, updates=METHODS.get(method), save_at=(0, 4, 7, 16, 30))
    return replace(job, **changes)


def train(kind: Any, job: TrainJob, how: Recipe, build: Callable[[], nn.Module] = mlp) -> TrainOutcome:
    return kind(build, splits, how).train_one(job)


def same_changes(a: TrainOutcome, b: TrainOutcome) -> bool:
    """Whether two runs are the same in everything but wall time, masks and what was accumulated among it."""
    for one, other in ((a.masks, b.masks), (a.moved, b.moved)):
        if (one is None) != (other is None):
            return False
        held = list(zip((one or {}).items(), (other or {}).items(), strict=True))
        if any(a != b or not torch.equal(x, y) for (a, x), (b, y) in held):
            return False
    bare = {"masks": None, "moved": None}
    return same_run(replace(a, **bare), replace(b, **bare))  # type: ignore[arg-type]


@BOTH
@pytest.mark.parametrize("method", METHODS)
def test_every_change_keeps_exact_counts_and_dead_weights_are_zero(kind: Any, method: str) -> None:
    how, noting = RECIPES["momentum"], Noting(METHODS[method])
    positions = METHODS[method].steps
    job = job_of(method, how, updates=noting, save_at=tuple(range(31)))
    run = train(kind, job, how)
    assert run.result is RunResult.FINISHED
    assert tuple(step for step, _ in run.history) == positions == tuple(call[0] for call in noting.calls)
    now: Masks = job.masks
    for step in range(31):
        for at, _, before, after, *_ in noting.calls:
            if at == step:
                assert all(torch.equal(before[name], now[name]) for name in now), "what was given last"
                assert counts(after) == dict(run.history)[step]
                now = after
        for name, mask in now.items():
            assert not run.saved[step].params[name][~mask].any()
    assert run.masks is not None
    assert all(torch.equal(run.masks[name], now[name]) for name in now)
    inner = METHODS[method]
    if method == "global":
        assert sum(run.history[-1][1].values()) == sum(dict(FINAL).values())
    elif isinstance(inner, Gradual):
        assert run.history[-1][1] == dict(FINAL)
    else:
        assert all(kept == counts(job.masks) for _, kept in run.history)
        assert any(bool((run.masks[name] != job.masks[name]).any()) for name in now)


@BOTH
@pytest.mark.parametrize("method", ["set", "rigl", "gradual"])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_what_grows_and_what_is_dropped_has_no_moments_and_the_rest_keeps_its_own(
    kind: Any, method: str, name: str
) -> None:
    how, noting = RECIPES[name], Noting(METHODS[method])
    job = job_of(method, how, updates=noting, save_at=METHODS[method].steps)
    run, grown = train(kind, job, how), 0
    for step, params, before, after, *_ in noting.calls:
        snapshot, slots = run.saved[step], run.saved[step].optimizer or {}
        assert (slots == {}) == (name == "sgd")
        # Without this change the same run has these moments here.
        held = train(kind, replace(job, stop=step, save_at=()), how).end.optimizer or {}
        for weight, mask in after.items():
            fresh, gone = mask & ~before[weight], before[weight] & ~mask
            stays = mask & before[weight]
            grown += int(fresh.sum())
            assert torch.equal(snapshot.params[weight][stays], params[weight][stays])
            for slot, value in slots.get(weight, {}).items():
                if value.shape != mask.shape:
                    continue
                assert not value[fresh].any()
                assert not value[gone].any()
                assert bool(value[stays].any())
                assert torch.equal(value[stays], held[weight][slot][stays])
                assert bool(held[weight][slot][gone].any()) or not gone.any(), "there was something to erase"
            assert not snapshot.params[weight][fresh | gone].any()
    assert (grown > 0) == (method != "gradual")


@BOTH
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["nesterov", "adam"])
def test_gone_on_with_from_any_point_it_ends_in_the_same_bits(kind: Any, method: str, name: str) -> None:
    how = RECIPES[name]
    job, keeping, trainer = job_of(method, how), Keeping(), kind(mlp, splits, how)
    whole = trainer.train_one(job, keeper=keeping)
    assert same_changes(whole, trainer.train_one(job))
    assert len({len(progress.history) for progress in keeping.kept}) >= 3
    for progress in keeping.kept:
        assert same_changes(trainer.train_one(job, resumed=progress), whole), progress.now.step
    stopping = Keeping(after=2)
    cut = replace(trainer, watcher=stopping).train_one(job, keeper=stopping)
    assert cut.result is RunResult.INTERRUPTED
    assert same_changes(trainer.train_one(job, resumed=stopping.kept[-1]), whole)


@BOTH
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("gradient", [False, True])
def test_a_change_of_nothing_leaves_the_run_as_it_was(kind: Any, name: str, gradient: bool) -> None:
    how = RECIPES[name]
    job = replace(job_of("", how), updates=None)
    plain, still = train(kind, job, how), train(kind, replace(job, updates=Still(gradient=gradient)), how)
    assert plain.masks is None
    assert plain.history == ()
    assert [step for step, _ in still.history] == [3, 7, 10, 20, 29]
    assert not differing(plain.end, still.end)
    assert all(not differing(plain.saved[at], still.saved[at]) for at in plain.saved)
    assert plain.curve == still.curve


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))


@pytest.mark.parametrize(
    ("kind", "build"),
    [
        (PlainTrainer, stochastic),
        (PlainTrainer, dropping),
        pytest.param(*SPARSE.values, dropping, marks=SPARSE.marks),
    ],
)
def test_looking_at_a_gradient_leaves_no_trace(kind: Any, build: Callable[[], nn.Module]) -> None:
    """Neither in batch norm's statistics nor in what dropout draws."""
    how = RECIPES["adam"]
    job = replace(job_of("", how, build), updates=None)
    plain, still = train(kind, job, how, build), train(kind, replace(job, updates=Still()), how, build)
    assert not differing(plain.end, still.end)
    assert not differing(plain.saved[16], still.saved[16])
    assert plain.curve == still.curve


@BOTH
def test_the_gradient_is_that_of_the_next_batch_by_every_entry(kind: Any) -> None:
    how, noting = RECIPES["momentum"], Noting(METHODS["rigl"])
    train(kind, job_of("rigl", how, updates=noting), how)
    for step, params, masks, _, gradient, *_ in noting.calls:
        model = mlp()
        model.load_state_dict(params)
        batch = BatchOrder(len(DATA.train_y), how.batch_size, Seed(3, 1)).at(step)
        functional.cross_entropy(model(DATA.train_x[batch]), DATA.train_y[batch]).backward()
        for name, p in model.named_parameters():
            if name in masks:
                torch.testing.assert_close(gradient[name], p.grad)
                assert bool(gradient[name][~masks[name]].any())
        assert gradient.keys() == masks.keys()


def images() -> Split:
    draw = torch.Generator().manual_seed(0)
    return Split(
        *(part for n in (130, 60, 80) for part in (torch.rand(n, 1, 6, 6, generator=draw), torch.arange(n) % 4))
    )


def on_images() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 4))


def test_the_gradient_is_of_the_batch_as_it_is_augmented() -> None:
    how, noting, split = recipe(augment="crop-flip"), Noting(RigL(end=25, every=4)), images()
    job = job_of("rigl", how, on_images, updates=noting)
    PlainTrainer(on_images, lambda _: split, how).train_one(job)
    for step, params, _, _, gradient, *_ in noting.calls:
        model = on_images()
        model.load_state_dict(params)
        batch = BatchOrder(len(split.train_y), how.batch_size, job.seed).at(step)
        x = augmented("crop-flip", split.train_x[batch], job.seed, step)
        functional.cross_entropy(model(x), split.train_y[batch]).backward()
        torch.testing.assert_close(gradient["1.weight"], model[1].weight.grad)
    assert len(noting.calls) == 6


@pytest.mark.skipif(not available(), reason="the kernels are not here")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", RECIPES)
def test_the_engines_agree(method: str, name: str) -> None:
    """Over the first changes; later ones may rank two weights the other way round, of which rounding decides."""
    how = RECIPES[name]
    job = job_of(method, how, stop=16, save_at=(4, 7))
    plain, sparse = train(PlainTrainer, job, how), train(SparseTrainer, job, how)
    assert len(plain.history) >= 2
    assert plain.history == sparse.history
    assert plain.masks is not None
    assert sparse.masks is not None
    assert all(torch.equal(plain.masks[one], sparse.masks[one]) for one in plain.masks)
    for one, other in ((plain.end, sparse.end), *((plain.saved[at], sparse.saved[at]) for at in plain.saved)):
        for weight, value in one.params.items():
            torch.testing.assert_close(value, other.params[weight], atol=1e-4, rtol=0)
    torch.testing.assert_close(plain.curve.loss, sparse.curve.loss, atol=1e-4, rtol=0)


@BOTH
def test_the_best_network_is_one_of_the_final_masks(kind: Any) -> None:
    """The least loss of all is seen before the last change, when far more weights are left, and does not count."""
    how = recipe(iterations=40, eval_every=2, lr=0.02)
    final = (("0.weight", 4), ("2.weight", 4), ("4.weight", 4))
    job = job_of("gradual", how, updates=Gradual(final, begin=20, end=31, every=1), stop=40)
    run, keeping = train(kind, job, how), Keeping()
    counted = [(loss, step) for step, loss in zip(run.curve.steps, run.curve.loss, strict=True) if step >= 31]
    assert min(run.curve.loss) < min(counted)[0]
    assert run.early_stop_iteration == min(counted)[1] == run.best.step
    assert run.masks is not None
    assert not any(bool(run.best.params[name][~mask].any()) for name, mask in run.masks.items())
    trainer = kind(mlp, splits, how)
    trainer.train_one(job, keeper=keeping)
    for progress in (*keeping.kept[::8], keeping.kept[-1]):
        assert trainer.train_one(job, resumed=progress).best.step == run.best.step


def test_a_network_that_is_not_finite_where_masks_change_has_diverged() -> None:
    how = recipe(optimizer="sgd", lr=1e30)
    for method in ("gradual", "rigl"):
        run = train(PlainTrainer, job_of(method, how, save_at=()), how)
        assert run.result is RunResult.DIVERGED
        assert "are not finite at iteration 4, where masks change" in run.sentence
        assert run.end.step == 4
        assert run.history == ()
        assert run.early_stop_iteration is None


@BOTH
def test_positions_are_those_inside_a_job(kind: Any) -> None:
    """From a later start on, and none where it starts or stops; a job cut in two misses the change at the cut."""
    how = RECIPES["momentum"]
    whole = job_of("set", how)
    assert changes(whole) == (4, 8, 12, 16, 20, 24)
    start = replace(whole.start, step=8)
    inside = replace(whole, start=start, stop=20, save_at=())
    assert changes(inside) == (12, 16)
    run = train(kind, inside, how)
    assert [step for step, _ in run.history] == [12, 16]
    assert run.iterations == 12
    first = train(kind, replace(whole, stop=10, save_at=()), how)
    assert first.masks is not None
    second = train(kind, replace(whole, start=first.end, masks=first.masks), how)
    straight = train(kind, whole, how)
    assert not differing(second.end, straight.end), "what is drawn for a position depends on the position"
    assert (*first.history, *second.history) == straight.history


def test_a_job_with_changes_can_be_sent_to_another_process() -> None:
    how = RECIPES["adam"]
    for method in METHODS:
        job = job_of(method, how)
        assert same_changes(train(PlainTrainer, pickle.loads(pickle.dumps(job)), how), train(PlainTrainer, job, how))


def test_who_trains_under_fixed_masks_alone_says_so() -> None:
    how = RECIPES["sgd"]
    own = OwnTrainer(mlp, lambda model, *, seed, iterations, record: 1.0)  # noqa: ARG005
    for job, use in ((job_of("set", how), "plain or sparse"), (job_of("", how, moved=True), "plain")):
        for trainer in (ReplicaTrainer(mlp, splits, how), own):
            with pytest.raises(InvalidValue, match=f"under fixed masks.* Use the engine {use} for it"):
                trainer([job])
    with pytest.raises(InvalidValue, match="Use the plain engine"):
        SparseTrainer(mlp, splits, how)([job_of("", how, moved=True)])
    with pytest.raises(InvalidValue, match="a mask for every tensor that may change"):
        train(PlainTrainer, job_of("set", how, masks={}), how)


@dataclass(frozen=True)
class Wrong:
    """Gives masks that are none of these tensors."""

    steps: tuple[Step, ...] = (3,)

    def wants_gradient(self, step: Step) -> bool:  # noqa: ARG002
        return False

    def update(self, step: Step, params: Params, masks: Masks, *_: Any) -> dict[str, Tensor]:  # noqa: ARG002
        return {"other": torch.ones(2, dtype=torch.bool)}

    def describe(self) -> Mapping[str, Any]:
        return {}


def test_an_update_gives_masks_for_the_tensors_that_it_was_given() -> None:
    with pytest.raises(InvalidValue, match=r"the update at 3 gave masks for other tensors.*other"):
        train(PlainTrainer, job_of("set", RECIPES["sgd"], updates=Wrong()), RECIPES["sgd"])


def test_the_engine_that_is_picked_can_do_it() -> None:
    model, x = mlp(), DATA.train_x[0]
    assert pick("auto", model, x, "cpu", moved=True).name == "plain"
    assert pick("auto", model, x, "cuda", moved=True).name == "plain"
    assert "masks change" in str(pick("auto", model, x, "cuda", dynamic=True).why)
    assert pick("auto", model, x, "cuda", dynamic=True).name == "plain"
    assert pick("auto", model, x, "cuda").name == "replicas"
    assert pick("plain", model, x, "cpu", dynamic=True, moved=True).name == "plain"
    with pytest.raises(InvalidValue, match=r"masks change during training.* Use the engine auto, or plain or sparse"):
        pick("replicas", model, x, "cpu", dynamic=True)
    for asked in ("replicas", "sparse"):
        with pytest.raises(InvalidValue, match=r"accumulates how weights moved.* Use the engine auto, or plain\."):
            pick(asked, model, x, "cpu", moved=True)
    if available():
        assert pick("auto", model, x, "cpu", dynamic=True).name == "sparse"
        assert pick("sparse", model, x, "cpu", dynamic=True).name == "sparse"


def accumulated(job: TrainJob, how: Recipe) -> dict[str, Tensor]:
    """-sum_t lr_t g_t w_t in a loop of its own, plain SGD."""
    model = mlp()
    model.load_state_dict(job.start.params)
    params = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in job.masks.items():
            params[name].mul_(mask)
    found = {name: torch.zeros_like(p.detach(), dtype=torch.float64) for name, p in params.items()}
    order = BatchOrder(len(DATA.train_y), how.batch_size, job.seed)
    for step in range(job.start.step, job.stop):
        batch = order.at(step)
        model.zero_grad()
        functional.cross_entropy(model(DATA.train_x[batch]), DATA.train_y[batch]).backward()
        with torch.no_grad():
            for name, p in params.items():
                assert p.grad is not None
                masked = p.grad * job.masks[name] if name in job.masks else p.grad
                found[name] -= how.lr_at(step) * masked.double() * p.double()
                p -= how.lr_at(step) * (masked + how.weight_decay * p)
    return found


def test_what_training_accumulates_is_its_definition() -> None:
    """The rate of each step, the gradient of the loss without the decay, the weight before the step."""
    how = recipe(optimizer="sgd", lr=0.2, schedule="cosine", warmup=5, weight_decay=0.1)
    for masks in ({}, random_masks(dense_job(mlp, how).start)):
        job = job_of("", how, masks=masks, moved=True)
        run, expected = train(PlainTrainer, job, how), accumulated(job, how)
        assert run.moved is not None
        assert run.moved.keys() == (masks.keys() or job.start.params.keys())
        for name, value in run.moved.items():
            torch.testing.assert_close(value.double(), expected[name], atol=1e-5, rtol=1e-4)
            if name in masks:
                assert not value[~masks[name]].any()
        assert train(PlainTrainer, replace(job, moved=False), how).moved is None


def test_it_reaches_the_changes_and_survives_a_stop() -> None:
    how, keeping = RECIPES["adam"], Keeping()
    noting = Noting(Gradual(FINAL, begin=4, end=22, every=6, criterion=by_moved))
    job = job_of("gradual", how, updates=noting, moved=True)
    whole, trainer = train(PlainTrainer, job, how), PlainTrainer(mlp, splits, how)
    step, *_, moved, _ = noting.calls[1]
    upto = train(PlainTrainer, replace(job, stop=step, save_at=()), how)
    assert upto.moved is not None
    assert all(torch.equal(moved[name], upto.moved[name]) for name in job.masks)
    trainer.train_one(job, keeper=keeping)
    for progress in keeping.kept:
        assert same_changes(trainer.train_one(job, resumed=progress), whole), progress.now.step


def test_accumulating_changes_nothing_else() -> None:
    how = RECIPES["nesterov"]
    with_it, without = (train(PlainTrainer, job_of("rigl", how, moved=moved), how) for moved in (True, False))
    assert same_changes(replace(with_it, moved=None), without)
