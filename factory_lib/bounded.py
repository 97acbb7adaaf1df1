"""Batches of rows bounded by their bytes: a number of rows says nothing of the memory that they take."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

BATCH_BYTES = 64 * 2**20
"""What a batch holds at most, but for a single row that holds more."""


def split(batch: pa.RecordBatch, size: int | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a batch in batches of at most so many bytes, or one row; nothing is copied."""
    size = BATCH_BYTES if size is None else size
    if batch.num_rows <= 1 or bytes_of(batch) <= size:
        yield batch
        return
    half = batch.num_rows // 2
    yield from split(batch.slice(0, half), size)
    yield from split(batch.slice(half), size)


def bytes_of(batch: pa.RecordBatch) -> int:
    """Bytes of the values of a batch, each as often as it occurs, also where the batch has it once."""
    total = 0
    for column in batch.columns:
        total += column.nbytes
        if pa.types.is_dictionary(column.type):
            lengths = _lengths(column.dictionary)
            total += pc.sum(lengths.take(column.indices)).as_py() or 0
            total -= column.dictionary.nbytes
    return total


def rows_within(row_bytes: float, size: int | None = None) -> int:
    """How many rows of so many bytes make a batch."""
    size = BATCH_BYTES if size is None else size
    return max(1, int(size // max(row_bytes, 1)))


def aligned(
    batches: Iterator[pa.RecordBatch], others: Iterator[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Two streams of the same rows, side by side, however each is cut.

    `[1, 2] [3]` and `[a] [b, c]` -> `[1] [a]`, `[2] [b]`, `[3] [c]`.

    Raises:
        ValueError: one of them ends before the other.
    """
    one = other = None
    while True:
        one = one if one is not None and one.num_rows else _next(batches)
        other = other if other is not None and other.num_rows else _next(others)
        if one is None or other is None:
            if one is not other:
                raise ValueError("columns of one table have different numbers of rows")
            return
        rows = min(one.num_rows, other.num_rows)
        yield one.slice(0, rows), other.slice(0, rows)
        one, other = one.slice(rows), other.slice(rows)


def _next(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return next((batch for batch in batches if batch.num_rows), None)


def _lengths(values: pa.Array) -> pa.Array:
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return pc.binary_length(values).cast(pa.int64())
    return pa.repeat(pa.scalar(8, pa.int64()), len(values))
