"""ClickHouse's `BFloat16` (a float32 without its lower two bytes) to and from Arrow, which has no such type.

* It arrives as `binary` of two bytes a value. Nothing else arrives as `binary`, since String is asked for as `string`
  and FixedString as `fixed_size_binary`; so binary, however deep, becomes float32 here.
* ClickHouse cuts float32 towards zero when it stores it, which makes every unit vector about 0.27 % too short;
  `narrowed` rounds to the nearest value before, then cutting loses nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

_Bits = np.ndarray[Any, np.dtype[np.uint32]]


def has_binary(schema: pa.Schema) -> bool:
    """Whether any column holds binary, however deep."""
    return any(_contains(field.type) for field in schema)


def widened_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with binary as float32."""
    return pa.schema([field.with_type(_wide(field.type)) for field in schema])


def widened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with its BFloat16 values as float32; `schema` is its widened schema."""
    return pa.RecordBatch.from_arrays([_apply(column, _widen) for column in batch.columns], schema=schema)


def narrowed(array: pa.Array) -> pa.Array:
    """Floats, alone or in lists and structs, as float32 rounded to the nearest BFloat16 (ties to even)."""
    type_ = array.type
    if pa.types.is_floating(type_):
        return _round(array)
    if pa.types.is_struct(type_):
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(
            [narrowed(array.field(i)) for i in range(type_.num_fields)], [field.name for field in type_], mask=mask
        )
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        import pyarrow.compute as pc  # takes as long to import as the rest of pyarrow, and is seldom needed

        offsets = np.zeros(len(array) + 1, np.int64)
        np.cumsum(pc.fill_null(pc.list_value_length(array), 0).to_numpy(), out=offsets[1:])
        mask = array.is_null() if array.null_count else None
        return pa.LargeListArray.from_arrays(pa.array(offsets), narrowed(array.flatten()), mask=mask)
    return array


def _minus(numbers: pa.Array, number: pa.Scalar) -> pa.Array:
    import pyarrow.compute as pc

    return pc.subtract(numbers, number)


def _contains(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_)) or any(_contains(type_.field(i).type) for i in range(type_.num_fields))


def _wide(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_binary(type_):
        return pa.float32()
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(_wide(type_.value_type)))
    if pa.types.is_map(type_):
        return pa.map_(type_.key_field, type_.item_field.with_type(_wide(type_.item_type)))
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_wide(field.type)) for field in type_])
    return type_


def _apply(array: pa.Array, leaf: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Rebuild a nested array with `leaf` applied to the binary inside of it."""
    type_ = array.type
    if not _contains(type_):
        return array
    if pa.types.is_binary(type_):
        return leaf(array)
    mask = array.is_null() if array.null_count else None
    if pa.types.is_struct(type_):
        fields = [_apply(array.field(i), leaf) for i in range(type_.num_fields)]
        return pa.StructArray.from_arrays(fields, fields=list(_wide(type_)), mask=mask)
    offsets = array.offsets
    begin = offsets[0].as_py()
    size = offsets[-1].as_py() - begin
    moved = _minus(offsets, offsets[0]) if begin else offsets
    if pa.types.is_list(type_):
        return pa.ListArray.from_arrays(
            moved, _apply(array.values.slice(begin, size), leaf), type=_wide(type_), mask=mask
        )
    if pa.types.is_map(type_):
        keys, items = array.keys.slice(begin, size), array.items.slice(begin, size)
        return pa.MapArray.from_arrays(moved, keys, _apply(items, leaf), type=_wide(type_), mask=mask)
    raise TypeError(f"BFloat16 inside of {type_} cannot be read, cast it to Float32 in the query")


def _widen(array: pa.Array) -> pa.Array:
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    # nulls of the engine take no bytes, so what is there belongs to the valid ones
    raw = b"" if len(array) == 0 else _bytes(array)
    present = (np.frombuffer(raw, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    if valid is None:
        return pa.array(present)
    values = np.zeros(len(array), np.float32)
    values[valid] = present
    return pa.array(values, mask=~valid)


def _bytes(array: pa.Array) -> memoryview:
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return memoryview(data)[ends[0] : ends[-1]] if data is not None else memoryview(b"")


def _round(array: pa.Array) -> pa.Array:
    values = array.cast(pa.float32())
    bits: _Bits = np.frombuffer(values.buffers()[1], np.uint32)[values.offset : values.offset + len(values)]
    validity = pa.array(values.is_valid()).buffers()[1] if values.null_count else None
    return pa.Array.from_buffers(pa.float32(), len(values), [validity, pa.py_buffer(_nearest(bits))], values.null_count)


def _nearest(bits: _Bits) -> _Bits:
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += bits
    rounded += np.uint32(0x7FFF)
    rounded &= np.uint32(0xFFFF0000)
    # infinity and NaN must not carry into the next exponent
    special = (bits & np.uint32(0x7F800000)) == np.uint32(0x7F800000)
    if special.any():
        rounded[special] = bits[special]
    return rounded
