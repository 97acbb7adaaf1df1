"""SQL as text: identifiers, literals, the types that Python values are bound as, and the names in hand-written SQL."""

from __future__ import annotations

import datetime as dt
import re
from itertools import pairwise
from typing import Any

import numpy as np

from factory_lib.errors import QueryError
from factory_lib.plan.sqltokens import Token, as_bytes, as_text, tokens


def quote(name: str) -> str:
    """An identifier for SQL, in backquotes unless it is plain."""
    if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) and name.upper() not in _RESERVED:
        return name
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


# What begins a clause, an operator or a literal, and what begins an entry of a table's list of columns.
_RESERVED = frozenset(
    """ALIAS ALL AND ANTI ANY APPLY ARRAY AS ASC ASOF BETWEEN BY CASE CAST CODEC COLLATE COLUMN COLUMNS COMMENT
    CONSTRAINT CROSS DATE DEFAULT DELETE DESC DISTINCT DIV ELSE END EPHEMERAL EXCEPT EXISTS FALSE FETCH FINAL
    FOREIGN FORMAT FROM FULL GLOBAL GROUP HAVING IF ILIKE IN INDEX INF INFILE INNER INSERT INTERPOLATE INTERSECT
    INTERVAL INTO IS JOIN LEFT LIKE LIMIT MATERIALIZED MOD MODIFY NAN NOT NULL OFFSET ON OR ORDER PARTITION PASTE
    PREWHERE PRIMARY PROJECTION QUALIFY RECURSIVE REMOVE RENAME REPLACE RIGHT SAMPLE SELECT SEMI SET SETTINGS
    STATISTICS TABLE THEN TIMESTAMP TO TOP TOTALS TRUE TTL UNION UPDATE USING VALUES WHEN WHERE WINDOW WITH""".split()
)


def type_of_value(value: Any) -> str:
    """ClickHouse type that a Python value is bound as.

    Raises:
        QueryError: there is none.
    """
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64):
        return _NUMPY_TYPES.get(value.dtype.name, "") or type_of_value(value.item())
    if isinstance(value, np.ndarray):
        inner = _NUMPY_TYPES.get(value.dtype.name)
        return f"Array({inner})" if inner and value.ndim == 1 else _unsupported(value)
    for kind, ch_type in _PYTHON_TYPES:
        if isinstance(value, kind):
            return ch_type
    if isinstance(value, int):
        return "Int64" if -(2**63) <= value < 2**63 else "UInt64" if 0 <= value < 2**64 else _unsupported(value)
    if isinstance(value, list | tuple) and value:
        inner_types = {type_of_value(v) for v in value}
        if inner_types == {"Int64", "Float64"}:
            inner_types = {"Float64"}
        return f"Array({inner_types.pop()})" if len(inner_types) == 1 else _unsupported(value)
    return _unsupported(value)


_PYTHON_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "Bool"),
    (float, "Float64"),
    (str, "String"),
    (bytes, "String"),
    (dt.datetime, "DateTime64(6)"),
    (dt.date, "Date32"),
)
_NUMPY_TYPES = {
    "float16": "Float32", "float32": "Float32", "float64": "Float64", "bool": "Bool",
    **{f"{sign}int{bits}": f"{'U' if sign else ''}Int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def _unsupported(value: Any) -> str:
    raise QueryError(
        f"A value of type {type(value).__name__} cannot be used in a query: {str(value)[:60]!r}.",
        "Numbers, text, dates, booleans and one-dimensional lists or arrays of one of these can.",
    )


def literal(value: Any) -> str:
    """A Python value as SQL text, for statements that take no parameters."""
    if value is None:
        return "NULL"
    if isinstance(value, np.ndarray | list | tuple):
        return f"[{', '.join(literal(v) for v in value)}]"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(repr(value), repr(value))
    if isinstance(value, bytes):
        return f"unhex('{value.hex()}')"
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifiers(text: str) -> list[tuple[str, str]]:
    """Pieces of SQL text as (name, raw text); name is empty for what cannot be a column.

    A word before a parenthesis is a function, behind a dot an element, before `->` or behind `AS` a local name.
    """
    seen = as_bytes(text)
    found = list(tokens(seen))
    local = _names_of_lambdas(found)
    out: list[tuple[str, str]] = []
    done = 0
    for place, token in enumerate(found):
        before = found[place - 1].text if place else ""
        after = found[place + 1].text if place + 1 < len(found) else ""
        names = token.kind in ("word", "quoted") and before != "." and token.name not in local
        if not names or (token.kind == "word" and (before.lower() == "as" or after == "(")):
            continue
        if token.start > done:
            out.append(("", as_text(seen[done : token.start])))
        out.append((as_text(token.name), as_text(token.text)))
        done = token.end
    if done < len(seen):
        out.append(("", as_text(seen[done:])))
    return out


def functions_called(text: str) -> list[str]:
    """Names of the functions that SQL text calls, in order."""
    return [one.text for one, two in pairwise(tokens(as_bytes(text))) if one.kind == "word" and two.text == "("]


def _names_of_lambdas(found: list[Token]) -> set[str]:
    """The names before each `->`: one, or several in brackets."""
    names: set[str] = set()
    opened: list[int] = []
    closed: dict[int, int] = {}
    for place, token in enumerate(found):
        if token.text == "(" and token.kind == "mark":
            opened.append(place)
        elif token.text == ")" and token.kind == "mark" and opened:
            closed[place] = opened.pop()
    for place, token in enumerate(found):
        if token.text == "->" and place:
            first = closed.get(place - 1, place - 1)
            names |= {token.name for token in found[first:place] if token.kind in ("word", "quoted")}
    return names
