"""Tasks to worker processes, and what becomes of the samples that a process does not survive.

A process that dies may have been killed by the sample that it computed, by the memory that others took, or by a person.
So nothing is blamed on the spot: what it was computing becomes a suspect, and a suspect is computed by a process that
has nothing else to do. Of several rows that die there, fewer are tried next, down to single ones; a single sample whose
process dies is tried once more while no other process computes, and is an error when that one dies, too.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait

import pyarrow as pa

from factory_lib.compute.watching import SETUP, CallInProgress, timeout_text
from factory_lib.compute.wire import (
    Program,
    ProgramReady,
    ProgramStale,
    SentTask,
    SetupFailed,
    TaskUnread,
    TaskValues,
    from_ipc,
    to_ipc,
)
from factory_lib.compute.workers import Worker
from factory_lib.errors import SignalError, StorageAway

IN_FLIGHT = 4
PIECES = 8
MAX_IN_A_ROW = 20
"""So many deaths without a value between them, or so many blamed samples, end the run: it is not the samples."""

_MEND_HERE = (
    "Installed packages that were changed at run time, and subclasses that no code names, do not travel: change or"
    " define them in setup() of a class."
)
_MEND_ELSEWHERE = (
    "Nodes are to have the packages, files and variables that the signals use: run them in the same image."
)
_POLL_SECONDS = 1.0
_numbers = itertools.count(1)


@dataclass
class SignalTask:
    """Rows to compute, and where they belong in the order of the results.

    Attributes:
        rows: the rows.
        number: of the task that they are, or were cut from.
        start: number of their first row in it.
        suspect: a process died over them.
        deaths: processes that died over them when they were a single sample and had it alone.
    """

    rows: pa.RecordBatch
    number: int
    start: int = 0
    suspect: bool = False
    deaths: int = 0

    def cut(self, first: int, last: int, *, suspect: bool) -> SignalTask:
        """Some of the rows."""
        return SignalTask(self.rows.slice(first, last - first), self.number, self.start + first, suspect)

    def suspects(self) -> list[SignalTask]:
        """The rows as a few suspects."""
        rows = self.rows.num_rows
        size = -(-rows // PIECES)
        return [self.cut(start, min(start + size, rows), suspect=True) for start in range(0, rows, size)]


@dataclass
class FinishedTask:
    """A task with its values, or with the reason why it has none."""

    task: SignalTask
    values: pa.RecordBatch | None
    reason: str = ""


class Computation:
    """One computation.

    Args:
        workers: the processes; those that are started are added, those that died are taken out.
        program: the signals.
        tasks: taken as workers get free.
        size: most processes to use.
        ordered: see `ordered_results`.
    """

    def __init__(
        self, workers: list[Worker], program: Program, tasks: Iterator[SignalTask], size: int, *, ordered: bool
    ) -> None:
        self._workers, self._program, self._tasks, self._size = workers, program, tasks, size
        self._most_ahead = 2 * size * IN_FLIGHT if ordered else None
        self._taken = self._released = 0
        self._rows: dict[int, int] = {}
        self._again: deque[SignalTask] = deque()
        self._suspects: deque[SignalTask] = deque()
        self._flying: dict[int, SignalTask] = {}
        self._deaths = self._blamed = 0
        self._exhausted = False
        self._looked = 0.0

    def ordered_results(self) -> Iterator[FinishedTask]:
        """Results in the order of the tasks; those that came early are held, and no task is started far ahead."""
        held: dict[int, list[FinishedTask]] = {}
        for finished in self.results():
            held.setdefault(finished.task.number, []).append(finished)
            while sum(one.task.rows.num_rows for one in held.get(self._released, [])) == self._rows.get(self._released):
                yield from sorted(held.pop(self._released), key=lambda piece: piece.task.start)
                del self._rows[self._released]
                self._released += 1

    def results(self) -> Iterator[FinishedTask]:
        """Results as they come."""
        while True:
            self._feed()
            if not self._flying:
                return
            for worker in self._with_news():
                yield from self._hear(worker)
            yield from self._end_overdue()

    def _feed(self) -> None:
        """Give every suspect a worker of its own, then every worker its share of tasks."""
        while self._suspects and (not self._suspects[0].deaths or not self._flying):
            worker = self._idle()
            if worker is None:
                return
            self._give(worker, self._suspects.popleft())
        if self._suspects or any(task.deaths for task in self._flying.values()):
            return  # workers run empty, so that a suspect gets one, or has the machine to itself
        while self._has_room():
            task = self._next_task()
            if task is None:
                return
            self._give(self._least_busy(), task)

    def _next_task(self) -> SignalTask | None:
        if self._again:
            return self._again.popleft()
        if self._exhausted or (self._most_ahead is not None and self._taken - self._released >= self._most_ahead):
            return None
        task = next(self._tasks, None)
        self._exhausted = task is None
        if task is not None and self._most_ahead is not None:
            self._rows[task.number] = task.rows.num_rows
        self._taken += 1
        return task

    @property
    def _usable(self) -> list[Worker]:
        return self._workers[: self._size]

    def _open(self) -> list[Worker]:
        """Workers that may get another task."""
        return [
            worker
            for worker in self._usable
            if len(worker.flying) < IN_FLIGHT and not any(self._flying[number].suspect for number in worker.flying)
        ]

    def _has_room(self) -> bool:
        return len(self._usable) < self._size or bool(self._open())

    def _idle(self) -> Worker | None:
        found = next((worker for worker in self._usable if not worker.flying), None)
        return self._started() if found is None and len(self._usable) < self._size else found

    def _least_busy(self) -> Worker:
        found = min(self._open(), key=lambda one: len(one.flying), default=None)
        return self._started() if found is None or (found.flying and len(self._usable) < self._size) else found

    def _started(self) -> Worker:
        taken = {worker.place for worker in self._workers}
        worker = Worker.start(self._program, next(place for place in itertools.count() if place not in taken))
        self._workers.append(worker)
        return worker

    def _give(self, worker: Worker, task: SignalTask) -> None:
        number = next(_numbers)
        self._flying[number] = task
        worker.flying.append(number)
        # A worker that is gone is noticed when it is listened to.
        with contextlib.suppress(OSError):
            if worker.program != self._program.id:
                worker.program = self._program.id
                worker.send(self._program)
            worker.send(SentTask(number, self._program.id, to_ipc(task.rows)))

    def _with_news(self) -> list[Worker]:
        """Workers with an answer, or dead; none after a while without."""
        busy = {id(worker.connection): worker for worker in self._workers if worker.flying}
        ready = wait([worker.connection for worker in busy.values()], timeout=_POLL_SECONDS)
        found = [busy[id(connection)] for connection in ready]
        # The end of the socket may be held open by a process that the worker itself started.
        return found or [worker for worker in busy.values() if worker.process.poll() is not None]

    def _hear(self, worker: Worker) -> Iterator[FinishedTask]:
        try:
            if worker.process.poll() is not None and not worker.connection.poll():
                raise EOFError
            answer = pickle.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            yield from self._bury(worker)
            return
        if isinstance(answer, ProgramReady):
            worker.ready = answer.program
        elif isinstance(answer, ProgramStale) and answer.program == self._program.id:
            self._renew(worker, answer.names)
        elif isinstance(answer, SetupFailed) and answer.program == self._program.id:
            worker.program = ""
            raise SignalError(answer.message, answer.hint)
        elif isinstance(answer, TaskUnread):
            worker.flying.remove(answer.id)
            away = StorageAway(answer.message, answer.hint)
            away.shard = answer.shard
            raise away
        elif isinstance(answer, TaskValues):
            self._deaths = self._blamed = 0
            worker.flying.remove(answer.id)
            yield FinishedTask(self._flying.pop(answer.id), from_ipc(answer.values))

    def _renew(self, worker: Worker, names: tuple[str, ...]) -> None:
        """A kept worker is not what it was, by what it computed before: a new one takes its tasks."""
        if worker.born_for == self._program.id:
            self._remove(worker)
            raise SignalError(
                f"What arrives in a worker process is not what the signals are here: {', '.join(names)} differ.",
                _MEND_ELSEWHERE if self._program.elsewhere else _MEND_HERE,
            )
        self._put_back(self._remove(worker).values())

    def _bury(self, worker: Worker) -> Iterator[FinishedTask]:
        """A worker died: what it was at is a suspect, the rest goes back in line."""
        lost = self._remove(worker)
        self._deaths += 1
        call, taken = worker.slot.call, worker.slot.taken
        # It may have died before it had said that it was set up.
        at_work = worker.ready == self._program.id or (call is not None and call.task in lost)
        if self._deaths > MAX_IN_A_ROW or (not at_work and self._deaths > 2):
            self._give_up(f"{worker.cause_of_death} {'again and again' if at_work else 'while it set the signals up'}")
        if not at_work:
            self._put_back(lost.values())
            return
        number = call.task if call is not None and call.task in lost else next(iter(lost))
        task = lost.pop(number)
        self._put_back(lost.values())
        if task.suspect and taken != number:  # it was gone before it had the task
            self._suspects.append(task)
        elif task.suspect and task.rows.num_rows == 1:
            task.deaths += 1
            if task.deaths < 2:
                self._suspects.append(task)
            else:
                yield self._blame(task, f"WorkerDied: the process computing it {worker.cause_of_death}")
        elif call is not None and call.task == number:
            self._set_apart(task, call)
        else:
            self._suspects.extend(task.suspects())

    def _end_overdue(self) -> Iterator[FinishedTask]:
        """End workers whose signal does not return."""
        if time.monotonic() - self._looked < _POLL_SECONDS:
            return
        self._looked = time.monotonic()
        for worker in [one for one in self._workers if one.flying]:
            call = worker.slot.call
            # Looked at twice: it may be about to write the next one.
            if call is None or not call.overdue or worker.slot.call != call:
                continue
            name = self._program.signals[call.signal].name
            if call.task == SETUP:
                self._remove(worker)
                raise SignalError(
                    f"Signal {name!r}: setup() had not returned after {call.limit:g} s.",
                    "Does it wait for a download? Signals declare how long they may take: timeout=, a tenth of this.",
                )
            if call.task not in worker.flying:
                continue
            lost = self._remove(worker)
            task = lost.pop(call.task)
            self._put_back(lost.values())
            if call.last - call.first > 1:
                self._set_apart(task, call)
            else:
                yield self._blame(self._without_rest(task, call), timeout_text(name, call.limit))

    def _blame(self, task: SignalTask, reason: str) -> FinishedTask:
        self._deaths = 0
        self._blamed += 1
        if self._blamed > MAX_IN_A_ROW:
            self._give_up(f"ends at every sample ({reason})")
        return FinishedTask(task, None, reason)

    def _give_up(self, what: str) -> None:
        raise SignalError(
            f"The process that computes the signals {what}.",
            "Is there memory enough? Fewer processes need less: FACTORY_WORKERS=1.",
        )

    def _set_apart(self, task: SignalTask, call: CallInProgress) -> None:
        """Make suspects of the rows that were computed; the others were not."""
        self._suspects.extend(self._without_rest(task, call).suspects())

    def _without_rest(self, task: SignalTask, call: CallInProgress) -> SignalTask:
        """The rows of a call; those before and after them go back in line."""
        for first, last in ((0, call.first), (call.last, task.rows.num_rows)):
            if first < last:
                self._put_back([task.cut(first, last, suspect=task.suspect)])
        return task.cut(call.first, call.last, suspect=True)

    def _put_back(self, tasks: Iterable[SignalTask]) -> None:
        for task in tasks:
            (self._suspects if task.suspect else self._again).append(task)

    def _remove(self, worker: Worker) -> dict[int, SignalTask]:
        """End a worker; the tasks that it had, by the numbers under which it had them."""
        self._workers.remove(worker)
        worker.stop()
        return {number: self._flying.pop(number) for number in worker.flying}
