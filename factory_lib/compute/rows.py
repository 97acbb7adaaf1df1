"""Computing one task: some neighbouring rows, all signals, in the process that calls it.

A sample that fails gives a null and the error's text; the other samples of the task are not touched by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from factory_lib.compute.reading import IDENTITY, PREFIX, Read, hash_column
from factory_lib.compute.watching import ProgressSlot, SignalTimeout, timeout_text
from factory_lib.settings import signal_timeout
from factory_lib.signals.inputs import Input
from factory_lib.signals.member import Member, silent_decoding
from factory_lib.signals.signal import Signal
from factory_lib.signals.task import MissingInputError, describe

MAX_PENDING_BYTES = 128 * 2**20


class ReadySignal:
    """A signal that is set up in this process.

    Args:
        signal: the signal; its `setup()` is called here.

    Attributes:
        limit: seconds that a call may take.
    """

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.limit = limit_of(signal)
        self.call: Callable[..., Any] = signal.ready()
        self.prepare: Callable[..., Any] | None = getattr(self.call, "prepare", None)


def limit_of(signal: Signal) -> float:
    """Seconds that a call of a signal may take."""
    return (signal_timeout() if signal.timeout is None else signal.timeout) or math.inf


class _Values:
    """Values and errors of one signal over the rows of a task, filled row by row."""

    def __init__(self, running: ReadySignal, rows: pa.RecordBatch, slot: ProgressSlot, number: int) -> None:
        self.running = running
        self._slot, self._number = slot, number
        self.signal = running.signal
        self.values: list[Any] = [None] * rows.num_rows
        self.errors: list[str | None] = [None] * rows.num_rows
        self._columns = {
            given.column: rows.column(rows.schema.get_field_index(given.column))
            for given in self.signal.inputs
            if given.kind == "value"
        }
        self._singles = {
            given.column: single_values(self._columns[given.column], given)
            for given in self.signal.inputs
            if given.kind == "value" and not self._in_columns(given)
        }
        self._pending: list[tuple[int, tuple[Any, ...]]] = []
        self._pending_bytes = 0

    def add(self, row: int, members: Mapping[str, Member | Exception | None]) -> None:
        self._slot.begin(self._number, row, row + 1, self.running.limit)
        try:
            given = [self._value(wanted, row, members) for wanted in self.signal.inputs]
            if not self.signal.batch:
                self.values[row] = self.running.call(*given)
                return
            if self.running.prepare is not None:
                given = [self.running.prepare(*given)]
            self._pending.append((row, tuple(given)))
            self._pending_bytes += sum(_size(value) for value in given)
        except (Exception, SignalTimeout) as error:
            self.errors[row] = self._reason(error)
        if len(self._pending) >= self.signal.batch or self._pending_bytes > MAX_PENDING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Compute the pending samples of a batch signal; one at a time where the batch fails, to find the bad ones."""
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if not pending:
            return
        self._slot.begin(self._number, pending[0][0], pending[-1][0] + 1, self.running.limit)
        try:
            results = self._batch(pending)
        except (Exception, SignalTimeout) as error:
            if len(pending) == 1:
                self.errors[pending[0][0]] = self._reason(error)
                return
            for sample in pending:
                self._pending = [sample]
                self.flush()
            return
        for (row, _), result in zip(pending, results, strict=True):
            if isinstance(result, Exception):
                self.errors[row] = describe(result)
            else:
                self.values[row] = result

    def _batch(self, pending: Sequence[tuple[int, tuple[Any, ...]]]) -> Sequence[Any]:
        given: list[Any] = [list(values) for values in zip(*(values for _, values in pending), strict=True)]
        if self.running.prepare is None:
            rows = pa.array([row for row, _ in pending])
            for place, wanted in enumerate(self.signal.inputs):
                if self._in_columns(wanted):
                    column = self._columns[wanted.column].take(rows)
                    given[place] = column if wanted.form == "arrow" else _stacked(column)
        returned = self.running.call(*given)
        results = returned.to_pylist() if isinstance(returned, pa.Array | pa.ChunkedArray) else returned
        if len(results) != len(pending):
            raise ValueError(f"a batch of {len(pending)} samples gave {len(results)} values")
        return list(results)

    def _value(self, wanted: Input, row: int, members: Mapping[str, Member | Exception | None]) -> Any:
        if wanted.kind == "value":
            if self._in_columns(wanted):
                if not wanted.optional and not self._columns[wanted.column][row].is_valid:
                    raise MissingInputError(f"no {wanted.column}")
                return None
            value = self._singles[wanted.column][row]
            if value is None and not wanted.optional:
                raise MissingInputError(f"no {wanted.column}")
            return value
        member = members[wanted.column]
        if isinstance(member, Exception):
            raise member
        if member is None:
            if wanted.optional:
                return None
            raise MissingInputError(f"no {wanted.column}")
        if wanted.kind == "member":
            return member
        return member.data if wanted.kind == "bytes" else member.picture(self.signal.truncated)

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, SignalTimeout):
            return timeout_text(self.signal.name, self.running.limit)
        return describe(error)

    def _in_columns(self, wanted: Input) -> bool:
        """Whether the input is handed over as a slice of the column instead of a list of values."""
        return bool(self.signal.batch) and self.running.prepare is None and wanted.form != "python"

    def arrays(self) -> tuple[pa.Array, pa.Array]:
        """The value and error columns; values of a wrong type become errors."""
        self.flush()
        self._slot.end()
        try:
            values = self.signal.output.array(self.values)
        except Exception:
            for row, value in enumerate(self.values):
                try:
                    self.signal.output.array([value])
                except Exception as error:
                    self.values[row] = None
                    self.errors[row] = describe(error)
            values = self.signal.output.array(self.values)
        return values, pa.array(self.errors, pa.string())


