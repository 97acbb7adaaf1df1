"""Rows as files: JSON, lines of JSON, CSV, Arrow, Parquet; in a stream, whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from factory_lib.commands.output import json_text

if TYPE_CHECKING:
    import pyarrow as pa

Batches = Iterator["pa.RecordBatch"]


def write(form: str, schema: pa.Schema, batches: Batches, target: BinaryIO) -> None:
    """Write rows.

    Args:
        form: json (one list), jsonl (an object a line), csv (with a heading; what is nested as JSON text), arrow (the
            stream format) or parquet.
        target: where to; it stays open.
    """
    _WRITERS[form](schema, batches, target)


def _arrow(schema: pa.Schema, batches: Batches, target: BinaryIO) -> None:
    import pyarrow as pa

    with pa.ipc.new_stream(target, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _parquet(schema: pa.Schema, batches: Batches, target: BinaryIO) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def _csv(schema: pa.Schema, batches: Batches, target: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.csv

    flat = pa.schema([pa.field(f.name, f.type if _is_flat(f.type) else pa.string()) for f in schema])
    with pyarrow.csv.CSVWriter(target, flat) as writer:
        for batch in batches:
            columns = [c if _is_flat(c.type) else _as_text(c) for c in batch.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=flat))


def _jsonl(_: pa.Schema, batches: Batches, target: BinaryIO) -> None:
    for batch in batches:
        target.write("".join(f"{json_text(row)}\n" for row in batch.to_pylist()).encode())


def _json(_: pa.Schema, batches: Batches, target: BinaryIO) -> None:
    before = "[\n"
    for batch in batches:
        if batch.num_rows:
            target.write((before + ",\n".join(json_text(row) for row in batch.to_pylist())).encode())
            before = ",\n"
    target.write(b"[]\n" if before == "[\n" else b"\n]\n")


def _is_flat(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return not (
        pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType) or pa.types.is_fixed_size_binary(kind)
    )


def _as_text(column: pa.Array) -> pa.Array:
    """Lists and structs as JSON, identifiers as they are written."""
    import pyarrow as pa

    def text(value: Any) -> str | None:
        if value is None:
            return None
        return json_text(value) if isinstance(value, list | dict) else json_text(value).strip('"')

    return pa.array([text(value) for value in column.to_pylist()], pa.string())


_WRITERS: dict[str, Callable[[pa.Schema, Batches, BinaryIO], None]] = {
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
    "arrow": _arrow,
    "parquet": _parquet,
}
