"""Names and types of columns: one schema for what different writers call and type differently.

LAION and its derivatives spell the same column in several ways and change types between files (HEIGHT as int32 and as
float64); the table below is what they become.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.sources.coerce import is_file
from factory_lib.sources.shards import POINTER
from factory_lib.warehouse.null_elements import is_list, keeps_null_elements, with_null_elements

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_LONGEST_NUMBER = 100
_FLOAT32_MAX = 3.4028235677973366e38
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_MOST_DIGITS = 76
"""Of a decimal that the warehouse holds."""

RESERVED = frozenset({"shard", "position", "sample_id"})
"""Columns that every version has; a column of a source that is called so gets an underscore behind its name."""

ALIASES: Mapping[str, str] = {
    "text": "caption", "txt": "caption", "top_caption": "caption", "image_url": "url", "sample_id": "source_id",
    "aesthetic_score": "aesthetic", "ase_scores": "aesthetic", "ase_score": "aesthetic", "licence": "license",
    "b32_similarity": "clip_b32_similarity_score", "l14_similarity": "clip_l14_similarity_score",
}  # fmt: skip
"""Lower-case names that become another."""

TYPES: Mapping[str, pa.DataType] = {
    **dict.fromkeys(("width", "height", "original_width", "original_height"), pa.int32()),
    **dict.fromkeys(
        ("similarity", "pwatermark", "punsafe", "aesthetic", "clip_b32_similarity_score", "clip_l14_similarity_score"),
        pa.float32(),
    ),
    **dict.fromkeys(("hash", "source_id"), pa.int64()),
    **dict.fromkeys(
        ("uid", "caption", "url", "license", "nsfw", "language", "sha256", "md5", "status", "error_message", "exif"),
        pa.string(),
    ),
}
"""Types that known columns have, whatever a file says."""


def column_name(raw: str) -> str:
    """The column that a field, an extension or a column of a file becomes: lower-case, `^[a-z_][a-z0-9_]*$`."""
    name = re.sub(r"[^a-z0-9_]+", "_", raw.strip().lower()).strip("_") or "column"
    name = ALIASES.get(name, name)
    if name[0].isdigit():
        name = f"c{name}"
    return f"{name}_" if name in RESERVED else name


def name_columns(raw: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Column names for raw names, all different: a second one of the same name ends in `_2`."""
    used = set(taken)
    named: dict[str, str] = {}
    for field in raw:
        base = name = column_name(field)
        number = 2
        while name in used:
            name, number = f"{base}_{number}", number + 1
        used.add(name)
        named[field] = name
    return named


def json_type(values: Iterable[Any]) -> pa.DataType:
    """The type that holds all values of a JSON field.

    Numbers widen (integers to int64, with a fraction to float64); objects, arrays and mixtures become JSON text, and so
    do integers that neither holds exactly. A field that is always null is text.
    """
    values = list(values)
    kinds = {_json_kind(value) for value in values if value is not None}
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds == {"int"}:
        return pa.int64()
    if kinds and kinds <= {"int", "float"} and all(_is_exact(value) for value in values if isinstance(value, int)):
        return pa.float64()
    return pa.string()


def json_column(values: Sequence[Any], kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Values of a JSON field as a column of a type that was settled before.

    Returns:
        The column, and the rows whose value does not fit its type; they are null.
    """
    try:
        # Asked for integers, Arrow would cut fractions off in silence: let it say what it sees, then cast.
        found = pa.array(values, kind if pa.types.is_string(kind) else None)
        if pa.types.is_null(found.type) or _family(found.type) == _family(kind):
            cast = found.cast(kind)
            if not pa.types.is_floating(kind) or _infinite(cast) == _infinite(found):
                return cast, []
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError):
        pass
    converted = [_json_value(value, kind) for value in values]
    misfits = [row for row, value in enumerate(converted) if value is None and values[row] is not None]
    return pa.array(converted, kind), misfits


def _json_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else "text"
    return "float" if isinstance(value, float) else "text"


def _json_value(value: Any, kind: pa.DataType) -> Any:
    """One value as the type says, None when it cannot be."""
    if value is None:
        return None
    if pa.types.is_string(kind):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if pa.types.is_boolean(kind):
        return value if isinstance(value, bool) else None
    if isinstance(value, str):
        value = _number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if pa.types.is_floating(kind):
        return _float(value, kind)
    limit = 2 ** (kind.bit_width - 1)
    return int(value) if -limit <= value < limit and value == int(value) else None


def _family(kind: pa.DataType) -> str:
    """Types whose values Arrow turns into each other as we do."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    return str(kind)


def _infinite(column: pa.Array) -> int:
    return int(pc.sum(pc.is_inf(column)).as_py() or 0) if pa.types.is_floating(column.type) else 0


def _is_exact(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def _number(text: str) -> int | float | None:
    """The number that a text is; None for one that is none."""
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text.strip()):
        return None
    return float(text) if set(text) & set(".eE") else int(text)


def _float(value: float, kind: pa.DataType) -> float | None:
    """None where a finite number is beyond the type, or an integer is not exact in float64."""
    if isinstance(value, int) and (not _is_exact(value)):
        return None
    if math.isfinite(value) and kind.bit_width == 32 and abs(value) > _FLOAT32_MAX:
        return None
    return float(value)


def settled_type(name: str, kinds: Iterable[pa.DataType]) -> pa.DataType:
    """The type of a column that files give in several types.

    Known columns have the type of the table in `TYPES`; others the type that holds all of them; where none
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
