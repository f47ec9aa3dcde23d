"""Units on a Ray cluster: the same plan and the same store, on a folder that every machine sees."""

import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, final

import tombola
from tombola.errors import InvalidValue, TombolaError, WorkerDied
from tombola.study import sweeping
from tombola.study.remembering import Order, Remembering
from tombola.study.runner import Attempt
from tombola.train.watch import Unwatched
from tombola.types import Step, TrainOutcome

LOCAL: Final = "local"
"""The address that starts a cluster on this machine, for as long as the study runs."""

_TELL_EVERY_SECONDS: Final = 0.2
_KNOCK_SECONDS: Final = 5.0
_GENTLE_SECONDS: Final = 1.0
"""That units in progress are given to be kept, when a study is stopped."""

_LONGEST_FOLDER: Final = 40
"""Bytes: below it Ray makes unix sockets, whose whole path has 107 at most."""

_Reading = tuple[int, Step, float, float]


def on_ray(address: str) -> Callable[[Remembering], AbstractContextManager[tuple[Attempt, Callable[[], None], int]]]:
    """Give workers on a cluster: as many as it has processors or, for a study on CUDA, graphics cards.

    Args:
        address: ``HOST:PORT`` of its head, or ``auto`` for the one that this machine belongs to; ``local`` starts one
            on this machine alone.

    Raises:
        InvalidValue: Ray is not installed, or nothing answers at the address.
    """
    if "ray" not in sys.modules:
        # It reads them when it is imported, and what it starts reads them later: both must see the same.
        for name, value in _settings(address).items():
            os.environ.setdefault(name, value)
    try:
        import ray  # noqa: F401
    except ImportError:
        raise InvalidValue(
            "Ray is not installed. Install it: pip install 'tombola[ray]', or leave --ray out."
        ) from None
    _knock(address)

    @contextmanager
    def workers(one: Remembering) -> Iterator[tuple[Attempt, Callable[[], None], int]]:
        payload = _pickled(one)
        kind = "GPU" if any(trainer.device.startswith("cuda") for trainer in one.trainers.values()) else "CPU"
        with connected(address) as ray:
            count = int(ray.cluster_resources().get(kind, 0))
            if count < 1:
                raise InvalidValue(
                    f"the Ray cluster at {address!r} has no {kind}, and each unit needs one. Add a machine that has: "
                    "ray start --address=HOST:PORT."
                )
            units = _Units(ray, ray.put(payload), kind, one)
            yield units.attempt, units.let_stop, count

    return workers


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to a cluster for as long as the context lasts; where this process has a connection, it is used.

    Raises:
        InvalidValue: it cannot be reached, or has another version of Ray or Python.
    """
    import ray

    if ray.is_initialized():
        yield ray
        return
    with _folder() if address == LOCAL else _nothing() as options:
        try:
            _begin(ray, address, options)
            yield ray
        finally:
            ray.shutdown()


def _begin(ray: Any, address: str, options: dict[str, Any]) -> None:
    terminate = signal.getsignal(signal.SIGTERM)
    if "_temp_dir" in options:
        # What else this process starts, before and after, is none of the cluster's and outlives it.
        os.environ[sweeping.MARK] = options["_temp_dir"]
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, configure_logging=False, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
        raise InvalidValue(
            f"Ray cannot be used at {address!r}: {why}. Begin a cluster with ray start, or use --ray local; one with "
            "a token needs RAY_AUTH_MODE=token in the environment."
        ) from error
    except SystemExit as error:
        # While it starts, Ray takes a polite kill for itself.
        raise KeyboardInterrupt("stopped") from error
    finally:
        os.environ.pop(sweeping.MARK, None)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)


@final
class _Units:
    """Units that are trained on a cluster."""

    def __init__(self, ray: Any, payload: Any, kind: str, one: Remembering) -> None:
        gpus = 1 if kind == "GPU" else 0
        train = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, num_returns="streaming")(_train)
        self._ray, self._one = ray, one
        self._begin = lambda order, number: train.remote(tombola.__version__, payload, pickle.dumps(order), number)
        self._going: set[Any] = set()
        self._stopped = threading.Event()
        self._telling = threading.Lock()

    def attempt(self, order: Order, number: int) -> TrainOutcome | None:
        """Train a unit somewhere, and pass on what is said of it meanwhile."""
        ray = self._ray
        news = self._begin(order, number)
        self._going.add(news)
        if self._stopped.is_set():
            ray.cancel(news)
        try:
            for one in news:
                readings, ended = pickle.loads(ray.get(one))
                with self._telling:
                    for reading in readings:
                        self._one.watcher.evaluated(*reading)
                if ended is not None:
                    return _opened(ended)
        except ray.exceptions.TaskCancelledError as error:
            raise KeyboardInterrupt("stopped") from error
        except ray.exceptions.RayTaskError as error:
            raise InvalidValue(
                f"a Ray worker could not begin a unit: {error.cause!r}. Every machine of the cluster needs the same "
                "Python, the same tombola and what the study's model imports."
            ) from error
        except ray.exceptions.RayError as error:
            if self._stopped.is_set():
                raise KeyboardInterrupt("stopped") from error
            raise WorkerDied(
                f"a Ray worker died while it trained a unit: {error} If its machine ran out of memory, give the "
                "cluster fewer processors: ray start --num-cpus."
            ) from error
        finally:
            self._going.discard(news)
        raise WorkerDied("a Ray worker ended without an outcome. Look into the logs of the cluster.")

    def let_stop(self) -> None:
        """Let every unit in progress be kept and stop; what does not in time is ended as it is."""
        self._stopped.set()
        until = time.monotonic() + _GENTLE_SECONDS
        self._cancel(force=False)
        while self._going and time.monotonic() < until:
            time.sleep(0.02)
        self._cancel(force=True)

    def _cancel(self, *, force: bool) -> None:
        for news in list(self._going):
            with suppress(Exception):
                self._ray.cancel(news, force=force)


def _settings(address: str) -> dict[str, str]:
    if address == LOCAL:
        # Ray listens on every network of the machine; whoever does not know the word is turned away.
        more = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    else:
        # It would try for a quarter of an hour to reach what answers and is no cluster.
        more = {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_py_gcs_connect_timeout_s": "10"}
    return {"RAY_USAGE_STATS_ENABLED": "0", **more}


def _knock(address: str) -> None:
    """Refuse an address where nothing answers; Ray would go on trying."""
    where = (os.environ.get("RAY_ADDRESS") or address) if address == "auto" else address
    if where in (LOCAL, "auto"):
        return
    host, _, port = where.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InvalidValue(
            f"{where!r} is no address of a Ray cluster. Give HOST:PORT of its head (the port is 6379 where ray start "
            "was given none), auto on a machine that belongs to it, or local."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise InvalidValue(
            f"nothing answers at {where!r}, where a Ray cluster was expected: {error}. Begin one with "
            "ray start --head, or use --ray local."
        ) from error


@contextmanager
def _folder() -> Iterator[dict[str, Any]]:
    """Give a cluster of one machine a folder, and take it away in the end, however this process ends."""
    short = len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_FOLDER - len("/tombola-12345678")
    folder = tempfile.mkdtemp(prefix="tombola-", dir=None if short else "/tmp")
    # In a session of its own it does not hear Ctrl-C, and the end of its input is the end of this process.
    command = [sys.executable, "-I", "-S", sweeping.__file__, folder]
    sweeper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield {"_temp_dir": folder}
    finally:
        sweeper.communicate()


@contextmanager
def _nothing() -> Iterator[dict[str, Any]]:
    yield {}


def _pickled(one: Remembering) -> bytes:
    # A worker sees one graphics card, the one that it was given.
    trainers = {
        name: replace(trainer, device="cuda") if trainer.device.startswith("cuda") else trainer
        for name, trainer in one.trainers.items()
    }
    try:
        return pickle.dumps(replace(one, trainers=trainers, watcher=Unwatched()))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidValue(
            f"this model or data set cannot be sent to another process ({error}). Define its factory at the top of a "
            "module, or leave --ray out."
        ) from error


def _opened(ended: bytes) -> TrainOutcome | None:
    outcome: TrainOutcome | BaseException | None = pickle.loads(ended)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _train(version: str, payload: bytes, order: bytes, number: int) -> Iterator[bytes]:
    """Train a unit in a worker; gives what is to be told of it, and last what came out."""
    telling, ended, out = _Telling(), threading.Event(), deque[bytes]()

    def work() -> None:
        out.append(_outcome(version, payload, order, number, telling))
        ended.set()

    # Ray raises KeyboardInterrupt here, where nothing is lost by it.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while not ended.wait(_TELL_EVERY_SECONDS):
            if readings := telling.taken():
                yield pickle.dumps((readings, None))
        yield pickle.dumps((telling.taken(), out[0]))
    finally:
        telling.wish = True
        thread.join()


def _outcome(version: str, payload: bytes, order: bytes, number: int, telling: "_Telling") -> bytes:
    try:
        if version != tombola.__version__:
            raise InvalidValue(
                f"a Ray worker has tombola {tombola.__version__}, and the study runs with {version}. Install the same "
                "version on every machine of the cluster."
            )
        one = replace(_unpickled(payload), watcher=telling)
        if not (one.store / "store.json").exists():
            raise InvalidValue(
                f"a Ray worker on {socket.gethostname()} does not see the study's store, {one.store}. Put --out, or "
                "--store, into a folder that every machine of the cluster has under the same path."
            )
        return pickle.dumps(one.train_one(pickle.loads(order), number))
    except Exception as error:
        return _sendable(error)


def _sendable(error: Exception) -> bytes:
    """Pickle an error, with where it was raised; one that does not come through is put in words."""
    if not isinstance(error, TombolaError):
        error.add_note("In a Ray worker:\n" + "".join(traceback.format_exception(error)))
    with suppress(Exception):
        data = pickle.dumps(error)
        pickle.loads(data)
        return data
    words = RuntimeError(f"{type(error).__name__}: {error}")
    words.__notes__ = list(getattr(error, "__notes__", ()))
    return pickle.dumps(words)


@lru_cache(maxsize=1)
def _unpickled(payload: bytes) -> Remembering:
    """Read the trainers once in each worker, and with them the data."""
    try:
        one: Remembering = pickle.loads(payload)
    except (ImportError, AttributeError) as error:
        raise InvalidValue(
            f"this model or data set cannot be made in a Ray worker ({error}). Define its factory at the top of a "
            "module that can be imported on every machine of the cluster."
        ) from error
    return one


@final
class _Telling:
    """A worker's watcher: holds what was evaluated until it is sent."""

    def __init__(self) -> None:
        self.wish = False
        self._readings: deque[_Reading] = deque()

    def evaluated(self, job: int, step: Step, loss: float, accuracy: float) -> None:
        self._readings.append((job, step, loss, accuracy))

    def stop(self) -> bool:
        return self.wish

    def taken(self) -> list[_Reading]:
        return [self._readings.popleft() for _ in range(len(self._readings))]
