"""Independent jobs in parallel processes, one thread each."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache
from multiprocessing import forkserver, resource_tracker
from typing import Any, ClassVar, Final, Protocol, final

from tombola.errors import InvalidValue, WorkerDied
from tombola.train.watch import Unwatched, Watcher
from tombola.types import Step

_LOOK_EVERY_SECONDS: Final = 0.2
_HEARD: Final = "heard"
_KILLED: Final = "a training process was killed from outside. If the machine ran out of memory, use fewer --workers."


class OneByOne(Protocol):
    """A dataclass that trains one job at a time; with several workers it can be pickled."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    watcher: Watcher

    def train_one(self, job: Any, number: int = 0) -> Any:
        """Train a job; ``number`` is what the watcher is told."""


@final
class Pool:
    """A :class:`~tombola.types.TrainFn` that spreads its jobs over worker processes.

    The outcome of a job does not depend on which worker ran it, or on how many there are. Use it as a context manager:
    the workers live until it is left. With one worker everything runs in this process.

    The workers start from a fresh interpreter (a fork server where there is one), so a script that uses more than one
    guards its entry with ``if __name__ == "__main__":``.
    """

    def __init__(self, trainer: OneByOne, workers: int) -> None:
        """Set the pool; workers start with the first call.

        Args:
            trainer: what each worker runs; ``build`` and ``splits`` must be picklable when there are several.
            workers: at least 1.
        """
        if workers < 1:
            raise InvalidValue(f"{workers} workers; at least 1 is needed.")
        self._trainer, self._workers = trainer, workers
        self._starting, self._stopped = threading.Lock(), False
        self._executor: ProcessPoolExecutor | None = None
        self._reporter: _Reporter
        self._listener: _Listener

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, jobs: Sequence[Any], numbers: Sequence[int] | None = None) -> list[Any]:
        """Train the jobs; what the trainer gives comes in the jobs' order.

        Args:
            jobs: what the trainer takes.
            numbers: what the watcher is told each is called; by default they are counted from 0.

        Raises:
            InvalidValue: the network or the data cannot be sent to another process.
            WorkerDied: a worker was killed from outside, most often for want of memory.
        """
        called = range(len(jobs)) if numbers is None else numbers
        if self._workers == 1 or len(jobs) == 0:
            return [self._trainer.train_one(job, number) for number, job in zip(called, jobs, strict=True)]
        executor = self._started()
        self._reporter.let_stop(False)
        futures: list[Future[bytes]] = []
        try:
            for number, job in zip(called, jobs, strict=True):
                futures.append(executor.submit(_train, pickle.dumps(job), number))
            self._attend(futures)
            outcomes = [pickle.loads(future.result()) for future in futures]
            # The watcher hears everything about this call before it is told of the next.
            self._reporter.send(_HEARD)
            self._listener.catch_up()
            return outcomes
        except BrokenProcessPool as error:
            self.close()
            raise WorkerDied(_KILLED) from error
        except BaseException:
            self._end(futures)
            raise

    def one(self, job: Any, number: int) -> Any:
        """Train one job in a worker process and wait for it; any number of threads may ask at once.

        Args:
            job: what the trainer takes.
            number: what the watcher is told.

        Returns:
            What the trainer gives.

        Raises:
            InvalidValue: as for a call.
            WorkerDied: as for a call; the next job gets new workers.
        """
        with self._starting:
            executor = self._started()
        try:
            return pickle.loads(executor.submit(_train, pickle.dumps(job), number).result())
        except BrokenProcessPool as error:
            with self._starting:
                if self._executor is executor:
                    self.close()
            raise WorkerDied(_KILLED) from error

    def let_stop(self) -> None:
        """Let every run of :meth:`one` stop before its next iteration, those of workers that are yet to start too."""
        with self._starting:
            self._stopped = True
            if self._executor is not None:
                self._reporter.let_stop()

    def close(self) -> None:
        """Stop the workers; a run in progress stops before its next iteration."""
        if self._executor is None:
            return
        self._reporter.let_stop()
        self._executor.shutdown(wait=True, cancel_futures=True)
        # With the last writer gone the listener reads the end of the pipe; no lock that a killed worker may hold is
        # taken for it.
        self._reporter.close()
        # A worker whose start was interrupted may hold a writer for a moment longer; it leaves by itself.
        self._listener.join(timeout=1)
        self._executor = None

    def _attend(self, futures: Sequence["Future[bytes]"]) -> None:
        """Wait for the jobs, and pass on the watcher's wish to stop."""
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=_LOOK_EVERY_SECONDS, return_when=FIRST_EXCEPTION)
            self._listener.complain()
            if any(future.exception() is not None for future in done):
                return
            if self._trainer.watcher.stop():
                self._reporter.let_stop()

    def _end(self, futures: Sequence["Future[bytes]"]) -> None:
        """Leave no job of a failed call running when the next one begins."""
        self._reporter.let_stop()
        wait([future for future in futures if not future.cancel()])

    def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            try:
                payload = pickle.dumps(replace(self._trainer, watcher=Unwatched()))
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise InvalidValue(
                    f"this model or data set cannot be sent to another process ({error}). Define its factory at the "
                    "top of a module, or use workers=1."
                ) from error
            context = clean_context()
            reader, writer = context.Pipe(duplex=False)
            self._reporter = _Reporter(writer, context.Lock(), context.RawValue("b", self._stopped))
            self._listener = _Listener(reader, self._trainer.watcher)
            self._listener.start()
            self._executor = ProcessPoolExecutor(self._workers, context, _start_worker, (payload, self._reporter))
        return self._executor


