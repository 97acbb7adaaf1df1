"""Signals computed by worker processes: packed once, whoever starts the processes and on whatever machine."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from factory_lib.compute.dispatch import SignalTask
from factory_lib.compute.pool import WorkerPool
from factory_lib.compute.reading import ReadPlan
from factory_lib.compute.rows import failed_task
from factory_lib.compute.wire import Program, SentSignal
from factory_lib.signals.resources import Resources
from factory_lib.signals.signal import Signal

TASK_ROWS = 256
LIGHT_TASK_ROWS = 2048
FIRST_TASK_ROWS = 32
TASK_SECONDS = 0.5
"""Tasks become smaller where a signal is slow: those under way when a run is killed are lost."""


@dataclass(frozen=True)
class PackedSignals:
    """Signals of one computation, ready to be sent.

    Attributes:
        sent: the signals.
        names: of their columns.
        blank: one row of their columns without values.
        states: what the process that packed them has configured, see `factory_lib.fingerprints.process`, pickled.
        plan: what of the rows they need.
        resources: what a process takes that computes them.
        batch: samples in one call, of the signal that takes most.
        heavy: they read bytes, or have something to set up.
        elsewhere: they are computed on other machines, too.
        arrays: what is in the files of `sent`, one for each, where those may not be there.
    """

    sent: tuple[SentSignal, ...]
    names: tuple[str, ...]
    blank: pa.RecordBatch
    states: bytes
    plan: ReadPlan
    resources: Resources
    batch: int
    heavy: bool
    elsewhere: bool = False
    arrays: tuple[pa.Buffer | None, ...] = ()

    @staticmethod
    def of(signals: Sequence[Signal], sent: Sequence[SentSignal], plan: ReadPlan) -> PackedSignals:
        """Signals and what `packed` made of them."""
        from factory_lib.compute.travel import states_of_process

        return PackedSignals(
            tuple(sent),
            tuple(one.name for one in signals),
            blank_row(signals),
            states_of_process(),
            plan,
            resources_of(signals),
            batch_of(signals),
            is_heavy(signals, plan),
        )

    def for_elsewhere(self) -> PackedSignals:
        """The signals on their way to another machine, their large arrays with them."""
        arrays = tuple(pa.memory_map(one.file).read_buffer() if one.file else None for one in self.sent)
        return replace(self, elsewhere=True, arrays=arrays)

    def landed(self, keep: contextlib.ExitStack) -> PackedSignals:
        """The signals where they arrived, their large arrays in files of this machine.

        Args:
            keep: the files are there until it is closed.
        """
        sent = []
        for one, array in zip(self.sent, self.arrays, strict=True):
            if array is None:
                sent.append(one)
                continue
            folder = keep.enter_context(tempfile.TemporaryDirectory(prefix="factory-arrays-"))
            path = Path(folder) / "arrays"
            path.write_bytes(array)
            sent.append(replace(one, file=str(path)))
        return replace(self, sent=tuple(sent), arrays=())

    def program(self, etags: Mapping[str, str], *, hashes: bool) -> Program:
        """What a process is told before its tasks.

        Args:
            etags: uri -> etag that its reads are pinned to.
            hashes: whether the bytes of the members are hashed, too.
        """
        keys = [(one.key, one.limit) for one in self.sent]
        identity = repr((sorted(etags.items()), self.plan, hashes, keys, self.states, self.resources, self.elsewhere))
        digest_of_all = hashlib.sha256(identity.encode()).hexdigest()
        return Program(
            digest_of_all, self.sent, self.plan.members, etags, hashes, self.states, self.resources, self.elsewhere
        )

    def pace(self) -> Pace:
        """How large the tasks are to be."""
        return Pace(self.batch, TASK_ROWS if self.heavy else LIGHT_TASK_ROWS)


class Pace:
    """How many rows make a task: so many as are computed in `TASK_SECONDS`.

    Args:
        least: rows of a batch, which is not cut.
        most: never more than this.
    """

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = min(least, most), most
        self.rows, self.seconds = 0, 0.0

    def saw(self, rows: int, seconds: float) -> None:
        """A process computed rows in so many seconds."""
        self.rows += rows
        self.seconds += seconds

    def task_rows(self) -> int:
        """Rows of the next task."""
        wanted = FIRST_TASK_ROWS if not self.rows else int(self.rows / max(self.seconds, 1e-9) * TASK_SECONDS)
        return max(self.least, 1, min(wanted, self.most))


def by_processes(
    pool: WorkerPool,
    given: PackedSignals,
    program: Program,
    waiting: Iterator[pa.RecordBatch],
    size: int,
    pace: Pace,
    *,
    ordered: bool,
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Tasks with their values, by at most `size` processes of a pool.

    Args:
        given: the signals.
        program: what the processes are told of them.
        waiting: the tasks.
        pace: is told how fast it goes.
        ordered: in the order of the tasks.

    Raises:
        SignalError: the signals cannot be set up, or process after process dies.
    """
    hashed = program.members if program.hashes else ()
    numbered = (SignalTask(rows, number) for number, rows in enumerate(waiting))
    with contextlib.closing(pool.run(program, numbered, size, ordered=ordered)) as finished:
        last = None  # the first result comes after processes have started and models were loaded
        for one in finished:
            now = time.perf_counter()
            if last is not None:
                pace.saw(one.task.rows.num_rows, (now - last) * size)
            last = now
            yield one.task.rows, one.values or failed_task(given.blank, one.task.rows, one.reason, hashed)


def blank_row(signals: Sequence[Signal]) -> pa.RecordBatch:
    """One row of the value and error columns of signals, without values."""
    columns = {}
    for one in signals:
        columns[one.name] = one.output.array([None])
        columns[f"{one.name}_error"] = pa.array([None], pa.string())
    return pa.RecordBatch.from_pydict(columns)


def resources_of(signals: Sequence[Signal]) -> Resources:
    """What a process takes that computes some signals."""
    return Resources.together([one.resources for one in signals])


def batch_of(signals: Sequence[Signal]) -> int:
    """Samples in one call, of the signal that takes most."""
    return max(one.batch for one in signals)


def is_heavy(signals: Sequence[Signal], plan: ReadPlan) -> bool:
    """Whether signals read bytes or have something to set up, so that they are for processes from the beginning."""
    return bool(plan.members) or any(one.has_setup for one in signals)
