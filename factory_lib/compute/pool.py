"""Worker processes, kept between computations."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Generator, Iterator

from factory_lib.compute.dispatch import Computation, FinishedTask, SignalTask
from factory_lib.compute.wire import Program
from factory_lib.compute.workers import Worker, surroundings_now


class WorkerPool:
    """Workers, started when there is work for them and replaced when they die."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []

    def run(
        self, program: Program, tasks: Iterator[SignalTask], size: int, *, ordered: bool = False
    ) -> Generator[FinishedTask]:
        """Compute tasks by at most `size` processes; results come as they are done.

        Args:
            program: the signals.
            tasks: taken as workers get free: at most `IN_FLIGHT` a worker are under way.
            size: most processes to use.
            ordered: results come in the order of the tasks.

        Raises:
            SignalError: the program cannot be set up, or worker after worker dies.
        """
        surroundings = surroundings_now(program.resources)
        for worker in self.workers:
            if worker.surroundings != surroundings:
                worker.stop()
        self._sweep()
        run = Computation(self.workers, program, tasks, size, ordered=ordered)
        try:
            yield from run.ordered_results() if ordered else run.results()
        finally:
            self._sweep()

    def stop(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.stop()
        self.workers.clear()

    def _sweep(self) -> None:
        self.workers[:] = [worker for worker in self.workers if not worker.stopped_unless_idle()]


_idle: list[WorkerPool] = []
_of_the_parent: list[WorkerPool] = []
_lock = threading.Lock()


@contextlib.contextmanager
def borrowed_pool() -> Iterator[WorkerPool]:
    """A pool for one computation: the one kept from the last, or a new one when that is in use."""
    with _lock:
        pool = _idle.pop() if _idle else WorkerPool()
    try:
        yield pool
    finally:
        with _lock:
            kept = not _idle
            if kept:
                _idle.append(pool)
        if not kept:
            pool.stop()


def warm_workers() -> int:
    """How many idle worker processes are kept."""
    with _lock:
        return sum(worker.process.poll() is None for pool in _idle for worker in pool.workers)


@atexit.register
def stop_workers() -> None:
    """End the idle worker processes of this process."""
    with _lock:
        pools, _idle[:] = list(_idle), []
    for pool in pools:
        pool.stop()


def _after_fork() -> None:
    """The workers belong to the parent: the child forgets them without ending them."""
    global _lock
    _lock = threading.Lock()
    _of_the_parent.extend(_idle)
    _idle.clear()


os.register_at_fork(after_in_child=_after_fork)