def clean_context() -> Any:
    """Give a way to start processes that carry over nothing of this one: a thread's lock, forked, is held for ever."""
    if "forkserver" in multiprocessing.get_all_start_methods() and sys.platform != "darwin":
        context = multiprocessing.get_context("forkserver")
        # torch imports _dynamo with the first optimiser, which takes as long as torch itself; once is enough.
        context.set_forkserver_preload(["tombola.train.plain", "tombola.train.sparse", "torch._dynamo"])
        # The server and its children are deaf to Ctrl-C from their first instruction: it goes to the whole process
        # group, and the parent decides. The tracker comes first, for starting it would lift the block.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        # Waited for with a process that needs nothing of this one: a worker whose start is cut short would complain.
        first = context.Process(target=_do_nothing, daemon=True)
        first.start()
        first.join()
        return context
    return multiprocessing.get_context("spawn")


def _do_nothing() -> None:
    pass


@final
class _Reporter:
    """A worker's watcher: sends evaluations to the parent, and stops when the parent says so."""

    def __init__(self, writer: Any, lock: Any, stop: Any) -> None:
        self._writer, self._lock, self._stop = writer, lock, stop

    def evaluated(self, job: int, step: Step, loss: float, accuracy: float) -> None:
        self.send((job, step, loss, accuracy))

    def stop(self) -> bool:
        return bool(self._stop.value)

    def send(self, message: Any) -> None:
        with self._lock:
            self._writer.send(message)

    def let_stop(self, wish: bool = True) -> None:
        self._stop.value = wish

    def close(self) -> None:
        self._writer.close()


@final
class _Listener(threading.Thread):
    """Tells the parent's watcher what the workers report."""

    def __init__(self, reader: Any, watcher: Watcher) -> None:
        super().__init__(daemon=True)
        self._reader, self._watcher = reader, watcher
        self._heard = threading.Event()
        self._failure: Exception | None = None

    def run(self) -> None:
        with self._reader:
            while True:
                try:
                    message = self._reader.recv()
                except (EOFError, OSError):
                    return
                if message == _HEARD:
                    self._heard.set()
                elif self._failure is None:
                    # A watcher that fails must not leave the pipe unread, or the workers would wait for it.
                    try:
                        self._watcher.evaluated(*message)
                    except Exception as error:
                        self._failure = error

    def catch_up(self) -> None:
        """Wait until everything sent so far was passed on."""
        self._heard.wait()
        self._heard.clear()
        self.complain()

    def complain(self) -> None:
        """Raise what the watcher raised."""
        if self._failure is not None:
            raise self._failure


_worker: tuple[bytes, _Reporter]


def _start_worker(payload: bytes, reporter: _Reporter) -> None:
    # Where there is no fork server; see _context.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    global _worker
    _worker = payload, reporter


def _leave_with_parent() -> None:
    """End this worker when its parent was killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@cache
def _trainer() -> OneByOne:
    """Read the trainer at the first job: an error in the initialiser would look like a worker that was killed."""
    payload, reporter = _worker
    try:
        trainer: OneByOne = pickle.loads(payload)
    except (ImportError, AttributeError) as error:
        raise InvalidValue(
            f"this model or data set cannot be made in another process ({error}). Define its factory at the top of a "
            "module that can be imported, or use workers=1."
        ) from error
    return replace(trainer, watcher=reporter)


def _train(job: bytes, number: int) -> bytes:
    return pickle.dumps(_trainer().train_one(pickle.loads(job), number))
