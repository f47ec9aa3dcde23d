"""Independent jobs in parallel processes, one thread each."""

import multiprocessing
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from typing import Any, final

from tombola.errors import InvalidValue, WorkerDied
from tombola.train.plain import PlainTrainer, Unwatched, Watcher
from tombola.types import Step, TrainJob, TrainOutcome


@final
class Pool:
    """A :class:`~tombola.types.TrainFn` that spreads its jobs over worker processes.

    The outcome of a job does not depend on which worker ran it, or on how many there are. Use it as a context manager:
    the workers live until it is left. With one worker everything runs in this process.

    The workers start from a fresh interpreter (a fork server where there is one), so a script that uses more than one
    guards its entry with ``if __name__ == "__main__":``.
    """

    def __init__(self, trainer: PlainTrainer, workers: int) -> None:
        """Set the pool; workers start with the first call.

        Args:
            trainer: what each worker runs; ``build`` and ``splits`` must be picklable when there are several.
            workers: at least 1.
        """
        if workers < 1:
            raise InvalidValue(f"{workers} workers; at least 1 is needed.")
        self._trainer, self._workers = trainer, workers
        self._executor: ProcessPoolExecutor | None = None
        self._messages: Any = None
        self._stop: Any = None
        self._listener: threading.Thread | None = None

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
        """Train the jobs; outcomes come in the jobs' order.

        Raises:
            WorkerDied: a worker was killed from outside, most often for want of memory.
        """
        if self._workers == 1 or len(jobs) == 0:
            return self._trainer(jobs)
        executor = self._started()
        futures = [executor.submit(_train, pickle.dumps(job), number) for number, job in enumerate(jobs)]
        try:
            return [pickle.loads(future.result()) for future in futures]
        except BrokenProcessPool as error:
            raise WorkerDied(
                "a training process was killed from outside. If the machine ran out of memory, use fewer --workers."
            ) from error
        except BaseException:
            self._stop.set()
            for future in futures:
                future.cancel()
            raise

    def close(self) -> None:
        """Stop the workers; a run in progress stops at its next look."""
        if self._executor is None:
            return
        self._stop.set()
        self._executor.shutdown(wait=True, cancel_futures=True)
        with suppress(OSError):
            self._messages.put(None)
        if self._listener is not None:
            self._listener.join()
        self._executor = None

    def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            context = _context()
            self._messages, self._stop = context.SimpleQueue(), context.Event()
            quiet = replace(self._trainer, watcher=Unwatched())
            try:
                payload = pickle.dumps(quiet)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise InvalidValue(
                    f"this model or data set cannot be sent to another process ({error}). Define its factory at the "
                    "top of a module, or use workers=1."
                ) from error
            self._executor = ProcessPoolExecutor(
                self._workers, context, _start_worker, (payload, self._messages, self._stop)
            )
            self._listener = threading.Thread(target=_listen, args=(self._messages, self._trainer.watcher), daemon=True)
            self._listener.start()
        return self._executor


def _context() -> Any:
    if "forkserver" in multiprocessing.get_all_start_methods() and sys.platform != "darwin":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tombola.train.plain"])
        return context
    return multiprocessing.get_context("spawn")


def _listen(messages: Any, watcher: Watcher) -> None:
    while (message := messages.get()) is not None:
        watcher.evaluated(*message)


@final
class _Reporter:
    """A worker's watcher: sends evaluations to the parent, and stops when the parent says so."""

    def __init__(self, messages: Any, stop: Any) -> None:
        self._messages, self._stop = messages, stop

    def evaluated(self, job: int, step: Step, loss: float, accuracy: float) -> None:
        self._messages.put((job, step, loss, accuracy))

    def stop(self) -> bool:
        return bool(self._stop.is_set())


_run: Callable[[TrainJob, int], TrainOutcome]


def _start_worker(payload: bytes, messages: Any, stop: Any) -> None:
    # Ctrl-C reaches the whole process group; the parent decides, and tells the workers through the event.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    global _run
    _run = replace(pickle.loads(payload), watcher=_Reporter(messages, stop)).train_one


def _train(job: bytes, number: int) -> bytes:
    return pickle.dumps(_run(pickle.loads(job), number))
