"""Types of columns: what a file's type becomes in a dataset, and one type for what several files say."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from factory_lib.sources.coerce import is_file
from factory_lib.sources.columns import TYPES
from factory_lib.sources.shards import POINTER
from factory_lib.warehouse.null_elements import is_list, keeps_null_elements, with_null_elements

_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_MOST_DIGITS = 76
"""Of a decimal that the warehouse holds."""


def settled_type(name: str, kinds: Iterable[pa.DataType]) -> pa.DataType:
    """The type of a column that files give in several types.

    Known columns have the type of the table in `columns.TYPES`; others the type that holds all of them; where none
    does, text.
    """
    if name in TYPES:
        return TYPES[name]
    kinds = [stored_type(kind) for kind in kinds]
    try:
        schemas = [pa.schema([(name, kind)]) for kind in kinds]
        kind = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()
    if pa.types.is_null(kind):
        return pa.string()
    return with_null_elements(kind) if any(map(keeps_null_elements, kinds)) else stored_type(kind)


def stored_type(kind: pa.DataType) -> pa.DataType:
    """What a column of a file's type becomes.

    Numbers, dates, decimals and lists stay what they are. Durations become numbers in their unit; times of the day,
    intervals and UUIDs text; structs, maps, unions and lists of them JSON.
    """
    if kind.equals(POINTER):
        return kind
    if isinstance(kind, pa.UuidType):
        return pa.string()
    if isinstance(kind, pa.BaseExtensionType):
        return stored_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return stored_type(kind.value_type)
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_duration(kind):
        return pa.int64()
    if pa.types.is_decimal(kind):
        return _stored_decimal(kind)
    if is_list(kind) or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return _stored_list(kind)
    plain = pa.types.is_primitive(kind) and not pa.types.is_time(kind) and not pa.types.is_interval(kind)
    return kind if plain or pa.types.is_null(kind) else pa.string()


def shown_type(kind: pa.DataType) -> str:
    """A type, for the account."""
    return "pointer" if kind.equals(POINTER) else str(kind)


def became(kind: pa.DataType) -> str:
    """What became of a column of a file's type, in words; empty where it stayed what it was."""
    if isinstance(kind, pa.UuidType) or pa.types.is_time(kind) or pa.types.is_interval(kind):
        return f"{kind} as text"
    if pa.types.is_duration(kind):
        return f"{kind} as a number of {_UNITS[kind.unit]}"
    if pa.types.is_decimal(kind) and pa.types.is_string(stored_type(kind)):
        return f"{kind} as text"
    if is_file(kind):
        return "the paths of files whose bytes are not in the table"
    if pa.types.is_nested(kind) and pa.types.is_string(stored_type(kind)):
        return "nested values as JSON text"
    return ""


def _stored_decimal(kind: pa.DataType) -> pa.DataType:
    if kind.scale < 0 or kind.precision > _MOST_DIGITS or kind.scale > kind.precision:
        return pa.string()
    return kind if kind.bit_width >= 128 else pa.decimal128(kind.precision, kind.scale)


def _stored_list(kind: pa.DataType) -> pa.DataType:
    inner = stored_type(kind.value_type)
    if pa.types.is_null(inner) or (pa.types.is_string(inner) and not _is_text(kind.value_type)):
        return pa.string()
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner, kind.list_size)
    return pa.list_(pa.field("item", inner, metadata=kind.value_field.metadata))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
