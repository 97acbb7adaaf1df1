"""Reading the members of a task: few large requests in byte order, errors kept to the samples they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from factory_lib.errors import FactoryError, SignalError, StorageAway, StoreError, nearest
from factory_lib.signals.inputs import no_pointer
from factory_lib.signals.signal import Signal
from factory_lib.storage.store import store

Read = memoryview | bytes | Exception | None
"""What reading a member gave: its bytes, the error, or None where the row points at nothing."""

IDENTITY = ("shard", "position", "sample_id")
TASK_BYTES = 16 * 2**20
HASH = pa.binary(16)
PREFIX = "_hash_"
"""The hashes of the member `image` are the column `_hash_image`: where a file was rewritten they tell which of its
samples are still the same."""


@dataclass(frozen=True)
class ReadPlan:
    """What a computation needs of its rows.

    Attributes:
        members: pointer columns whose bytes are read.
        columns: all columns that travel with a task.
    """

    members: tuple[str, ...]
    columns: tuple[str, ...]

    @staticmethod
    def of(signals: Sequence[Signal], schema: pa.Schema) -> ReadPlan:
        """The plan for some signals over rows of a schema.

        Raises:
            SignalError: a column is missing, or is no pointer where bytes are read.
        """
        members = tuple(dict.fromkeys(name for one in signals for name in one.members))
        for one in signals:
            for given in one.inputs:
                if given.column not in schema.names:
                    raise SignalError(
                        f"Signal {one.name!r} reads the column {given.column!r}, which the rows do not have.",
                        f"{nearest(given.column, schema.names)} "
                        f"To read another column: {one.name}.reading({given.parameter}=…).",
                    )
                if given.kind != "value" and not _is_pointer(schema.field(given.column).type):
                    raise no_pointer(one, given.column, schema.field(given.column).type)
        wanted = dict.fromkeys([*IDENTITY, "key", *(name for one in signals for name in one.reads)])
        return ReadPlan(members, tuple(name for name in wanted if name in schema.names))


def tasks(rows: Iterable[pa.RecordBatch], plan: ReadPlan, most: int | Callable[[], int]) -> Iterator[pa.RecordBatch]:
    """Cut rows into tasks of neighbouring rows: at most `most` of them and `TASK_BYTES`, of columns and to read.

    A function is asked for the number anew for every task.

    Small incoming batches are put together, large ones are sliced without copying.
    """
    held: list[pa.RecordBatch] = []
    held_rows = 0
    ask = most if callable(most) else lambda: most
    size = ask()
    for batch in rows:
        narrow = batch.select(list(plan.columns))
        start = 0
        while start < narrow.num_rows:
            piece = narrow.slice(start, size - held_rows)
            held.append(piece)
            held_rows += piece.num_rows
            start += piece.num_rows
            if held_rows == size:
                yield from _by_bytes(held, plan)
                held, held_rows = [], 0
                size = ask()
    if held:
        yield from _by_bytes(held, plan)


def read_members(
    rows: pa.RecordBatch, members: Sequence[str], etags: Mapping[str, str] | None = None
) -> dict[str, list[Read]]:
    """The bytes of some members for every row, read file by file in byte order.

    Args:
        rows: rows with a pointer column for each member.
        members: names of the pointer columns.
        etags: uri -> etag that the file had when it was ingested; one that changed since is an error.

    Returns:
        For each member one item a row: bytes, the error, or None where the pointer is empty.

    Raises:
        StorageAway: storage fails for the time being; it names the shard where the rows are of one.
    """
    found: dict[str, list[Read]] = {name: [None] * rows.num_rows for name in members}
    wanted: dict[str, list[tuple[int, int, str, int]]] = {}
    for name in members:
        uris, offsets, sizes = _pointers(rows.column(rows.schema.get_field_index(name)))
        for row, uri in enumerate(uris):
            if uri:
                wanted.setdefault(uri, []).append((offsets[row], sizes[row], name, row))
    for uri, places in wanted.items():
        places.sort()
        with _blamed_on(rows):
            reads = _read_file(uri, [(offset, size) for offset, size, _, _ in places], (etags or {}).get(uri))
        for (_, _, name, row), read in zip(places, reads, strict=True):
            found[name][row] = read
    return found


@contextmanager
def _blamed_on(rows: pa.RecordBatch) -> Iterator[None]:
    """Errors within say which shard they happened in, where the rows are of one."""
    try:
        yield
    except StorageAway as error:
        shards = rows.column("shard").unique().to_pylist()
        error.shard = str(shards[0]) if len(shards) == 1 else None
        raise


def hash_column(reads: Sequence[Read]) -> pa.Array:
    """Hashes of what was read, NULL where nothing was."""
    return pa.array([None if one is None or isinstance(one, Exception) else content_hash(one) for one in reads], HASH)


def content_hash(data: bytes | memoryview) -> bytes:
    """The first 16 bytes of SHA-256, for which processors have instructions: 1.3 GB/s a core where BLAKE2 makes 0.7."""
    return hashlib.sha256(data).digest()[: HASH.byte_width]


def _read_file(uri: str, ranges: Sequence[tuple[int, int]], etag: str | None) -> Sequence[Read]:
    try:
        return store().read_ranges(uri, ranges, etag=etag)
    except StorageAway:  # it says nothing of the samples
        raise
    except (FactoryError, OSError) as error:
        return _each_on_its_own(uri, ranges, etag, error)


def _each_on_its_own(uri: str, ranges: Sequence[tuple[int, int]], etag: str | None, error: Exception) -> Sequence[Read]:
    """A file that cannot be read fails all its samples; one that ends early fails those beyond its end alone."""
    try:
        size = store().info(uri).size
    except StorageAway:
        raise
    except (FactoryError, OSError):
        return [error] * len(ranges)
    inside = [start + length <= size for start, length in ranges]
    if all(inside):
        return [error] * len(ranges)
    beyond = StoreError(f"{uri} has {size} bytes and ends before this sample does.")
    kept = [span for span, fits in zip(ranges, inside, strict=True) if fits]
    try:
        views = iter(store().read_ranges(uri, kept, etag=etag))
    except StorageAway:
        raise
    except (FactoryError, OSError) as again:
        return [again if fits else beyond for fits in inside]
    return [next(views) if fits else beyond for fits in inside]


def _pointers(column: pa.Array) -> tuple[list[str | None], list[int], list[int]]:
    return _field(column, "uri").to_pylist(), _numbers(column, "offset").tolist(), _numbers(column, "size").tolist()


def _field(column: pa.StructArray, name: str) -> pa.Array:
    """A field of a pointer column, null where the pointer is."""
    return column.flatten()[column.type.get_field_index(name)]


def _numbers(column: pa.StructArray, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    numbers = _field(column, name)
    values = numbers.to_numpy(zero_copy_only=False)
    found: np.ndarray[Any, np.dtype[np.int64]] = (np.nan_to_num(values) if numbers.null_count else values).astype(
        np.int64
    )
    return found


def _by_bytes(held: Sequence[pa.RecordBatch], plan: ReadPlan) -> Iterator[pa.RecordBatch]:
    """One record batch, or several where it or its members are too many bytes to hold at once."""
    rows = held[0] if len(held) == 1 else pa.concat_batches(list(held))
    sizes = np.zeros(rows.num_rows, dtype=np.int64)
    for name in plan.members:
        sizes += _numbers(rows.column(rows.schema.get_field_index(name)), "size")
    yield from _halves(rows, sizes)


def _halves(rows: pa.RecordBatch, sizes: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[pa.RecordBatch]:
    """Rows cut in the middle until the pieces are small enough, or single rows.

    Args:
        sizes: bytes of the members of every row.
    """
    if rows.num_rows < 2 or rows.nbytes + int(sizes.sum()) <= TASK_BYTES:
        yield rows
        return
    middle = rows.num_rows // 2
    yield from _halves(rows.slice(0, middle), sizes[:middle])
    yield from _halves(rows.slice(middle), sizes[middle:])


def _is_pointer(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {"uri", "offset", "size"} <= {field.name for field in kind}
