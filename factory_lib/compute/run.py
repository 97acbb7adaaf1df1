"""Signals over rows: Arrow batches of rows in, Arrow batches of values out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from factory_lib.compute.gpus import gpus_here, processes_on
from factory_lib.compute.pool import WorkerPool, borrowed_pool
from factory_lib.compute.processes import (
    LIGHT_TASK_ROWS,
    TASK_ROWS,
    Pace,
    PackedSignals,
    batch_of,
    by_processes,
    is_heavy,
    resources_of,
)
from factory_lib.compute.reading import IDENTITY, Read, ReadPlan, read_members, tasks
from factory_lib.compute.rows import ReadySignal, compute_task
from factory_lib.compute.watching import ProgressSlot, interrupted_when_overdue
from factory_lib.errors import SignalError
from factory_lib.settings import workers_for
from factory_lib.signals.resources import Resources
from factory_lib.signals.signal import Signal
from factory_lib.signals.use import using

SMALL_ROWS = 128
"""Up to so many rows are computed in this process: starting processes takes longer."""
LIGHT_SECONDS = 0.6
"""Signals of columns alone are computed in this process until they have taken so long, then by processes."""


def compute(
    signals: Sequence[Signal],
    rows: Iterable[pa.RecordBatch],
    *,
    workers: int | None = None,
    on_error: Literal["null", "raise"] = "null",
    progress: Callable[[int], None] | None = None,
    ordered: bool = False,
    etags: Mapping[str, str] | None = None,
    hashes: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Compute signals over rows.

    Args:
        signals: what to compute; a member that several of them read is read and decoded once.
        rows: batches with `shard`, `position`, `sample_id` and the columns that the signals read (pointer structs for
            members), in byte order, as the rows of a version are.
        workers: processes; default `FACTORY_WORKERS` or as many as the machine has room for, by what the signals need;
            1 computes in this process.
        on_error: what a failing sample does: a null value with the reason in `<name>_error`, or the end of the run.
        progress: called with the number of rows that were just finished.
        ordered: yield batches in the order of the rows.
        etags: uri -> etag at ingest; bytes of a file that changed since are an error and never wrong values.
        hashes: hash the bytes of the members, too.

    Yields:
        Batches with `shard`, `position`, `sample_id`, `<name>` and `<name>_error` for each signal, and `_hash_<member>`
        (16 bytes, NULL where nothing could be read) for each member.

    Raises:
        SignalError: a signal cannot be set up or reads a column that is not there; or, with `on_error="raise"`, a
            sample failed.
    """
    checked = _checked(signals, on_error)
    batches = iter(rows)
    first = next(batches, None)
    if first is None:
        return
    plan = ReadPlan.of(checked, first.schema)
    how = _How(plan, dict(etags or {}), ordered, hashes)
    for task, done in _computed(checked, how, _chain([first], batches), workers):
        if on_error == "raise":
            raise_first_error([one.name for one in checked], task, done)
        if progress is not None:
            progress(done.num_rows)
        yield done


@dataclass(frozen=True)
class _How:
    """What is common to all tasks of a computation: see the arguments of `compute`."""

    plan: ReadPlan
    etags: Mapping[str, str]
    ordered: bool
    hashes: bool


def compute_packed(
    given: PackedSignals,
    rows: Iterable[pa.RecordBatch],
    pool: WorkerPool,
    *,
    etags: Mapping[str, str],
    hashes: bool,
    on_error: Literal["null", "raise"],
) -> Iterator[pa.RecordBatch]:
    """Compute signals that another process packed, by one process of a pool, in the order of the rows.

    Arguments, batches and errors as of `compute`.
    """
    pace = given.pace()
    waiting = tasks(rows, given.plan, pace.task_rows)
    program = given.program(etags, hashes=hashes)
    for task, done in by_processes(pool, given, program, waiting, 1, pace, ordered=True):
        if on_error == "raise":
            raise_first_error(given.names, task, done)
        yield done


