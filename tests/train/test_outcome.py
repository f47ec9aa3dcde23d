"""What a run leaves behind: snapshots, the curve, how it ended, and a test split read once at the very end."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from train_kit import DATA, RECIPES, dense_job, differing, mlp, plain, random_masks, recipe, splits, stochastic

from tombola.data import Split
from tombola.errors import DataTooSmall, InvalidValue, ShapeMismatch
from tombola.prune.rewinding import masked
from tombola.train.plain import PlainTrainer
from tombola.types import RunResult, Snapshot


class Recorder:
    """A watcher that writes everything down, and stops before a given look."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.seen: list[tuple[int, int, float, float]] = []
        self.looks, self.stop_at = 0, stop_at

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:
        self.seen.append((job, step, loss, accuracy))

    def stop(self) -> bool:
        self.looks += 1
        return self.stop_at is not None and self.looks > self.stop_at


def test_snapshots_are_saved_at_the_start_between_and_at_the_end() -> None:
    job = dense_job(stochastic, RECIPES["momentum"], 0, 17, 30)
    (run,) = plain(stochastic, RECIPES["momentum"])([job])
    assert sorted(run.saved) == [0, 17, 30] == [run.saved[k].step for k in (0, 17, 30)]
    assert differing(run.saved[0], job.start) == []
    assert differing(run.saved[30], run.end) == []
    assert run.saved[0].optimizer is None
    assert run.saved[17].optimizer is not None
    assert int(run.saved[17].buffers["1.num_batches_tracked"]) == 17


def test_the_start_is_saved_as_it_is_trained_under_its_mask() -> None:
    job = dense_job(mlp, recipe(), 0)
    masks = random_masks(job.start)
    (run,) = plain(mlp, recipe())([replace(job, masks=masks)])
    assert differing(run.saved[0], masked(job.start, masks)) == []


def test_the_last_iteration_belongs_to_the_grid() -> None:
    how = recipe(iterations=37)
    (run,) = plain(mlp, how)([dense_job(mlp, how)])
    assert run.curve.steps == (10, 20, 30, 37)
    assert run.iterations == 37


def test_the_grid_follows_the_position_and_not_the_start() -> None:
    job = dense_job(mlp, recipe())
    (run,) = plain(mlp, recipe())([replace(job, start=replace(job.start, step=13))])
    assert run.curve.steps == (20, 30)
    assert run.iterations == 17


def test_a_minimum_at_the_end_is_censored() -> None:
    how = recipe(lr=1e-4)
    (run,) = plain(mlp, how)([dense_job(mlp, how)])
    assert list(run.curve.loss) == sorted(run.curve.loss, reverse=True)
    assert (run.early_stop_iteration, run.censored) == (30, True)


def test_nothing_to_train_is_a_finished_run() -> None:
    job = dense_job(mlp, recipe())
    (run,) = plain(mlp, recipe())([replace(job, start=replace(job.start, step=30))])
    assert (run.result, run.iterations, run.curve.steps) == (RunResult.FINISHED, 0, ())
    assert differing(replace(run.end, step=0), job.start) == []
    assert run.test_accuracy is not None


class CountedSplit:
    """A split that writes down when its test part is read."""

    def __init__(self, log: list[str], split: Split = DATA) -> None:
        self._log, self._split = log, split

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("test"):
            self._log.append(name)
        value: Tensor = getattr(self._split, name)
        return value


class Log(Recorder):
    """A watcher that writes its evaluations into the log of the split."""

    def __init__(self, log: list[str], stop_at: int | None = None) -> None:
        super().__init__(stop_at)
        self.log = log

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:
        super().evaluated(job, step, loss, accuracy)
        self.log.append(f"validation {step}")


def logged(how_ends: str) -> tuple[RunResult, list[str]]:
    """Train with everything logged, to one of the three ends."""
    log: list[str] = []
    how = recipe(optimizer="sgd", lr=1e30) if how_ends == "diverged" else recipe()
    watcher = Log(log, stop_at=15 if how_ends == "interrupted" else None)
    trainer = PlainTrainer(mlp, lambda _: CountedSplit(log), how, watcher=watcher)
    (run,) = trainer([dense_job(mlp, how)])
    return run.result, log


def test_the_test_split_is_read_once_for_each_snapshot_and_only_after_training() -> None:
    result, log = logged("finished")
    assert result is RunResult.FINISHED
    assert log == ["validation 10", "validation 20", "validation 30", *["test_x", "test_y"] * 2]


def test_a_run_that_did_not_finish_never_reads_the_test_split() -> None:
    assert logged("diverged") == (RunResult.DIVERGED, ["validation 10"])
    assert logged("interrupted") == (RunResult.INTERRUPTED, ["validation 10"])


def broken(part: str) -> Split:
    value = getattr(DATA, part).clone()
    value[3, 2] = torch.nan
    return replace(DATA, **{part: value})


