"""Units on a Ray cluster: the same plan and the same store, on a folder that every machine sees."""

import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any

from tombola.errors import InvalidValue, TombolaError, WorkerDied
from tombola.study.remembering import Order, Remembering
from tombola.study.runner import Attempt
from tombola.train.watch import Unwatched
from tombola.types import TrainOutcome

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "1"}


def on_ray(address: str) -> Callable[[Remembering], AbstractContextManager[tuple[Attempt, Callable[[], None], int]]]:
    """Give workers on a cluster.

    Args:
        address: of its head, such as ``auto`` or ``ray://host:10001``; ``local`` starts one on this machine.

    Raises:
        InvalidValue: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise InvalidValue(
            "Ray is not installed. Install it: pip install 'tombola[ray]', or leave --ray out."
        ) from None

    @contextmanager
    def workers(one: Remembering) -> Iterator[tuple[Attempt, Callable[[], None], int]]:
        with connected(address) as ray:
            cuda = any(trainer.device.startswith("cuda") for trainer in one.trainers.values())
            # A worker sees one graphics card, the one that it was given.
            trainers = {
                name: replace(trainer, device="cuda") if trainer.device.startswith("cuda") else trainer
                for name, trainer in one.trainers.items()
            }
            payload = ray.put(pickle.dumps(replace(one, trainers=trainers, watcher=Unwatched())))
            train = ray.remote(num_cpus=1, num_gpus=1 if cuda else 0, max_retries=0)(_train)
            going: set[Any] = set()
            stopped = threading.Event()

            def attempt(order: Order, number: int) -> TrainOutcome | None:
                reference = train.remote(payload, order, number)
                going.add(reference)
                if stopped.is_set():
                    ray.cancel(reference, force=True)
                try:
                    outcome: TrainOutcome | None = ray.get(reference)
                except ray.exceptions.TaskCancelledError as error:
                    raise KeyboardInterrupt("stopped") from error
                except ray.exceptions.RayTaskError as error:
                    raise (error.cause if isinstance(error.cause, TombolaError) else error) from error
                except ray.exceptions.RayError as error:
                    if stopped.is_set():
                        raise KeyboardInterrupt("stopped") from error
                    raise WorkerDied(f"a Ray worker died while it trained a unit: {error}") from error
                finally:
                    going.discard(reference)
                return outcome

            def let_stop() -> None:
                stopped.set()
                for reference in list(going):
                    with suppress(Exception):
                        ray.cancel(reference, force=True)

            yield attempt, let_stop, max(1, int(ray.cluster_resources().get("GPU" if cuda else "CPU", 1)))

    return workers


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to a cluster for as long as the context lasts.

    Raises:
        InvalidValue: it cannot be reached.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if address == "local":
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    mine = not ray.is_initialized()
    if mine:
        where = {} if address == "local" else {"address": address}
        terminate = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False, **where)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InvalidValue(
                f"there is no Ray cluster at {address!r}: {error}. Start one, or use --ray local."
            ) from error
        # Ray takes a polite kill for itself, and would end the process by its own exit code.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def _train(payload: bytes, order: Order, number: int) -> TrainOutcome | None:
    return _unpickled(payload).train_one(order, number)


@lru_cache(maxsize=1)
def _unpickled(payload: bytes) -> Remembering:
    """Read the trainers once in each worker, and with them the data."""
    one: Remembering = pickle.loads(payload)
    return one
