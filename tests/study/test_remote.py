"""The same study through a Ray cluster of two workers: the same bits, and a worker killed in a unit is survived."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from study_kit import results, settings, spec

from tombola.errors import InvalidValue
from tombola.study.running import run
from tombola.study.spec import Spec
from tombola.study.store import Store

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'tombola[ray]'")

KIT = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def cluster() -> Any:
    """Give a cluster of two workers on this machine."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": KIT, "OMP_NUM_THREADS": "1"}},
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study by the local runner."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    run(spec(), folder, folder / "store").save(folder)
    return folder


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_gives_the_bits_of_the_local_runner(cluster: Any, whole: Path, tmp_path: Path) -> None:  # noqa: ARG001
    from tombola.study.remote import on_ray

    run(spec(), tmp_path / "s", tmp_path / "s/store", on_ray("local")).save(tmp_path / "s")
    assert results(tmp_path / "s") == results(whole)
    assert Store(tmp_path / "s/store").entries().keys() == Store(whole / "store").entries().keys()


@pytest.mark.filterwarnings("ignore")
def test_a_worker_killed_in_a_unit_is_survived(cluster: Any, tmp_path: Path) -> None:
    from tombola.study.remote import on_ray

    long = Spec("long", {"one": settings(rounds=1, controls=(), recipe={"iterations": 3000, "eval_every": 100})})
    run(long, tmp_path / "whole", tmp_path / "whole/store").save(tmp_path / "whole")
    killed: list[int] = []

    def kill() -> None:
        locks = tmp_path / "s/store/locks"
        while not killed:
            time.sleep(0.05)
            if not locks.is_dir() or not any(len(path.name) == 64 for path in locks.iterdir()):
                continue
            for actor in cluster.util.state.list_workers(filters=[("worker_type", "=", "WORKER")]):
                if actor.is_alive and not killed:
                    os.kill(actor.pid, signal.SIGKILL)
                    killed.append(actor.pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    run(long, tmp_path / "s", tmp_path / "s/store", on_ray("local")).save(tmp_path / "s")
    killer.join(10)
    assert killed
    assert results(tmp_path / "s") == results(tmp_path / "whole")


def test_no_cluster_is_a_clear_error(tmp_path: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    from tombola.study.remote import on_ray

    with pytest.raises(InvalidValue, match="no Ray cluster"):
        run(spec(), tmp_path / "s", tmp_path / "s/store", on_ray("ray://127.0.0.1:1"))
