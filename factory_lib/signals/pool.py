"""Worker processes that compute tasks, kept between computations.

The processes are started as plain Python interpreters on a socket, not through `multiprocessing`: the user's script is
never imported a second time, they may be started from daemonic processes and threads, and one that is killed can be
replaced without losing the others.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal as signals_of_the_system
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

import pyarrow as pa

from factory_lib.errors import SignalError
from factory_lib.settings import environment
from factory_lib.signals.wire import Done, Failed, Program, Ready, Stale, Work, from_ipc, to_ipc

IN_FLIGHT = 4
PIECES = 8
MAX_DEATHS_IN_A_ROW = 20
_POLL_SECONDS = 1.0
_OF_WORKERS = {
    # A thread a core in each of many processes makes all of them slower.
    "OMP_NUM_THREADS": "1",
    # Pictures are big blocks: glibc would give each back to the system, whose zeroing of the next one takes longer
    # than most of what is computed on it.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
    "MALLOC_ARENA_MAX": "1",
}
"""Environment of worker processes, where the user's says nothing else."""


@dataclass
class Task:
    """Rows to compute, and where they belong in the order of the results.

    Attributes:
        rows: the rows.
        place: number of the task; a piece of a task that killed its worker adds its own.
        whole: rows of the task that this is a piece of, 0 for a task that was not cut; a piece is not tried again.
    """

    rows: pa.RecordBatch
    place: tuple[int, ...]
    whole: int = 0

    def pieces(self) -> list[Task]:
        """The task cut into a few, so that a second death costs fewer samples."""
        size = -(-self.rows.num_rows // PIECES)
        starts = range(0, self.rows.num_rows, size)
        return [Task(self.rows.slice(start, size), (*self.place, start), self.rows.num_rows) for start in starts]


@dataclass
class Finished:
    """A task with its values, or with the reason why no process survived it."""

    task: Task
    values: pa.RecordBatch | None
    reason: str = ""


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    born_for: str
    surroundings: object
    program: str = ""
    ready: str = ""
    flying: deque[int] = field(default_factory=deque)

    def send(self, message: Program | Work) -> None:
        self.connection.send_bytes(pickle.dumps(message))

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.close()
        self.process.kill()
        self.process.wait()


class Pool:
    """Workers, started when there is work for them and replaced when they die."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        self._numbers = 0

    def run(self, program: Program, tasks: Iterator[Task], size: int, *, ordered: bool = False) -> Generator[Finished]:
        """Compute tasks by at most `size` processes; results come as they are done.

        Args:
            program: the signals.
            tasks: taken as workers get free: at most `IN_FLIGHT` a worker are under way.
            size: most processes to use.
            ordered: results come in the order of the tasks.

        Raises:
            SignalError: the program cannot be set up, or worker after worker dies.
        """
        surroundings = _surroundings()
        for worker in self._workers:
            if worker.surroundings != surroundings:
                worker.stop()
        self._workers = [worker for worker in self._workers if not _stopped_if_busy(worker)]
        run = _Run(self, program, tasks, size, ordered)
        try:
            yield from run.ordered_results() if ordered else run.results()
        finally:
            self._workers = [worker for worker in self._workers if not _stopped_if_busy(worker)]

    def stop(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.stop()
        self._workers = []

    def next_number(self) -> int:
        """A number no other task of this pool has."""
        self._numbers += 1
        return self._numbers

    @property
    def workers(self) -> list[_Worker]:
        """The processes."""
        return self._workers


class _Run:
    """One computation on a pool."""

    def __init__(self, pool: Pool, program: Program, tasks: Iterator[Task], size: int, ordered: bool) -> None:
        self._pool, self._program, self._tasks, self._size = pool, program, tasks, size
        self._most_ahead = 2 * size * IN_FLIGHT if ordered else None
        self._taken = self._released = 0
        self._again: deque[Task] = deque()
        self._flying: dict[int, Task] = {}
        self._deaths = 0
        self._exhausted = False

    def ordered_results(self) -> Iterator[Finished]:
        """Results in the order of the tasks; those that came early are held, and no task is started far ahead."""
        held: dict[int, list[Finished]] = {}
        for finished in self.results():
            held.setdefault(finished.task.place[0], []).append(finished)
            while _is_whole(pieces := held.get(self._released, [])):
                yield from sorted(pieces, key=lambda piece: piece.task.place)
                del held[self._released]
                self._released += 1

    def results(self) -> Iterator[Finished]:
        """Results as they come."""
        while True:
            self._feed()
            if not self._flying:
                return
            for worker in self._with_news():
                yield from self._hear(worker)

    def _feed(self) -> None:
        """Give every worker its share of tasks, starting workers while there are more tasks than workers."""
        while len(self._flying) < self._size * IN_FLIGHT:
            task = self._next_task()
            if task is None:
                return
            self._give(task)

    def _next_task(self) -> Task | None:
        if self._again:
            return self._again.popleft()
        if self._exhausted or (self._most_ahead is not None and self._taken - self._released >= self._most_ahead):
            return None
        task = next(self._tasks, None)
        self._exhausted = task is None
        self._taken += 1
        return task

    def _give(self, task: Task) -> None:
        workers = self._pool.workers
        usable = workers[: self._size]
        worker = min(usable, key=lambda one: len(one.flying), default=None)
        if worker is None or (worker.flying and len(usable) < self._size):
            worker = _start(self._program.id)
            workers.append(worker)
        number = self._pool.next_number()
        self._flying[number] = task
        worker.flying.append(number)
        # A worker that is gone is noticed when it is listened to.
        with contextlib.suppress(OSError):
            if worker.program != self._program.id:
                worker.program = self._program.id
                worker.send(self._program)
            worker.send(Work(number, self._program.id, to_ipc(task.rows), careful=task.whole > 0))

    def _with_news(self) -> list[_Worker]:
        """Workers with an answer, or dead."""
        while True:
            busy = {id(worker.connection): worker for worker in self._pool.workers if worker.flying}
            ready = wait([worker.connection for worker in busy.values()], timeout=_POLL_SECONDS)
            found = [busy[id(connection)] for connection in ready]
            # The end of the socket may be held open by a process that the worker itself started.
            found = found or [worker for worker in busy.values() if worker.process.poll() is not None]
            if found:
                return found

    def _hear(self, worker: _Worker) -> Iterator[Finished]:
        try:
            if worker.process.poll() is not None and not worker.connection.poll():
                raise EOFError
            answer = pickle.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            yield from self._bury(worker)
            return
        if isinstance(answer, Ready):
            worker.ready = answer.program
        elif isinstance(answer, Stale) and answer.program == self._program.id:
            self._renew(worker, answer.names)
        elif isinstance(answer, Failed) and answer.program == self._program.id:
            worker.program = ""
            raise SignalError(answer.message, answer.hint)
        elif isinstance(answer, Done):
            self._deaths = 0
            worker.flying.remove(answer.id)
            yield Finished(self._flying.pop(answer.id), from_ipc(answer.values))

    def _renew(self, worker: _Worker, names: tuple[str, ...]) -> None:
        """A kept worker loaded code before it was edited: a new one takes its tasks."""
        self._pool.workers.remove(worker)
        worker.stop()
        if worker.born_for == self._program.id:
            raise SignalError(
                f"The signals' code that is loaded here is not what a new process loads: {', '.join(names)} differ.",
                "It was edited after it was imported, or changed at run time: reload it, or restart this process.",
            )
        self._again.extend(self._flying.pop(number) for number in worker.flying)

    def _bury(self, worker: _Worker) -> Iterator[Finished]:
        """A worker died: its first task is to blame and is tried once more in pieces; the others go back in line."""
        self._pool.workers.remove(worker)
        worker.stop()
        self._deaths += 1
        reason = _cause(worker.process.returncode)
        lost = [self._flying.pop(number) for number in worker.flying]
        if self._deaths > MAX_DEATHS_IN_A_ROW or (worker.ready != self._program.id and self._deaths > 2):
            when = "while it set the signals up" if worker.ready != self._program.id else "again and again"
            raise SignalError(
                f"The process that computes the signals {reason} {when}.",
                "Is there memory enough? Fewer processes need less: FACTORY_WORKERS=1.",
            )
        if worker.ready == self._program.id:
            blamed = lost.pop(0)
            if blamed.whole:
                yield Finished(blamed, None, f"WorkerDied: the process computing it {reason}")
            else:
                self._again.extend(blamed.pieces())
        self._again.extend(lost)


def _is_whole(pieces: list[Finished]) -> bool:
    return bool(pieces) and sum(piece.task.rows.num_rows for piece in pieces) >= pieces[0].task.whole


_idle: list[Pool] = []
_of_the_parent: list[Pool] = []
_lock = threading.Lock()


@contextlib.contextmanager
def borrowed_pool() -> Iterator[Pool]:
    """A pool for one computation: the one kept from the last, or a new one when that is in use."""
    with _lock:
        pool = _idle.pop() if _idle else Pool()
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


def _surroundings() -> object:
    """What a process takes over when it starts: one that was started among others finds other files, or none."""
    return environment(), os.getcwd(), tuple(sys.path)


def _start(program: str) -> _Worker:
    ours, theirs = socket.socketpair()
    # The paths of this process, so that a worker imports what this process imports.
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from factory_lib.signals.worker import main; main({theirs.fileno()})"
    )
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=_OF_WORKERS | environment(),
        )
    return _Worker(process, Connection(ours.detach()), program, _surroundings())


def _stopped_if_busy(worker: _Worker) -> bool:
    """Whether the worker still computed for a run that was given up, or is gone: it is not kept then."""
    if not worker.flying and worker.process.poll() is None:
        return False
    worker.stop()
    return True


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            name = signals_of_the_system.Signals(-code).name
            return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with status {code}"