def _computed(
    signals: Sequence[Signal], how: _How, rows: Iterator[pa.RecordBatch], workers: int | None
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Tasks with their values, computed here while that is cheaper than having processes, then by processes."""
    plan = how.plan
    size = _processes(resources_of(signals), workers)
    heavy = is_heavy(signals, plan)
    pace = Pace(batch_of(signals), TASK_ROWS if heavy else LIGHT_TASK_ROWS)
    waiting = tasks(rows, plan, pace.task_rows)
    if size > 1 and heavy:
        held, few = _peek(waiting, SMALL_ROWS)
        waiting = _chain(held, waiting)
        size = 1 if few else size
    if (size > 1 and heavy) or (yield from _here(signals, how, waiting, size, pace)):
        from factory_lib.compute.travel import packed

        with packed(signals) as sent, borrowed_pool() as pool:
            given = PackedSignals.of(signals, sent, plan)
            program = given.program(how.etags, hashes=how.hashes)
            yield from by_processes(pool, given, program, waiting, size, pace, ordered=how.ordered)


def _processes(needs: Resources, wanted: int | None) -> int:
    """How many processes compute here at once.

    Args:
        wanted: how many are asked for; None for as many as there is room for.

    Raises:
        SignalError: there are not the GPUs that one needs.
    """
    most = workers_for(needs.cpus, needs.memory) if wanted is None else wanted
    return min(most, processes_on(gpus_here(), needs)) if needs.gpus else most


def _here(
    signals: Sequence[Signal], how: _How, waiting: Iterator[pa.RecordBatch], size: int, pace: Pace
) -> Generator[tuple[pa.RecordBatch, pa.RecordBatch], None, bool]:
    """Tasks computed in this process; returns whether processes shall go on, for it takes long."""
    with using(*signals):
        running = [ReadySignal(one) for one in signals]
        slot = ProgressSlot()
        slot.task = 1
        started = time.perf_counter()
        for task, data in _read_ahead(waiting, how.plan, how.etags):
            begun = time.perf_counter()
            with interrupted_when_overdue(slot):
                done = compute_task(running, task, data, hashes=how.hashes, slot=slot)
            pace.saw(task.num_rows, time.perf_counter() - begun)
            yield task, done
            if size > 1 and time.perf_counter() - started > LIGHT_SECONDS:
                return True
    return False


def _read_ahead(
    waiting: Iterator[pa.RecordBatch], plan: ReadPlan, etags: Mapping[str, str]
) -> Iterator[tuple[pa.RecordBatch, Mapping[str, Sequence[Read]]]]:
    """Tasks with what their members hold; the next task is read while one is computed."""
    if not plan.members:
        yield from ((task, {}) for task in waiting)
        return
    with ThreadPoolExecutor(1) as reader:
        held: deque[tuple[pa.RecordBatch, Future[dict[str, list[Read]]]]] = deque()
        for task in waiting:
            held.append((task, reader.submit(read_members, task, plan.members, etags)))
            if len(held) > 1:
                rows, future = held.popleft()
                yield rows, future.result()
        for rows, future in held:
            yield rows, future.result()


def _peek(waiting: Iterator[pa.RecordBatch], rows: int) -> tuple[list[pa.RecordBatch], bool]:
    """The first tasks, and whether they are all there is: no more than `rows` rows."""
    held: list[pa.RecordBatch] = []
    total = 0
    for task in waiting:
        held.append(task)
        total += task.num_rows
        if total > rows:
            return held, False
    return held, True


def output_schema(signals: Sequence[Signal]) -> pa.Schema:
    """Schema of the value and error columns of some signals."""
    fields = [
        field
        for one in signals
        for field in (pa.field(one.name, one.output.arrow), pa.field(f"{one.name}_error", pa.string()))
    ]
    return pa.schema(fields)


def raise_first_error(names: Sequence[str], rows: pa.RecordBatch, done: pa.RecordBatch) -> None:
    """End the run when a sample of a finished task failed.

    Raises:
        SignalError: naming the signal, the sample and the error.
    """
    for name in names:
        errors = done.column(done.schema.get_field_index(f"{name}_error"))
        if errors.null_count == len(errors):
            continue
        row = next(place for place, error in enumerate(errors) if error.is_valid)
        where = ", ".join(
            f"{column} {rows.column(rows.schema.get_field_index(column))[row].as_py()!r}"
            for column in (*IDENTITY[:2], "key")
            if column in rows.schema.names
        )
        failure = SignalError(
            f"Signal {name!r} failed at {where}: {errors[row].as_py()}.",
            f'With on_error="null" the sample gets no value and the reason in {name}_error.',
        )
        for attribute, column in (("shard", "shard"), ("sample", "position")):
            if column in rows.schema.names:
                setattr(failure, attribute, rows.column(rows.schema.get_field_index(column))[row].as_py())
        raise failure


def _checked(signals: Sequence[Signal], on_error: str) -> list[Signal]:
    if on_error not in {"null", "raise"}:
        raise SignalError(f"on_error={on_error!r} is not known.", "Use 'null' or 'raise'.")
    names: set[str] = set()
    for one in signals:
        if not isinstance(one, Signal):
            raise SignalError(f"{one!r} is not a signal.", "Declare it with @signal.")
        if one.name in names:
            raise SignalError(f"Two signals are named {one.name!r}.", "Rename one: .named('other').")
        names.add(one.name)
    if not names:
        raise SignalError("No signals to compute.")
    return list(signals)


def _chain(first: Iterable[pa.RecordBatch], rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from first
    yield from rest
