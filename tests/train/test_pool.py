"""Several processes: the same bits, and no way for them to hang, vanish or stay behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import train_kit
from train_kit import DATA, RECIPES, dense_job, mlp, random_masks, recipe, same_run, splits, stochastic

from tombola.data import Split
from tombola.errors import DataTooSmall, InvalidValue, WorkerDied
from tombola.train.plain import PlainTrainer
from tombola.train.pool import Pool
from tombola.types import RunResult, Seed, TrainJob

ENDLESS = recipe(iterations=10**7, eval_every=50)


def jobs() -> list[TrainJob]:
    dense = dense_job(stochastic, RECIPES["adamw"], 11)
    masks = random_masks(dense.start)
    return [dense, replace(dense, masks=masks), replace(dense, seed=Seed(8)), replace(dense, masks=masks, seed=Seed(8))]


class Watcher:
    """Counts evaluations by job, and acts once at the first."""

    def __init__(self, act: object = None) -> None:
        self.seen: list[tuple[int, int]] = []
        self.stopping = False
        self.act = act

    def evaluated(self, job: int, step: int, loss: float, accuracy: float) -> None:  # noqa: ARG002
        self.seen.append((job, step))
        act, self.act = self.act, None
        if callable(act):
            act()

    def stop(self) -> bool:
        return self.stopping


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(PlainTrainer(stochastic, splits, RECIPES["adamw"], watcher=Watcher()), 2) as shared:
        yield shared


def worker_ids(pool: Pool) -> list[int]:
    assert pool._executor is not None
    return list(pool._executor._processes)


def gone(pid: int, within: float = 5.0) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_two_workers_give_the_bits_of_one(pool: Pool) -> None:
    alone = PlainTrainer(stochastic, splits, RECIPES["adamw"])(jobs())
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2,)):
        together = pool([jobs()[n] for n in order])
        assert [same_run(run, alone[n]) for n, run in zip(order, together, strict=True)] == [True] * len(order)


def test_the_watcher_has_heard_everything_when_the_call_returns(pool: Pool) -> None:
    watcher = pool._trainer.watcher
    assert isinstance(watcher, Watcher)
    watcher.seen.clear()
    pool(jobs()[:2])
    assert sorted(watcher.seen) == [(number, step) for number in (0, 1) for step in (10, 20, 30)]


def test_no_jobs_and_one_worker_need_no_process() -> None:
    with Pool(PlainTrainer(lambda: mlp(), splits, recipe()), 1) as one:
        assert len(one([dense_job(mlp, recipe())])) == 1
        assert one._executor is None
    with Pool(PlainTrainer(mlp, splits, recipe()), 2) as two:
        assert two([]) == []
        assert two._executor is None
    with pytest.raises(InvalidValue, match="at least 1"):
        Pool(PlainTrainer(mlp, splits, recipe()), 0)


def test_a_killed_worker_is_an_error_and_nothing_stays_behind() -> None:
    watcher, threads = Watcher(), threading.active_count()
    with Pool(PlainTrainer(mlp, splits, ENDLESS, watcher=watcher), 2) as pool:
        ids: list[int] = []

        def kill() -> None:
            ids.extend(worker_ids(pool))
            os.kill(ids[0], signal.SIGKILL)

        watcher.act = kill
        with pytest.raises(WorkerDied, match=r"killed from outside.*fewer --workers"):
            pool([dense_job(mlp, ENDLESS)] * 3)
        assert len(ids) == 2
        assert all(gone(pid) for pid in ids)
    assert threading.active_count() == threads


def small(seed: Seed) -> Split:  # noqa: ARG001
    return replace(DATA, train_x=DATA.train_x[:5], train_y=DATA.train_y[:5])


def test_an_error_in_a_worker_arrives_as_itself_and_the_pool_goes_on() -> None:
    with Pool(PlainTrainer(mlp, splits_or_small, recipe()), 2) as pool:
        good, bad = dense_job(mlp, recipe()), replace(dense_job(mlp, recipe()), seed=Seed(99))
        with pytest.raises(DataTooSmall, match="batch size is 20 and there are 5"):
            pool([good, bad, good, good])
        (run,) = pool([good])
        assert run.result is RunResult.FINISHED
        pool.close()
        pool.close()


def splits_or_small(seed: Seed) -> Split:
    return small(seed) if seed.root == 99 else splits(seed)


def test_the_watchers_wish_to_stop_reaches_the_workers() -> None:
    watcher = Watcher()
    watcher.act = lambda: setattr(watcher, "stopping", True)
    with Pool(PlainTrainer(mlp, splits, ENDLESS, watcher=watcher), 2) as pool:
        runs = pool([dense_job(mlp, ENDLESS)] * 3)
    assert {run.result for run in runs} == {RunResult.INTERRUPTED}
    assert all(run.test_accuracy is None for run in runs)


def test_a_watcher_that_fails_ends_the_call() -> None:
    def fail() -> None:
        raise RuntimeError("the display broke")

    with (
        Pool(PlainTrainer(mlp, splits, ENDLESS, watcher=Watcher(fail)), 2) as pool,
        pytest.raises(RuntimeError, match="the display broke"),
    ):
        pool([dense_job(mlp, ENDLESS)] * 2)


def test_a_network_that_cannot_be_sent_is_refused_with_advice() -> None:
    with (
        Pool(PlainTrainer(lambda: mlp(), splits, recipe()), 2) as pool,
        pytest.raises(InvalidValue, match="top of a module, or use workers=1"),
    ):
        pool([dense_job(mlp, recipe())])


def test_a_network_that_the_worker_cannot_import_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that was made by hand here is not there in another process."""
    made = type(sys)("made_by_hand")
    exec("def build():\n    import train_kit\n    return train_kit.mlp()", vars(made))
    monkeypatch.setitem(sys.modules, "made_by_hand", made)
    with (
        Pool(PlainTrainer(made.build, splits, recipe()), 2) as pool,
        pytest.raises(InvalidValue, match=r"made_by_hand.*use workers=1"),
    ):
        pool([dense_job(mlp, recipe())])


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from train_kit import dense_job, mlp, recipe, splits
from tombola.train.plain import PlainTrainer
from tombola.train.pool import Pool

class Announce:
    def evaluated(self, *_):
        print(*pool._executor._processes, flush=True)
    def stop(self):
        return False

if __name__ == "__main__":
    how = recipe(iterations=10**7, eval_every=500)
    for _ in range(2):
        try:
            with Pool(PlainTrainer(mlp, splits, how, watcher=Announce()), 2) as pool:
                pool([dense_job(mlp, how)] * 3)
        except KeyboardInterrupt:
            print("stopped", flush=True)
"""


def test_ctrl_c_and_a_killed_parent_leave_no_worker(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole process group, as from a terminal; every worker is gone within two seconds."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(Path(train_kit.__file__).parent)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            first = [int(word) for word in process.stdout.readline().split()]
            assert first
            began = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            assert all(gone(pid, within=2.0) for pid in first)
            assert "stopped\n" in iter(process.stdout.readline, "")
            assert time.monotonic() - began < 2.0

            second = [int(word) for word in process.stdout.readline().split()]
            assert second
            assert not set(first) & set(second)
            os.kill(process.pid, signal.SIGKILL)
            assert all(gone(pid) for pid in second)
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