@pytest.mark.parametrize("part", ["train_x", "val_x"])
def test_nan_in_the_data_is_divergence_with_its_iteration(part: str) -> None:
    how = recipe()
    job = dense_job(mlp, how)
    for masks in ({}, random_masks(job.start)):
        (run,) = PlainTrainer(mlp, lambda _: broken(part), how)([replace(job, masks=masks)])
        assert run.result is RunResult.DIVERGED
        assert run.sentence == "diverged: the validation loss is nan at iteration 10"
        assert (run.iterations, run.early_stop_iteration, run.censored) == (10, None, False)
        assert run.test_accuracy is run.test_accuracy_at_early_stop is None


def test_divergence_late_in_a_run_leaves_no_early_stop() -> None:
    how = recipe(optimizer="sgd", schedule="step", milestones=(15,), gamma=1e30, lr=0.05)
    (run,) = plain(mlp, how)([dense_job(mlp, how)])
    assert run.result is RunResult.DIVERGED
    assert run.curve.steps == (10, 20)
    assert run.early_stop_iteration is None
    assert run.best.step == 10


def test_the_watcher_is_told_of_every_evaluation_and_can_stop() -> None:
    watcher = Recorder()
    trainer = PlainTrainer(mlp, splits, recipe(), watcher=watcher)
    runs = trainer([dense_job(mlp, recipe())] * 2)
    assert watcher.seen == [
        (number, step, loss, accuracy)
        for number, run in enumerate(runs)
        for step, loss, accuracy in zip(run.curve.steps, run.curve.loss, run.curve.accuracy, strict=True)
    ]
    watcher = Recorder(stop_at=12)
    (run,) = PlainTrainer(mlp, splits, recipe(), watcher=watcher)([dense_job(mlp, recipe())])
    assert run.result is RunResult.INTERRUPTED
    assert run.sentence == "interrupted at iteration 12 of 30"
    assert (run.iterations, run.end.step, run.early_stop_iteration) == (12, 12, None)


def changed(snapshot: Snapshot, **params: Tensor) -> Snapshot:
    return replace(snapshot, params={**snapshot.params, **params})


def test_a_job_that_does_not_fit_is_refused() -> None:
    job = dense_job(stochastic, recipe())
    init = job.start
    train = plain(stochastic, recipe())
    lacking = dict(init.params)
    del lacking["4.bias"]
    good = random_masks(init)["0.weight"]
    momentum = {"momentum_buffer": torch.zeros(3)}
    for start, masks, says in (
        (changed(init, **{"4.weight": torch.zeros(3, 3)}), {}, "'4.weight' has shape"),
        (replace(init, params=lacking), {}, "4.bias is in one only"),
        (replace(init, buffers={}), {}, "same buffers"),
        (replace(init, buffers={**init.buffers, "1.running_mean": torch.zeros(3)}), {}, "'1.running_mean' has shape"),
        (init, {"0.weight": good[:1]}, "mask '0.weight'"),
        (init, {"nowhere": good}, "mask for 'nowhere'"),
        (replace(init, optimizer={"nowhere": momentum}), {}, "state of 'nowhere'"),
        (replace(init, optimizer={"0.weight": momentum}), {}, "state of '0.weight'"),
    ):
        with pytest.raises(ShapeMismatch, match=says):
            train([replace(job, start=start, masks=masks)])
    with pytest.raises(InvalidValue, match=r"torch\.bool"):
        train([replace(job, masks={"0.weight": good.float()})])
    with pytest.raises(InvalidValue, match="must not run back"):
        train([replace(job, start=replace(init, step=31))])


def test_a_batch_larger_than_the_data_is_refused_and_an_equal_one_is_not() -> None:
    n = len(DATA.train_y)
    (run,) = plain(mlp, recipe(batch_size=n))([dense_job(mlp, recipe(batch_size=n))])
    assert run.result is RunResult.FINISHED
    with pytest.raises(DataTooSmall):
        plain(mlp, recipe(batch_size=n + 1))([dense_job(mlp, recipe(batch_size=n + 1))])


def test_a_parameter_that_is_not_used_stays() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = mlp(), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    how = recipe(optimizer="adamw", weight_decay=0.1)
    job = dense_job(Spare, how)
    init = job.start
    masks = {"spare.weight": torch.eye(3, dtype=torch.bool), "used.0.weight": random_masks(init)["used.0.weight"]}
    (run,) = plain(Spare, how)([replace(job, masks=masks)])
    assert torch.equal(run.end.params["spare.weight"], init.params["spare.weight"] * torch.eye(3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("how", RECIPES.values(), ids=RECIPES.keys())
def test_on_a_gpu_pruned_weights_stay_zero_and_saved_state_resumes(how: object) -> None:
    trainer = PlainTrainer(stochastic, splits, how, "cuda")
    job = dense_job(stochastic, how, 15)
    (dense,) = trainer([job])
    masks = random_masks(job.start)
    (run, rest) = trainer([replace(job, start=dense.saved[15], masks=m, save_at=(16, 30)) for m in (masks, {})])
    for step in (16, 30):
        assert all(not bool(run.saved[step].params[name][~mask].any()) for name, mask in masks.items())
    for name, value in rest.end.params.items():
        torch.testing.assert_close(value, dense.end.params[name])
