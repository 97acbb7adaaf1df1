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

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_LONGEST_NUMBER = 100
_FLOAT32_MAX = 3.4028235677973366e38

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
