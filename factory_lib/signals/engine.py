"""The signal engine: Arrow batches of rows in, Arrow batches of values out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import pyarrow as pa

from factory_lib.errors import SignalError
from factory_lib.signals.reading import Plan, read_members, tasks
from factory_lib.signals.signal import Signal
from factory_lib.signals.task import IDENTITY, Running, compute_task


def compute(
    signals: Sequence[Signal],
    rows: Iterable[pa.RecordBatch],
    *,
    workers: int | None = None,
    on_error: Literal["null", "raise"] = "null",
    progress: Callable[[int], None] | None = None,
    ordered: bool = False,
    etags: Mapping[str, str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Compute signals over rows.

    Args:
        signals: what to compute; a member that several of them read is read and decoded once.
        rows: batches with `shard`, `position`, `sample_id` and the columns that the signals read (pointer structs for
            members), in byte order, as the rows of a version are.
        workers: processes; default `FACTORY_WORKERS` or one a core; 1 computes in this process.
        on_error: what a failing sample does: a null value with the reason in `<name>_error`, or the end of the run.
        progress: called with the number of rows that were just finished.
        ordered: yield batches in the order of the rows.
        etags: uri -> etag at ingest; bytes of a file that changed since are an error and never wrong values.

    Yields:
        Batches with `shard`, `position`, `sample_id`, and `<name>` and `<name>_error` for each signal.

    Raises:
        SignalError: a signal cannot be set up or reads a column that is not there; or, with `on_error="raise"`, a
            sample failed.
    """
    checked = _checked(signals, on_error)
    batches = iter(rows)
    first = next(batches, None)
    if first is None:
        return
    plan = Plan.of(checked, first.schema)
    running = [Running(one) for one in checked]
    for task in tasks(_chain(first, batches), plan):
        done = compute_task(running, task, read_members(task, plan.members, etags))
        if on_error == "raise":
            raise_first_error(checked, task, done)
        if progress is not None:
            progress(done.num_rows)
        yield done


def output_schema(signals: Sequence[Signal]) -> pa.Schema:
    """Schema of the value and error columns of some signals."""
    fields = [
        field
        for one in signals
        for field in (pa.field(one.name, one.output.arrow), pa.field(f"{one.name}_error", pa.string()))
    ]
    return pa.schema(fields)


def raise_first_error(signals: Sequence[Signal], rows: pa.RecordBatch, done: pa.RecordBatch) -> None:
    """End the run when a sample of a finished task failed.

    Raises:
        SignalError: naming the signal, the sample and the error.
    """
    for one in signals:
        errors = done.column(done.schema.get_field_index(f"{one.name}_error"))
        if errors.null_count == len(errors):
            continue
        row = next(place for place, error in enumerate(errors) if error.is_valid)
        where = ", ".join(
            f"{name} {rows.column(rows.schema.get_field_index(name))[row].as_py()!r}"
            for name in (*IDENTITY[:2], "key")
            if name in rows.schema.names
        )
        raise SignalError(
            f"Signal {one.name!r} failed at {where}: {errors[row].as_py()}.",
            f'With on_error="null" the sample gets no value and the reason in {one.name}_error.',
        )


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


def _chain(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest
