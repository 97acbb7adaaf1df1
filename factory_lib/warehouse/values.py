"""Values on their way through Arrow where ClickHouse's and Arrow's types differ.

* ClickHouse has `BFloat16`, Arrow does not: it arrives as binary of two bytes (the only type that arrives as `binary`, since
  String is asked for as `string` and FixedString as `fixed_size_binary`) and becomes float32 here.
* ClickHouse cuts float32 to `BFloat16` towards zero, which shortens every unit vector by 0.3 %; values are rounded to nearest here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_NARROW = "BFloat16"


def bound(value: Any) -> Any:
    """A parameter's value as clickhouse-connect binds it; arrays as text, with the digits of their own precision."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            return "[" + ",".join(value.astype("U").tolist()) + "]"
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        return value.to_pylist()
    return value


def has_binary(schema: pa.Schema) -> bool:
    """Whether any column holds binary, however deep."""
    return any(_contains(field.type, pa.types.is_binary) for field in schema)


def widened_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with binary as float32."""
    return pa.schema([field.with_type(_widened(field.type)) for field in schema])


def widened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with its BFloat16 values as float32."""
    return pa.RecordBatch.from_arrays([_widen(column) for column in batch.columns], schema=schema)


def _contains(type_: pa.DataType, test: Any) -> bool:
    return bool(test(type_)) or any(_contains(type_.field(i).type, test) for i in range(type_.num_fields))


def _widened(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_binary(type_):
        return pa.float32()
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(_widened(type_.value_type)))
    if pa.types.is_map(type_):
        return pa.map_(type_.key_field, type_.item_field.with_type(_widened(type_.item_type)))
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_widened(field.type)) for field in type_])
    return type_


def _widen(array: pa.Array) -> pa.Array:
    type_ = array.type
    if not _contains(type_, pa.types.is_binary):
        return array
    validity = array.is_valid() if array.null_count else None
    if pa.types.is_binary(type_):
        return _floats(array, validity)
    if pa.types.is_list(type_):
        mask = pc.invert(validity) if validity is not None else None
        offsets = array.offsets
        values = array.values.slice(offsets[0].as_py(), offsets[-1].as_py() - offsets[0].as_py()) if len(array) else array.values[:0]
        return pa.ListArray.from_arrays(pc.subtract(offsets, offsets[0]), _widen(values), type=_widened(type_), mask=mask)
    if pa.types.is_map(type_):
        start = array.offsets[0].as_py()
        size = array.offsets[-1].as_py() - start
        keys, items = array.keys.slice(start, size), array.items.slice(start, size)
        return pa.MapArray.from_arrays(pc.subtract(array.offsets, array.offsets[0]), keys, _widen(items), type=_widened(type_))
    if pa.types.is_struct(type_):
        target = _widened(type_)
        mask = pc.invert(validity) if validity is not None else None
        columns = [_widen(array.field(i)) for i in range(type_.num_fields)]
        return pa.StructArray.from_arrays(columns, fields=list(target), mask=mask)
    raise TypeError(f"BFloat16 inside of {type_} is not supported, cast it to Float32 in the query")


def _floats(array: pa.Array, validity: pa.Array | None) -> pa.Array:
    _, offsets, data = array.buffers()
    first = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1] if offsets is not None else np.zeros(1, np.int32)
    raw = np.frombuffer(data, np.uint8)[first[0] : first[-1]] if data is not None else np.zeros(0, np.uint8)
    present = raw.view("<u2").astype(np.uint32) << np.uint32(16)
    if validity is None:
        return pa.array(present.view(np.float32))
    valid = validity.to_numpy(zero_copy_only=False)
    values = np.zeros(len(array), np.float32)
    values[valid] = present.view(np.float32)[: int(valid.sum())] if len(present) == int(valid.sum()) else present.view(np.float32)[valid]
    return pa.array(values, mask=~valid)


def narrow_columns(types: Mapping[str, str]) -> frozenset[str]:
    """Columns of a table (name -> ClickHouse type) that hold BFloat16, alone or in arrays."""
    return frozenset(name for name, type_ in types.items() if _NARROW in type_)


def outgoing(batch: pa.RecordBatch, narrow: frozenset[str]) -> pa.RecordBatch:
    """A batch as ClickHouse reads it: dictionaries decoded, floats for BFloat16 columns rounded to nearest."""
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        decoded = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        columns.append(_round(decoded) if name in narrow else decoded)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _round(array: pa.Array) -> pa.Array:
    type_ = array.type
    if pa.types.is_floating(type_):
        values = array.cast(pa.float32())
        bits = np.frombuffer(values.buffers()[1], np.uint32)[values.offset : values.offset + len(values)]
        return pa.Array.from_buffers(pa.float32(), len(values), [_bitmap(values), pa.py_buffer(_nearest(bits))], values.null_count)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        flat = array.flatten()
        if array.null_count or not pa.types.is_floating(flat.type):
            return array
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        offsets = np.zeros(len(array) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return pa.LargeListArray.from_arrays(pa.array(offsets), _round(flat)) if offsets[-1] > 2**31 - 1 else pa.ListArray.from_arrays(
            pa.array(offsets.astype(np.int32)), _round(flat)
        )
    return array


def _bitmap(array: pa.Array) -> Any:
    """Validity bitmap that starts at the array's first value."""
    return pa.array(array.is_valid()).buffers()[1] if array.null_count else None


def _nearest(bits: np.ndarray[Any, np.dtype[np.uint32]]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """float32 bits rounded to the nearest BFloat16, ties to even; NaN stays NaN."""
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    special = (bits & np.uint32(0x7F800000)) == np.uint32(0x7F800000)
    return np.where(special, bits, rounded & np.uint32(0xFFFF0000))
