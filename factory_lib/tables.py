"""Rows as a table: in a terminal, and as Arrow."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

_CELL = 48
_LEAST = 20
"""Characters to which a column of text may shrink: words are broken into lines, numbers never."""


def fitting(widths: Sequence[int], numbers: Collection[int], room: int, between: int = 3) -> tuple[int, list[int]]:
    """How many columns of a table, from the left, fit beside each other, and how wide each of them is at least.

    Args:
        widths: of the columns as they are.
        numbers: which of them have to keep their width.
        room: characters of a line.
        between: characters between two columns.

    Returns:
        The number of columns, at least one; and their least widths.
    """
    least = [w if i in numbers else min(w, _LEAST) for i, w in enumerate(widths)]
    fit = 1
    while fit < len(least) and sum(least[: fit + 1]) + between * fit <= room:
        fit += 1
    return fit, [min(width, room) for width in least[:fit]]


def print_table(table: pa.Table, title: str = "") -> None:
    """Print an Arrow table: numbers to the right, long values shortened."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    fields = list(table.schema)
    numbers = {i for i, f in enumerate(fields) if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)}
    cells = [[cell(value) for value in column.to_pylist()] for column in table.columns]
    widths = [max(map(cell_len, [field.name, *column])) for field, column in zip(fields, cells, strict=True)]
    fit, least = fitting(widths, numbers, console.width - 4)
    shown = Table(title=title or None, title_justify="left")
    for i, field in enumerate(fields[:fit]):
        side: Any = "right" if i in numbers else "left"
        shown.add_column(Text(field.name), justify=side, overflow="ellipsis", no_wrap=True, min_width=least[i])
    for row in zip(*cells[:fit], strict=True):
        shown.add_row(*map(Text, row))
    console.print(shown)
    if fit < len(fields):
        console.print(Text(f"No room for {', '.join(field.name for field in fields[fit:])}."))


def arrow_table(kind: type, rows: Iterable[Any]) -> pa.Table:
    """Dataclass objects as an Arrow table: a column a field, of the type that is written there, also without rows.

    Texts and literals become string, int int64, float float64, sequences list, mappings map, dataclasses struct; what
    may be anything (`Any`) is JSON text.
    """
    arrow_type = _arrow_type(kind)
    columns = [_as_arrow(row, kind) for row in rows]
    return pa.Table.from_pylist(columns, pa.schema(list(arrow_type)))


def _arrow_type(kind: Any) -> pa.DataType:
    plain = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64(), Any: pa.string()}
    if kind in plain:
        return plain[kind]
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return pa.struct([(f.name, _arrow_type(hints[f.name])) for f in dataclasses.fields(kind)])
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _arrow_type(type(inner[0]))
    if origin in (Union, types.UnionType):
        return _arrow_type(_some(inner))
    if issubclass(origin, Mapping):
        return pa.map_(_arrow_type(inner[0]), _arrow_type(inner[1]))
    return pa.list_(_arrow_type(inner[0]))


def _as_arrow(value: Any, kind: Any) -> Any:
    """A value as pyarrow takes it for the type: mappings as pairs, what may be anything as JSON text."""
    origin, inner = get_origin(kind), get_args(kind)
    if value is None:
        return None
    if kind is Any:
        return json.dumps(value, ensure_ascii=False, default=str)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return {f.name: _as_arrow(getattr(value, f.name), hints[f.name]) for f in dataclasses.fields(kind)}
    if origin in (Union, types.UnionType):
        return _as_arrow(value, _some(inner))
    if isinstance(value, Mapping):
        return [(_as_arrow(k, inner[0]), _as_arrow(v, inner[1])) for k, v in value.items()]
    if origin is not None and isinstance(value, Sequence) and not isinstance(value, str):
        return [_as_arrow(item, inner[0]) for item in value]
    return value


def _some(kinds: Sequence[Any]) -> Any:
    """X of `X | None`."""
    return next(kind for kind in kinds if kind is not type(None))


def cell(value: Any) -> str:
    """A value in a few characters."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and set(value) == {"uri", "offset", "size"}:
        return f"{str(value['uri']).rsplit('/', 1)[-1]}@{value['offset']}+{value['size']}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) > 3:
        return f"[{', '.join(cell(v) for v in value[:3])}, … {len(value)}]"
    if isinstance(value, list):
        return f"[{', '.join(map(cell, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {cell(item)}" for name, item in value.items())
    text = str(value)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"
