"""Bytes are lists of numbers from 0 to 255 in a version: `Array(UInt8)`.

A ClickHouse String is read as text, which bytes are not: what is no UTF-8 in it would be lost on the way back. Lists
come back as they went in, `bytes(value)` of one is what was stored, and a loader delivers their numbers end to end.
"""

from __future__ import annotations

import pyarrow as pa

BYTES = pa.list_(pa.field("item", pa.uint8(), nullable=False))
"""Arrow type of a column of bytes."""


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values of this type are bytes themselves."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether values of this type hold bytes, at any depth."""
    return is_bytes(kind) or any(holds_bytes(kind.field(at).type) for at in range(kind.num_fields))


def with_byte_lists(kind: pa.DataType) -> pa.DataType:
    """The type with lists in place of bytes, at any depth; of a map's keys and values, too."""
    if is_bytes(kind):
        return BYTES
    if not holds_bytes(kind):
        return kind
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(with_byte_lists(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(with_byte_lists(kind.key_type), with_byte_lists(kind.item_type))
    field = kind.value_field.with_type(with_byte_lists(kind.value_type))
    return pa.large_list(field) if pa.types.is_large_list(kind) else pa.list_(field)


def as_byte_lists(column: pa.Array) -> pa.Array:
    """A column with lists in place of bytes, at any depth."""
    kind = column.type
    if not holds_bytes(kind):
        return column
    if is_bytes(kind):
        return _as_list(column.cast(pa.binary()))
    mask = column.is_null() if column.null_count else None
    if pa.types.is_struct(kind):
        parts = [as_byte_lists(column.field(at)) for at in range(kind.num_fields)]
        return pa.StructArray.from_arrays(parts, fields=list(with_byte_lists(kind)), mask=mask)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        whole = pa.concat_arrays([column])  # offsets of a slice cannot be taken with a mask
        items = as_byte_lists(whole.values)
        return type(whole).from_arrays(whole.offsets, items, type=with_byte_lists(kind), mask=mask)
    return pa.array(column.to_pylist(), with_byte_lists(kind))


def without_bytes(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The batches of a reader with lists in place of bytes."""
    if not any(holds_bytes(field.type) for field in reader.schema):
        return reader
    schema = pa.schema([field.with_type(with_byte_lists(field.type)) for field in reader.schema])
    batches = (
        pa.RecordBatch.from_arrays([as_byte_lists(column) for column in batch.columns], schema=schema)
        for batch in reader
    )
    return pa.RecordBatchReader.from_batches(schema, batches)


def _as_list(column: pa.BinaryArray) -> pa.ListArray:
    """Bytes as a list of their numbers: the same memory."""
    valid, offsets, data = column.buffers()
    size = data.size if data is not None else 0
    numbers = pa.Array.from_buffers(pa.uint8(), size, [None, data if data is not None else pa.py_buffer(b"")])
    return pa.Array.from_buffers(BYTES, len(column), [valid, offsets], -1, column.offset, [numbers])
