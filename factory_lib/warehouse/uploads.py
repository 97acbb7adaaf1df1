"""Arrow data on its way into a table, as the bytes of one ArrowStream."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from factory_lib.warehouse.bfloat16 import narrowed
from factory_lib.warehouse.null_elements import nan_for_null

_ROWS = 1 << 16
_LONG = 1 << 14
_KEPT = 32 << 20


def as_reader(data: pa.Table | pa.RecordBatch | pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Any Arrow data as batches of moderate size."""
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    return data.to_reader(max_chunksize=_ROWS) if isinstance(data, pa.Table) else data


class Upload:
    """The bytes of one insert, made while they are sent.

    Args:
        reader: the rows.
        types: asked for the target's column types (name -> ClickHouse type) when floats may go into BFloat16.

    Attributes:
        repeatable: whether all that was taken is kept, so that the data can be sent again from its beginning. An engine
            that stops refuses an insert while its first bytes are on the way.
        rows: how many rows were taken.
    """

    def __init__(self, reader: pa.RecordBatchReader, types: Callable[[], dict[str, str]]) -> None:
        self._reader = reader
        self.names = list(reader.schema.names)
        floats = any("float" in str(field.type) or "double" in str(field.type) for field in reader.schema)
        targets = types() if floats else {}
        self._narrow = frozenset(name for name, type_ in targets.items() if "BFloat16" in type_)
        self._vectors = frozenset(name for name, type_ in targets.items() if re.search(r"Array\(B?Float", type_))
        self.repeatable = True
        self.rows = 0
        self._taken: list[bytes] = []
        self._kept = 0
        self._parts = self._blocks()
        self._first = next(self._parts, None)

    @property
    def empty(self) -> bool:
        """Whether there are no rows at all."""
        return self._first is None and not self._taken

    def __iter__(self) -> Iterator[bytes]:
        yield from list(self._taken)
        first, self._first = self._first, None
        for part in itertools.chain([] if first is None else [first], self._parts):
            self._keep(part)
            yield part

    def _keep(self, part: bytes) -> None:
        self._kept += len(part)
        self.repeatable = self._kept <= _KEPT
        if self.repeatable:
            self._taken.append(part)
        else:
            self._taken.clear()

    def _blocks(self) -> Iterator[bytes]:
        sink = _Sink()
        writer: Any = None
        for batch in self._reader:
            for start in range(0, batch.num_rows, _ROWS):
                piece = self._plain(batch.slice(start, _ROWS))
                writer = writer or pa.ipc.new_stream(sink, piece.schema)
                writer.write_batch(piece)
                self.rows += piece.num_rows
                yield from sink.take()
        if writer is not None:
            writer.close()
            yield from sink.take()

    def _plain(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch as ClickHouse reads it: dictionaries decoded, floats for BFloat16 columns rounded.

        It would read a null in a vector as 0: NaN comes in its place.
        """
        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            decoded = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            whole = nan_for_null(decoded) if name in self._vectors else decoded
            columns.append(narrowed(whole) if name in self._narrow else whole)
        return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


class _Sink:
    """A file that keeps what is written until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> Iterator[bytes]:
        """What was written, short pieces (headers, padding) together, long ones as they are."""
        short: list[bytes] = []
        parts, self._parts = self._parts, []
        for part in parts:
            if len(part) < _LONG:
                short.append(part)
                continue
            if short:
                yield b"".join(short)
                short.clear()
            yield part
        if short:
            yield b"".join(short)

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def flush(self) -> None: ...

    def close(self) -> None: ...
