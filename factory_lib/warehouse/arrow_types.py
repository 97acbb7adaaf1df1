"""Arrow types as ClickHouse types."""

from __future__ import annotations

import re

import pyarrow as pa

from factory_lib.errors import QueryError
from factory_lib.warehouse.null_elements import is_list, keeps_nulls

_SCALARS = (
    (pa.types.is_boolean, "Bool"),
    (pa.types.is_int8, "Int8"),
    (pa.types.is_int16, "Int16"),
    (pa.types.is_int32, "Int32"),
    (pa.types.is_int64, "Int64"),
    (pa.types.is_uint8, "UInt8"),
    (pa.types.is_uint16, "UInt16"),
    (pa.types.is_uint32, "UInt32"),
    (pa.types.is_uint64, "UInt64"),
    (pa.types.is_float16, "Float32"),
    (pa.types.is_float32, "Float32"),
    (pa.types.is_float64, "Float64"),
    (pa.types.is_date, "Date32"),
    (pa.types.is_string, "String"),
    (pa.types.is_large_string, "String"),
    (pa.types.is_string_view, "String"),
)
PLAIN_TYPES = {"print_pretty_type_names": 0}
"""Settings with which the engine says types on one line, as they are compared here."""

POINTER = pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])
"""Arrow type of a column that points at bytes in storage; offset and size in bytes."""

POINTER_TYPE = "Tuple(uri LowCardinality(String), offset UInt64, size UInt64)"
"""ClickHouse type of such a column."""

FLOAT_VECTORS = ("Array(BFloat16)", "Array(Float32)", "Array(Float64)")
"""Types of columns of vectors that are searched and indexed."""


def is_pointer(kind: str) -> bool:
    """Whether a ClickHouse type is that of a column that points at bytes."""
    return {"uri", "offset", "size"} <= set(re.findall(r"[(,] *(\w+) ", kind)) and kind.startswith("Tuple(")


def clickhouse_type(field: pa.Field) -> str:
    """The ClickHouse type of an Arrow field; nullable fields can be NULL, lists are empty instead.

    Raises:
        QueryError: there is none.
    """
    bare = _bare_type(field.type, field.name)
    plain = bare.startswith(("Array(", "Map(", "Tuple("))
    return bare if plain or not field.nullable else f"Nullable({bare})"


def _bare_type(arrow: pa.DataType, name: str) -> str:
    if pa.types.is_dictionary(arrow):
        return _bare_type(arrow.value_type, name)
    if pa.types.is_null(arrow):
        return "String"
    for matches, ch_type in _SCALARS:
        if matches(arrow):
            return ch_type
    if pa.types.is_timestamp(arrow):
        digits = {"s": 0, "ms": 3, "us": 6, "ns": 9}[arrow.unit]
        return f"DateTime64({digits}, 'UTC')"
    if pa.types.is_decimal(arrow):
        return f"Decimal({arrow.precision}, {arrow.scale})"
    if is_list(arrow):
        element = arrow.value_field
        return f"Array({clickhouse_type(element) if keeps_nulls(element) else _bare_type(element.type, name)})"
    if pa.types.is_map(arrow):
        return f"Map({_bare_type(arrow.key_type, name)}, {clickhouse_type(arrow.item_field)})"
    if pa.types.is_struct(arrow):
        if [f.name for f in arrow] == ["uri", "offset", "size"]:
            return POINTER_TYPE
        return f"Tuple({', '.join(f'{f.name} {clickhouse_type(f)}' for f in arrow)})"
    raise QueryError(f"Column {name!r} has the Arrow type {arrow}, which the warehouse cannot hold.", "Cast it.")