def compute_task(
    running: Sequence[ReadySignal],
    rows: pa.RecordBatch,
    data: Mapping[str, Sequence[Read]],
    *,
    hashes: bool = False,
    slot: ProgressSlot | None = None,
) -> pa.RecordBatch:
    """Compute all signals over some rows.

    Args:
        running: the signals, set up.
        rows: identity columns and the columns that the signals read.
        data: for each member that a signal reads, what reading it gave, one item a row.
        hashes: hash what was read, too.
        slot: where to say which row is computed by which signal.

    Returns:
        The identity columns, for each signal its value and its error column, and the hashes.
    """
    slot = slot or ProgressSlot()
    columns = [_Values(one, rows, slot, number) for number, one in enumerate(running)]
    with silent_decoding():
        for row in range(rows.num_rows):
            members = {name: _member(reads[row]) for name, reads in data.items()}
            for column in columns:
                column.add(row, members)
        arrays = [array for column in columns for array in column.arrays()]
    names = [name for column in columns for name in (column.signal.name, f"{column.signal.name}_error")]
    if hashes:
        arrays += [hash_column(reads) for reads in data.values()]
        names += [PREFIX + name for name in data]
    present = [name for name in IDENTITY if name in rows.schema.names]
    return pa.RecordBatch.from_arrays([rows.column(name) for name in present] + arrays, names=present + names)


def failed_task(blank: pa.RecordBatch, rows: pa.RecordBatch, reason: str, hashed: Sequence[str] = ()) -> pa.RecordBatch:
    """What `compute_task` gives, for rows that no process survived: no values, the same error for all.

    Args:
        blank: one row of the value and error columns, without values.
    """
    present = [name for name in IDENTITY if name in rows.schema.names]
    without = blank.take(pa.array([0] * rows.num_rows, pa.int64()))
    error = pa.array([reason] * rows.num_rows, pa.string())
    arrays = [rows.column(name) for name in present]
    arrays += [column if place % 2 == 0 else error for place, column in enumerate(without.columns)]
    arrays += [hash_column([None] * rows.num_rows) for _ in hashed]
    names = [*present, *without.schema.names, *(PREFIX + name for name in hashed)]
    return pa.RecordBatch.from_arrays(arrays, names=names)


def single_values(column: pa.Array, given: Input) -> Sequence[Any]:
    """The values of a column one by one: Python objects, or numpy or Arrow arrays as annotated."""
    if given.form == "python":
        values: list[Any] = column.to_pylist()
        return values
    if not isinstance(column, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        return [np.asarray(value) if value is not None else None for value in column.to_pylist()]
    items = (scalar.values for scalar in column)
    return [
        None if item is None else item if given.form == "arrow" else item.to_numpy(zero_copy_only=False)
        for item in items
    ]


def _member(read: Read) -> Member | Exception | None:
    if read is None or isinstance(read, Exception):
        return read
    return Member(read)


def _stacked(column: pa.Array) -> np.ndarray[Any, Any]:
    """A column as numpy: lists of equal length become a matrix."""
    if isinstance(column, pa.FixedSizeListArray):
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1))
    if isinstance(column, pa.ListArray | pa.LargeListArray):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        if len(column) and len(flat) % len(column):
            raise ValueError("the vectors of the batch differ in length")
        return np.asarray(flat.reshape(len(column), -1))
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _size(value: Any) -> int:
    """Bytes that a pending input holds, roughly."""
    size = getattr(value, "size", None)
    if isinstance(size, tuple):
        return int(size[0]) * int(size[1]) * 3
    return int(getattr(value, "nbytes", 0)) or (len(value) if isinstance(value, bytes) else 0)
