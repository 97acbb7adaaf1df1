"""Values of `{name:Type}` parameters as the text that ClickHouse binds them from."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping
from typing import Any

import numpy as np

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\f": "\\f", "\0": "\\0"})
_QUOTED = str.maketrans(
    {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f", "\0": "\\0"}
)


def bound(params: Mapping[str, Any] | None) -> dict[str, str]:
    """Text for every parameter.

    Args:
        params: str, int, float, bool, None, date, datetime (aware ones as a point in time, naive ones as they read in
            the parameter's zone; microseconds are kept), lists, tuples, mappings, NumPy arrays and scalars; UUIDs and
            other types by their `str()`.
    """
    return {name: _top(value) for name, value in (params or {}).items()}


def _top(value: Any) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, enum.Enum):
        return _top(value.value)
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    if isinstance(value, (datetime.date, datetime.time)):
        return _moment(value)
    if isinstance(value, (bool, int, float, np.generic, np.ndarray, list, tuple, set, frozenset, Mapping)):
        return _nested(value)
    return str(value).translate(_ESCAPES)


def _nested(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        inside = ",".join(_nested(item) for item in value)
        return f"({inside}{',' if len(value) == 1 else ''})" if isinstance(value, tuple) else f"[{inside}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_nested(key)}:{_nested(item)}" for key, item in value.items()) + "}"
    if isinstance(value, enum.Enum):
        return _nested(value.value)
    if isinstance(value, (np.floating, np.integer)):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return f"'{_moment(value)}'"
    return "'" + str(value).translate(_QUOTED) + "'"


def _array(values: np.ndarray[Any, Any]) -> str:
    if values.ndim != 1:
        return "[" + ",".join(_array(row) for row in values) + "]"
    # the digits that tell a float32 from its neighbours are half of those of the double with the same value
    texts = values.astype("U").tolist() if values.dtype.kind in "fiu" else [_nested(item) for item in values.tolist()]
    return "[" + ",".join(texts) + "]"


def _moment(value: datetime.date | datetime.time) -> str:
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        # seconds since 1970 mean the same in whatever zone the parameter's type has
        since = (value - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1)
        seconds, micros = divmod(abs(since), 1_000_000)
        return f"{'-' if since < 0 else ''}{seconds:010d}" + (f".{micros:06d}" if micros else "")
    return value.isoformat(*([" "] if isinstance(value, datetime.datetime) else []))
